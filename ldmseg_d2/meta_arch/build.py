"""From the config to parts: the one place, beside ``from_config``, that reads cfg for networks."""

import logging
from typing import Any

from detectron2.config import CfgNode
from diffusers import SchedulerMixin
from torch import nn

from ..diffusion import build_scheduler, timestep_loss_weights
from ..modeling.class_head import MaskPoolingHead
from ..modeling.denoiser import Denoiser
from ..modeling.depth_autoencoder import DepthAutoencoder
from ..modeling.image_encoder import ImageEncoder, build_image_encoder
from ..modeling.latent_autoencoder import LatentAutoencoder
from ..modeling.mask_autoencoder import MaskAutoencoder
from ..modeling.weights import load_into, load_weights, without_prefixes
from .segment_classes import MaskPooling, SegmentClassifier, SemanticVote, dataset_classes
from .task_base import build_tasks, task_classes
from .task_batches import TaskLayout

logger = logging.getLogger(__name__)


def ldmseg_from_config(cfg: CfgNode) -> dict[str, Any]:
    """Keyword arguments of :class:`LDMSeg`."""
    ldmseg = cfg.MODEL.LDMSEG
    autoencoders = build_autoencoders(cfg)
    tasks = build_tasks(cfg, autoencoders)
    scheduler = build_noise_scheduler(cfg)
    return {
        "autoencoders": autoencoders,
        "layout": TaskLayout(tasks, mode=ldmseg.TASK_MODE, weights=ldmseg.TASK_WEIGHTS),
        "image_encoder": build_condition_encoder(cfg),
        "denoiser": build_denoiser(cfg),
        "scheduler": scheduler,
        "timestep_weights": timestep_loss_weights(
            scheduler, weighting=ldmseg.DIFFUSION.LOSS_WEIGHTING
        ),
        "image_size": cfg.INPUT.LDMSEG.IMAGE_SIZE,
        "train_size": cfg.INPUT.LDMSEG.TRAIN_SIZE,
        "pixel_mean": cfg.MODEL.PIXEL_MEAN,
        "pixel_std": cfg.MODEL.PIXEL_STD,
        "num_inference_steps": ldmseg.SAMPLER.NUM_INFERENCE_STEPS,
        "self_conditioning_prob": ldmseg.DIFFUSION.SELF_CONDITIONING_PROB,
        "train_inpainting_prob": ldmseg.TRAIN_INPAINTING.PROB,
        "freeze_image_encoder": ldmseg.IMAGE_ENCODER.FREEZE,
        "classifier": build_classifier(cfg),
        "seed": cfg.SEED,
    }


def build_mask_autoencoder(cfg: CfgNode) -> MaskAutoencoder:
    """The autoencoder of ``cfg.MODEL.LDMSEG.AUTOENCODER``, with random weights."""
    ae = cfg.MODEL.LDMSEG.AUTOENCODER
    size = cfg.INPUT.LDMSEG.IMAGE_SIZE
    if size % ae.DOWNSAMPLE_FACTOR:
        raise ValueError(
            f"INPUT.LDMSEG.IMAGE_SIZE {size} must be a multiple of "
            f"MODEL.LDMSEG.AUTOENCODER.DOWNSAMPLE_FACTOR {ae.DOWNSAMPLE_FACTOR}"
        )
    if not 2 <= cfg.MODEL.LDMSEG.NUM_BITS <= 16:
        raise ValueError(f"MODEL.LDMSEG.NUM_BITS must be 2..16, got {cfg.MODEL.LDMSEG.NUM_BITS}")
    sizes = {key.lower(): value for key, value in ae.items() if key not in ("WEIGHTS", "LOSS")}
    return MaskAutoencoder(num_bits=cfg.MODEL.LDMSEG.NUM_BITS, **sizes)


def build_depth_autoencoder(cfg: CfgNode) -> DepthAutoencoder:
    """The autoencoder of ``cfg.MODEL.LDMSEG.DEPTH.AUTOENCODER``, with random weights."""
    depth, masks = cfg.MODEL.LDMSEG.DEPTH.AUTOENCODER, cfg.MODEL.LDMSEG.AUTOENCODER
    return DepthAutoencoder(
        downsample_factor=masks.DOWNSAMPLE_FACTOR,
        latent_channels=masks.LATENT_CHANNELS,
        channels=depth.CHANNELS,
        latent_noise=depth.LATENT_NOISE,
    )


def load_autoencoder_weights(autoencoder: LatentAutoencoder, path: str) -> None:
    """Load a trained autoencoder (a checkpoint of stage 1, or safetensors), in place.

    Args:
        autoencoder: as configured.
        path: the value of its config key ``WEIGHTS``; empty: random weights stay, with a warning.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file's tensors are not those of this autoencoder.
    """
    key = f"{autoencoder.config_key}.WEIGHTS"
    if not path:
        logger.warning(
            "%s is empty: the autoencoder has random weights, and nothing useful can be trained or "
            "sampled in its latents",
            key,
        )
        return
    state = load_weights(path)
    prefix = "autoencoder."
    inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    inner = inner or state
    if autoencoder.normalization == "fixed":
        # A standardised one's networks work without its statistics, which "fixed" does not use.
        inner = without_prefixes(inner, ("running_",))
    load_into(autoencoder, inner, source=f"{key} {path}")


def build_autoencoders(cfg: CfgNode) -> dict[str, LatentAutoencoder]:
    """The trained autoencoders that ``MODEL.LDMSEG.TASKS`` need, by the attribute they become."""
    builders = {
        "autoencoder": (build_mask_autoencoder, cfg.MODEL.LDMSEG.AUTOENCODER),
        "depth_autoencoder": (build_depth_autoencoder, cfg.MODEL.LDMSEG.DEPTH.AUTOENCODER),
    }
    autoencoders = {}
    for name in dict.fromkeys(task.autoencoder_name for task in task_classes(cfg)):
        build, node = builders[name]
        autoencoders[name] = build(cfg)
        load_autoencoder_weights(autoencoders[name], node.WEIGHTS)
    return autoencoders


def build_condition_encoder(cfg: CfgNode) -> ImageEncoder:
    """The image encoder of ``MODEL.LDMSEG.IMAGE_ENCODER``.

    Raises:
        ValueError: unknown name or option, or it needs photos in [-1, 1] and gets others.
    """
    encoder = cfg.MODEL.LDMSEG.IMAGE_ENCODER
    built = build_image_encoder(
        encoder.NAME,
        out_channels=encoder.OUT_CHANNELS,
        options={key.lower(): value for key, value in encoder.OPTIONS.items()},
    )
    if built.needs_unit_range and {*cfg.MODEL.PIXEL_MEAN, *cfg.MODEL.PIXEL_STD} != {127.5}:
        raise ValueError(
            f"{encoder.NAME} needs photos in [-1, 1] and converts them itself: leave "
            f"MODEL.PIXEL_MEAN and PIXEL_STD at 127.5 (they are {cfg.MODEL.PIXEL_MEAN} and "
            f"{cfg.MODEL.PIXEL_STD})"
        )
    if encoder.FREEZE and not (built.is_pretrained or cfg.MODEL.WEIGHTS):
        logger.warning(
            "MODEL.LDMSEG.IMAGE_ENCODER: %s is frozen with random weights, and the checkpoints of "
            "a training leave frozen weights out: set its OPTIONS.PRETRAINED, or MODEL.WEIGHTS to "
            "a file that has them",
            encoder.NAME,
        )
    return built


def build_classifier(cfg: CfgNode) -> SegmentClassifier:
    """What gives segments their classes, by ``MODEL.LDMSEG.CLASSIFIER``.

    Raises:
        ValueError: unknown name, a task is missing, or no data set tells the classes.
    """
    ldmseg = cfg.MODEL.LDMSEG
    needs = {
        "none": set(),
        "semantic_task": {"instance", "semantic"},
        "mask_pooling": {"instance"},
    }
    if ldmseg.CLASSIFIER not in needs:
        raise ValueError(
            f"MODEL.LDMSEG.CLASSIFIER is {ldmseg.CLASSIFIER!r}; allowed: {', '.join(needs)}"
        )
    if not needs[ldmseg.CLASSIFIER] <= set(ldmseg.TASKS):
        raise ValueError(
            f"MODEL.LDMSEG.CLASSIFIER {ldmseg.CLASSIFIER!r} needs "
            f"{sorted(needs[ldmseg.CLASSIFIER])} in MODEL.LDMSEG.TASKS, which is "
            f"{list(ldmseg.TASKS)}"
        )
    if ldmseg.CLASSIFIER == "none":
        return SegmentClassifier()
    classes, split_area = dataset_classes(cfg), ldmseg.POSTPROCESS.SPLIT_AREA
    if ldmseg.CLASSIFIER == "semantic_task":
        return SemanticVote(classes, split_area=split_area)
    return MaskPooling(
        classes,
        head=MaskPoolingHead(
            in_channels=ldmseg.IMAGE_ENCODER.OUT_CHANNELS, num_classes=classes.num_classes
        ),
        image_size=cfg.INPUT.LDMSEG.IMAGE_SIZE,
        train_size=cfg.INPUT.LDMSEG.TRAIN_SIZE,
        split_area=split_area,
    )


def build_noise_scheduler(cfg: CfgNode) -> SchedulerMixin:
    """Forward process and sampler of ``MODEL.LDMSEG.DIFFUSION`` and ``SAMPLER``."""
    kind = cfg.MODEL.LDMSEG.DIFFUSION.PREDICTION_TYPE
    allowed = ("epsilon", "sample", "v_prediction")
    if kind not in allowed:
        raise ValueError(
            f"MODEL.LDMSEG.DIFFUSION.PREDICTION_TYPE is {kind!r}; allowed: {', '.join(allowed)}"
        )
    return build_scheduler(cfg.MODEL.LDMSEG.SAMPLER.NAME, prediction_type=kind)


def build_denoiser(cfg: CfgNode) -> Denoiser:
    """The UNet of ``MODEL.LDMSEG.DENOISER``, with an input for every latent and condition."""
    ldmseg, unet = cfg.MODEL.LDMSEG, cfg.MODEL.LDMSEG.DENOISER
    joint, num_tasks = ldmseg.TASK_MODE == "joint", len(ldmseg.TASKS)
    renamed = {"COMPILE": "compile_unet"}
    return Denoiser(
        latent_channels=ldmseg.AUTOENCODER.LATENT_CHANNELS * (num_tasks if joint else 1),
        condition_channels=ldmseg.IMAGE_ENCODER.OUT_CHANNELS,
        self_conditioning=ldmseg.DIFFUSION.SELF_CONDITIONING,
        num_tasks=1 if joint else num_tasks,
        known_channel=ldmseg.TRAIN_INPAINTING.PROB > 0,
        **{renamed.get(key, key.lower()): value for key, value in unet.items()},
    )


class FrozenPartsMixin:
    """Frozen sub-networks stay in eval mode inside ``train()`` and out of the checkpoint.

    ``frozen_prefixes`` names them as prefixes of the state dict, e.g.
    ``("autoencoder.", "image_encoder.backbone.")``.
    """

    frozen_prefixes: tuple[str, ...] = ()

    def freeze_parts(self, *names: str) -> None:
        """Freeze further sub-modules for good, such as ``image_encoder.backbone``."""
        self.frozen_prefixes += tuple(f"{name}." for name in names)
        for name in names:
            self.get_submodule(name).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        for prefix in self.frozen_prefixes:
            self.get_submodule(prefix[:-1]).eval()
        return self


def image_encoder_parts(encoder: ImageEncoder) -> list[str]:
    """What ``MODEL.LDMSEG.IMAGE_ENCODER.FREEZE`` freezes: dotted names of sub-modules."""
    return [f"image_encoder.{part}" for part in encoder.backbone_names] or ["image_encoder"]
