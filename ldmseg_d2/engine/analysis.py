"""What a config takes: parameters, operations and memory, without its pretrained weights.

Operations count a multiplication and an addition as two (2 x MAC), in convolutions, linear layers
and attention. They are counted on torch's meta device, where tensors have shapes but no values, so
that a model of any size can be asked about.
"""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ldmseg_d2.modeling.image_encoder import IMAGE_ENCODER_REGISTRY

from .ema import ModelEMA
from .optimizer import build_optimizer
from .train_step import PRECISIONS

# Bytes of a trained parameter in float32: weight, gradient, AdamW's two averages.
BYTES_TRAINED = 16


def build_without_weights(cfg: CfgNode, device: str = "meta") -> nn.Module:
    """The model of a config with random weights: nothing is downloaded or read."""
    cfg = cfg.clone()
    cfg.defrost()
    ldmseg, cfg.MODEL.DEVICE = cfg.MODEL.LDMSEG, device
    cfg.MODEL.WEIGHTS = ldmseg.AUTOENCODER.WEIGHTS = ldmseg.DEPTH.AUTOENCODER.WEIGHTS = ""
    ldmseg.DENOISER.PRETRAINED = ""
    ldmseg.DENOISER.COMPILE = False
    encoder = ldmseg.IMAGE_ENCODER
    parameters = inspect.signature(IMAGE_ENCODER_REGISTRY.get(encoder.NAME).__init__).parameters
    if "pretrained" in parameters:
        encoder.OPTIONS.PRETRAINED = "" if parameters["pretrained"].default == "" else False
    with torch.device(device):
        return build_model(cfg)


def measure_memory(cfg: CfgNode, what: str, number: int) -> float:
    """Peak bytes of "train" or "inference" with `number` pictures in this, fresh, process.

    On a CPU it is the resident memory, libraries and all (Linux), on a GPU what torch allocated.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS = 2  # memory does not depend on it
    amp, cuda = cfg.SOLVER.AMP, cfg.MODEL.DEVICE.startswith("cuda")
    model = build_without_weights(cfg, cfg.MODEL.DEVICE)
    if what == "inference":
        with torch.no_grad():
            model.eval()(_fake_batch(cfg.INPUT.LDMSEG.IMAGE_SIZE, number))
    else:
        batch = _fake_batch(_train_size(cfg), number)
        model.train()
        optimizer = build_optimizer(cfg, model)
        ema = ModelEMA(model, decay=cfg.MODEL.EMA.DECAY) if cfg.MODEL.EMA.ENABLED else None
        for _ in range(2):  # the second one finds the optimizer's state in place
            optimizer.zero_grad(set_to_none=True)
            enabled = amp.ENABLED and cuda
            with torch.autocast(model.device.type, PRECISIONS[amp.PRECISION], enabled=enabled):
                losses = model(batch)
            sum(losses.values()).backward()
            optimizer.step()
            if ema:
                ema.update(model)
    if cuda:
        return float(torch.cuda.max_memory_allocated())
    # Not getrusage's peak, which a process inherits from the one that starts it.
    status = Path("/proc/self/status").read_text()
    return 1024 * float(re.search(r"VmHWM:\s*(\d+)", status)[1])


def _fake_batch(size: int, number: int) -> list[dict]:
    """Grey pictures with two segments of class 0 on a plane."""
    ids = torch.ones(size, size, dtype=torch.int64)
    ids[: size // 2] = 2
    image = torch.full((3, size, size), 127, dtype=torch.uint8)
    depth = torch.linspace(2, 1, size)[:, None].expand(size, size).contiguous()
    entry = {"image": image, "segment_ids": ids, "height": size, "width": size, "depth": depth}
    entry["sem_seg"] = torch.zeros_like(ids)
    entry["segments_info"] = [{"id": i, "category_id": 0, "isthing": False} for i in (1, 2)]
    return [{**entry, "image_id": i} for i in range(number)]


def count_flops(function: Callable, *args: Tensor, backward: bool = False) -> tuple[float, Tensor]:
    """Operations of ``function(*args)``, and of the way back, and its result."""
    # The counter knows the mathematics of attention, and not every fused kernel of it.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        output = function(*args)
        if backward and output.requires_grad:
            output.float().sum().backward()
    return float(counter.get_total_flops()), output


def analyze(cfg: CfgNode) -> dict:
    """Parameters, operations of one picture, and the least memory that training takes.

    Returns:
        ``parameters``: part to (all, trained); ``flops``: what to operations of one picture, with
        the keys "step" (one pass of the denoiser; stage 2 alone), "inference" and "training"
        (forward and backward); ``forwards``: passes of the denoiser for one picture, 0 in stage 1;
        ``least_bytes``: weights, gradients, AdamW's state and the averaged weights, without
        activations.
    """
    model = build_without_weights(cfg)
    counts = {}
    for name, part in model.named_children():
        sizes = [(p.numel(), p.requires_grad) for p in part.parameters()]
        if sizes:
            counts[name] = sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)
    total, trained = (sum(count[i] for count in counts.values()) for i in (0, 1))
    is_stage_2 = hasattr(model, "denoiser")
    flops, forwards = ldmseg_flops(cfg, model) if is_stage_2 else (autoencoder_flops(cfg, model), 0)
    ema = 4 * trained if cfg.MODEL.EMA.ENABLED else 0
    least = BYTES_TRAINED * trained + 4 * (total - trained) + ema
    return {"parameters": counts, "flops": flops, "forwards": forwards, "least_bytes": least}


def autoencoder_flops(cfg: CfgNode, model: nn.Module) -> dict[str, float]:
    """Stage 1; its losses, which are cheap beside the network, are left out."""
    autoencoder, size = model.autoencoder, cfg.INPUT.LDMSEG.IMAGE_SIZE

    def reconstruct(maps: Tensor) -> Tensor:
        return autoencoder.decode(autoencoder.encoder(maps)[:, : autoencoder.latent_channels])

    seen, trained = (_encoder_input(autoencoder, s) for s in (size, _train_size(cfg)))
    return {
        "inference": count_flops(reconstruct, seen)[0],
        "training": count_flops(reconstruct, trained, backward=True)[0],
    }


def _train_size(cfg: CfgNode) -> int:
    return cfg.INPUT.LDMSEG.TRAIN_SIZE or cfg.INPUT.LDMSEG.IMAGE_SIZE


def _encoder_input(autoencoder: nn.Module, size: int) -> Tensor:
    """(1, C, size, size) as the encoder takes it: bits, or depth and where it is valid."""
    channels = getattr(autoencoder, "num_bits", 2)
    return torch.zeros(1, channels, size, size, device="meta")


def ldmseg_flops(cfg: CfgNode, model: nn.Module) -> tuple[dict[str, float], int]:
    """Stage 2, and how often the denoiser runs for one picture.

    The extra passes of self-conditioning and matched ids are counted as always made. "separate"
    tasks are a sampling run each, but one of them is trained on a picture: there their autoencoders
    count by how often ``TASK_WEIGHTS`` draws them.
    """
    ldmseg = cfg.MODEL.LDMSEG
    names, joint = list(ldmseg.TASKS), ldmseg.TASK_MODE == "joint"
    networks = [model.depth_autoencoder if n == "depth" else model.autoencoder for n in names]
    t = torch.zeros(1, dtype=torch.int64, device="meta")

    def inputs(size: int) -> tuple[Tensor, Tensor, Tensor]:
        """A photo, the denoiser's latents, one task's latents."""
        side = size // ldmseg.AUTOENCODER.DOWNSAMPLE_FACTOR
        channels = ldmseg.AUTOENCODER.LATENT_CHANNELS
        shapes = (3, size), (channels * (len(names) if joint else 1), side), (channels, side)
        return tuple(torch.zeros(1, c, s, s, device="meta") for c, s in shapes)

    def see(photo: Tensor, like: Tensor) -> Tensor:
        return nn.functional.interpolate(model.image_encoder(photo), size=like.shape[-2:])

    def denoise(x: Tensor, condition: Tensor) -> Tensor:
        return model.denoiser(x, t, condition=condition)

    photo, x, latents = inputs(cfg.INPUT.LDMSEG.IMAGE_SIZE)
    with torch.no_grad():
        encode_photo, condition = count_flops(see, photo, x)
        step, _ = count_flops(denoise, x, condition)
        inference = sum(count_flops(network.decode, latents)[0] for network in networks)
    forwards = ldmseg.SAMPLER.NUM_INFERENCE_STEPS * (1 if joint else len(names))
    inference += encode_photo + forwards * step

    size = _train_size(cfg)
    photo, x, latents = inputs(size)
    weights = list(ldmseg.TASK_WEIGHTS) or [1.0] * len(names)
    drawn = [1.0 if joint else weight / sum(weights) for weight in weights]
    training, _ = count_flops(lambda: denoise(x, see(photo, x)), backward=True)
    with torch.no_grad():
        forward, _ = count_flops(denoise, x, see(photo, x))
        for share, network in zip(drawn, networks):
            training += share * count_flops(network.encoder, _encoder_input(network, size))[0]
        if ldmseg.ID_ASSIGNMENT == "matched" and "instance" in names:
            share = drawn[names.index("instance")]
            training += forward + share * count_flops(model.autoencoder.decode, latents)[0]
    if ldmseg.DIFFUSION.SELF_CONDITIONING and ldmseg.DIFFUSION.SELF_CONDITIONING_PROB > 0:
        training += forward
    return {"step": step, "inference": inference, "training": training}, forwards
