"""What a config takes: parameters, operations, memory.

Operations count a multiplication and an addition as two (2 x MAC), in convolutions, linear layers
and attention. They are counted on torch's meta device, where tensors have shapes but no values, so
that a model of any size can be asked about. Pretrained weights are never loaded.
"""

import inspect
import unittest.mock
from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ldmseg_d2.config import MATCHED_ASSIGNMENTS
from ldmseg_d2.diffusion import network_passes
from ldmseg_d2.meta_arch import build
from ldmseg_d2.meta_arch.condition import build_condition_encoder, build_supervision
from ldmseg_d2.meta_arch.tasks import build_tasks
from ldmseg_d2.modeling.image_encoder import IMAGE_ENCODER_REGISTRY
from ldmseg_d2.modeling.mask_autoencoder import MaskAutoencoder

# Bytes of a trained parameter in float32: weight, gradient, AdamW's two averages.
BYTES_TRAINED = 16


def without_weights(cfg: CfgNode) -> CfgNode:
    """The same networks, with random weights: nothing is downloaded or read."""
    cfg = cfg.clone()
    cfg.defrost()
    ldmseg = cfg.MODEL.LDMSEG
    cfg.MODEL.WEIGHTS = ldmseg.AUTOENCODER.WEIGHTS = ldmseg.DENOISER.PRETRAINED = ""
    ldmseg.DEPTH.AUTOENCODER.WEIGHTS = ""
    ldmseg.DENOISER.COMPILE = False
    encoder = ldmseg.IMAGE_ENCODER
    encoder.CACHE_DIR = encoder.WEIGHTS = ""
    parameters = inspect.signature(IMAGE_ENCODER_REGISTRY.get(encoder.NAME).__init__).parameters
    if "pretrained" in parameters:
        encoder.OPTIONS.PRETRAINED = "" if parameters["pretrained"].default == "" else False
    return cfg


def build_parts(cfg: CfgNode) -> dict[str, nn.Module]:
    """The networks of a config on the meta device: shapes without values, at no cost.

    Their names are the model's attributes: one or several autoencoders and, of LDMSeg,
    "image_encoder", "denoiser" and, where there are any, "supervision" (of cells) and "classifier"
    (by pooling); LDMSegImageEncoder has the two that its name tells.
    """
    meta_arch = cfg.MODEL.META_ARCHITECTURE
    with torch.device("meta"):
        if meta_arch == "LDMSegDepthAutoencoder":
            return {"autoencoder": build.build_depth_autoencoder(cfg)}
        if meta_arch not in ("LDMSeg", "LDMSegImageEncoder"):
            return {"autoencoder": build.build_mask_autoencoder(cfg)}
        parts: dict[str, nn.Module] = {}
        if meta_arch == "LDMSeg":
            parts.update(build.build_autoencoders(cfg))
        for autoencoder in parts.values():
            autoencoder.requires_grad_(False).eval()
        parts["image_encoder"] = build_condition_encoder(cfg)
        supervision = build_supervision(cfg)
        if supervision is not None:
            parts["supervision"] = supervision
        if meta_arch != "LDMSeg":
            return parts
        parts["denoiser"] = build.build_denoiser(cfg)
        classifier = build.build_classifier(cfg)
        if list(classifier.parameters()):
            parts["classifier"] = classifier
    if cfg.MODEL.LDMSEG.IMAGE_ENCODER.FREEZE:
        encoder = parts["image_encoder"]
        for name in encoder.backbone_names or ("",):
            encoder.get_submodule(name).requires_grad_(False).eval()
    return parts


def count_flops(
    function: Callable[..., Tensor], *args: Tensor, backward: bool = False
) -> tuple[float, Tensor]:
    """Operations of ``function(*args)``, and of the way back, and its result."""
    # The counter knows the mathematics of attention, and not every fused kernel of it.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        output = function(*args)
        if backward and output.requires_grad:
            output.float().sum().backward()
    return float(counter.get_total_flops()), output


class _FusedAttention(torch.autograd.Function):
    """Keeps for the way back what fused attention kernels keep: no matrix of scores."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output)
        return output

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(saved) for saved in ctx.saved_tensors[:3])


def activation_bytes(function: Callable[..., Tensor], module: nn.Module, *args: Tensor) -> float:
    """Bytes that autograd keeps of ``function(*args)`` for the way back, in the tensors' own dtype.

    Every storage is counted once; the parameters of `module` are left out, and attention is counted
    as the fused kernels do it.
    """
    weights = {p.untyped_storage()._cdata for p in module.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    def attend(query: Tensor, key: Tensor, value: Tensor, *_, **__) -> Tensor:
        return _FusedAttention.apply(query, key, value)

    with (
        unittest.mock.patch.object(nn.functional, "scaled_dot_product_attention", attend),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        output = function(*args)  # alive until the end: its graph keeps the storages
    del output
    return float(sum(kept.values()))


def analyze(cfg: CfgNode) -> dict:
    """Parameters, operations of one picture, and the least memory that training takes.

    Returns:
        ``parameters``: part to (all, trained); ``flops``: what to operations of one picture, with
        the keys "step" (of the sampler, for all tasks; LDMSeg alone), "inference" (all steps, image
        encoder and decoders) and "training" (forward and backward of one picture); ``forwards``:
        how often the denoiser runs for one picture, at inference; ``least_bytes``: weights,
        gradients, AdamW's state and the averaged weights, without activations;
        ``activation_bytes``: what one picture adds to it in float32.
    """
    cfg = without_weights(cfg)
    parts = build_parts(cfg)
    counts = {
        name: (
            sum(p.numel() for p in part.parameters()),
            sum(p.numel() for p in part.parameters() if p.requires_grad),
        )
        for name, part in parts.items()
    }
    total, trained = (sum(count[i] for count in counts.values()) for i in (0, 1))
    if "denoiser" in parts:
        flops = ldmseg_flops(cfg, parts)
    else:
        flops = (encoder_flops if "image_encoder" in parts else autoencoder_flops)(cfg, parts)
    ema = 4 * trained if cfg.MODEL.EMA.ENABLED else 0
    least = BYTES_TRAINED * trained + 4 * (total - trained) + ema
    activations, forwards = flops.pop("activation_bytes"), int(flops.pop("forwards", 0))
    return {
        "parameters": counts,
        "flops": flops,
        "forwards": forwards,
        "least_bytes": least,
        "activation_bytes": activations,
    }


def autoencoder_flops(cfg: CfgNode, parts: dict[str, nn.Module]) -> dict[str, float]:
    """Stage 1; its losses, which are cheap beside the network, are left out."""
    autoencoder, size = parts["autoencoder"], cfg.INPUT.LDMSEG.IMAGE_SIZE
    crop = cfg.INPUT.LDMSEG.TRAIN_SIZE or size
    if isinstance(autoencoder, MaskAutoencoder):
        crop = cfg.MODEL.LDMSEG.AUTOENCODER.LOSS.CROP_SIZE or crop
    maps, cropped = (_encoder_input(autoencoder, side) for side in (size, crop))

    def reconstruct(maps: Tensor) -> Tensor:
        return autoencoder.decode(autoencoder.encoder(maps)[:, : autoencoder.latent_channels])

    training, _ = count_flops(reconstruct, cropped, backward=True)
    return {
        "inference": count_flops(reconstruct, maps)[0],
        "training": training,
        "activation_bytes": activation_bytes(reconstruct, autoencoder, cropped),
    }


def encoder_flops(cfg: CfgNode, parts: dict[str, nn.Module]) -> dict[str, float]:
    """LDMSegImageEncoder; its loss, which is cheap beside the network, is left out."""
    size = cfg.INPUT.LDMSEG.IMAGE_SIZE
    photo, crop = (
        torch.zeros(1, 3, side, side, device="meta")
        for side in (size, cfg.INPUT.LDMSEG.TRAIN_SIZE or size)
    )

    def classify(photo: Tensor) -> Tensor:
        return parts["supervision"].head(parts["image_encoder"](photo))

    return {
        "inference": count_flops(classify, photo)[0],
        "training": count_flops(classify, crop, backward=True)[0],
        "activation_bytes": activation_bytes(classify, nn.ModuleDict(parts), crop),
    }


def _encoder_input(autoencoder: nn.Module, size: int) -> Tensor:
    """(1, C, size, size) as the encoder takes it: bits, or depth and where it is valid."""
    channels = autoencoder.num_bits if isinstance(autoencoder, MaskAutoencoder) else 2
    return torch.zeros(1, channels, size, size, device="meta")


def ldmseg_flops(cfg: CfgNode, parts: dict[str, nn.Module]) -> dict[str, float]:
    """Stage 2. The extra passes of self-conditioning, matched ids and self-aligned denoising are
    counted as always made.

    "separate" tasks are a sampling run each, but one of them is trained on a picture: there their
    autoencoders count by how often ``TASK_WEIGHTS`` draws them.
    """
    ldmseg, size = cfg.MODEL.LDMSEG, cfg.INPUT.LDMSEG.IMAGE_SIZE
    denoiser, tasks = parts["denoiser"], build_tasks(cfg, parts)
    layout = build.build_layout(cfg, tasks)
    number = len(tasks)
    t = torch.zeros(1, dtype=torch.int64, device="meta")

    def inputs(size: int) -> tuple[Tensor, Tensor, Tensor]:
        """A photo, all latents, one task's latents."""
        side = size * layout.latent_size // cfg.INPUT.LDMSEG.IMAGE_SIZE
        shapes = (3, size), (layout.latent_channels, side), (layout.task_channels, side)
        return tuple(torch.zeros(1, c, s, s, device="meta") for c, s in shapes)

    def condition(photo: Tensor) -> Tensor:
        grid = parts["image_encoder"](photo)
        side = photo.shape[-1] * layout.latent_size // cfg.INPUT.LDMSEG.IMAGE_SIZE
        if ldmseg.DENOISER.CONDITIONING == "concat" and grid.shape[-1] != side:
            grid = nn.functional.interpolate(grid, size=(side, side), mode="bilinear")
        return parts["supervision"].extend(grid) if "supervision" in parts else grid

    def denoise(photo: Tensor, x: Tensor) -> Tensor:
        return denoiser(x, t, condition(photo))

    def of_parts(size: int) -> tuple[float, float, list[float], list[float]]:
        """Operations of image encoder, denoiser, and each task's encoder and decoder."""
        photo, x, own = inputs(size)
        networks = [task.autoencoder for task in tasks]
        with torch.no_grad():
            see, seen = count_flops(condition, photo)
            forward, _ = count_flops(denoiser, x, t, seen)
            encode = [count_flops(net.encoder, _encoder_input(net, size))[0] for net in networks]
            decode = [count_flops(net.decode, own)[0] for net in networks]
        return see, forward, encode, decode

    encode_image, step, _, decode_all = of_parts(size)
    train_size = cfg.INPUT.LDMSEG.TRAIN_SIZE or size
    _, forward, encode, decode = of_parts(train_size)
    images, x, own = inputs(train_size)
    drawn = [1.0] * number if layout.joint else [w / sum(layout.weights) for w in layout.weights]
    training = count_flops(denoise, images, x, backward=True)[0]
    training += sum(share * flops for share, flops in zip(drawn, encode, strict=True))
    diffusion = ldmseg.DIFFUSION
    if diffusion.SELF_CONDITIONING and diffusion.SELF_CONDITIONING_PROB > 0:
        training += forward
    matched = ldmseg.ID_ASSIGNMENT in MATCHED_ASSIGNMENTS and "instance" in layout.names
    if matched or diffusion.SELF_ALIGNED_PROB > 0:
        training += forward  # one prediction serves both, made for the whole batch
    if matched:
        task = layout.names.index("instance")
        training += drawn[task] * decode[task]
    if diffusion.DECODED_LOSS_WEIGHT > 0:
        own.requires_grad_(True)
        for share, task in zip(drawn, tasks, strict=True):
            training += share * count_flops(task.autoencoder.decode, own, backward=True)[0]
    forwards = network_passes(ldmseg.SAMPLER.NAME, ldmseg.SAMPLER.NUM_INFERENCE_STEPS)
    forwards *= 1 if layout.joint else number
    return {
        "step": step * (1 if layout.joint else number),
        "inference": encode_image + forwards * step + sum(decode_all),
        "training": training,
        "forwards": forwards,
        "activation_bytes": activation_bytes(denoise, nn.ModuleDict(parts), images, x),
    }
