"""Build the networks that both meta-architectures share from a config."""

import logging

import torch
from detectron2.config import CfgNode
from diffusers import SchedulerMixin
from torch import nn

from ..config import PREDICTION_TYPES
from ..diffusion import build_scheduler
from ..modeling.denoiser import Denoiser
from ..modeling.image_encoder import ImageEncoder, build_image_encoder
from ..modeling.mask_autoencoder import MaskAutoencoder
from ..modeling.weights import load_into, load_weights

logger = logging.getLogger(__name__)

AUTOENCODER_PREFIX = "autoencoder."


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
    return MaskAutoencoder(
        num_bits=cfg.MODEL.LDMSEG.NUM_BITS,
        encoder=ae.ENCODER,
        decoder=ae.DECODER,
        head=ae.HEAD,
        downsample_factor=ae.DOWNSAMPLE_FACTOR,
        latent_channels=ae.LATENT_CHANNELS,
        encoder_channels=ae.ENCODER_CHANNELS,
        decoder_channels=ae.DECODER_CHANNELS,
        num_upsamplings=ae.NUM_UPSAMPLINGS,
        num_layers=ae.NUM_LAYERS,
        variational=ae.VARIATIONAL,
        latent_noise=ae.LATENT_NOISE,
        normalization=ae.NORMALIZATION,
        scaling_factor=ae.SCALING_FACTOR,
    )


def load_autoencoder_weights(autoencoder: MaskAutoencoder, path: str) -> None:
    """Load a trained autoencoder (a checkpoint of LDMSegAutoencoder, or safetensors), in place.

    Args:
        autoencoder: as configured.
        path: ``cfg.MODEL.LDMSEG.AUTOENCODER.WEIGHTS``; empty: random weights stay, with a warning.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file's tensors are not those of this autoencoder.
    """
    if not path:
        logger.warning(
            "MODEL.LDMSEG.AUTOENCODER.WEIGHTS is empty: the autoencoder has random weights, and "
            "nothing useful can be trained or sampled in its latents"
        )
        return
    state = load_weights(path)
    inner = {
        key[len(AUTOENCODER_PREFIX) :]: value
        for key, value in state.items()
        if key.startswith(AUTOENCODER_PREFIX)
    }
    load_into(autoencoder, inner or state, source=f"MODEL.LDMSEG.AUTOENCODER.WEIGHTS {path}")


def build_noise_scheduler(cfg: CfgNode) -> SchedulerMixin:
    """Forward process of ``MODEL.LDMSEG.DIFFUSION`` and sampler of ``MODEL.LDMSEG.SAMPLER``."""
    diffusion, sampler = cfg.MODEL.LDMSEG.DIFFUSION, cfg.MODEL.LDMSEG.SAMPLER
    if diffusion.PREDICTION_TYPE not in PREDICTION_TYPES:
        raise ValueError(
            f"MODEL.LDMSEG.DIFFUSION.PREDICTION_TYPE is {diffusion.PREDICTION_TYPE!r}; "
            f"allowed: {', '.join(PREDICTION_TYPES)}"
        )
    return build_scheduler(
        sampler.NAME,
        num_train_timesteps=diffusion.NUM_TRAIN_TIMESTEPS,
        beta_schedule=diffusion.BETA_SCHEDULE,
        beta_start=diffusion.BETA_START,
        beta_end=diffusion.BETA_END,
        prediction_type=diffusion.PREDICTION_TYPE,
        timestep_spacing=sampler.TIMESTEP_SPACING,
        rescale_betas_zero_snr=diffusion.RESCALE_BETAS_ZERO_SNR,
    )


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
    if encoder.FREEZE and not built.is_pretrained and not cfg.MODEL.WEIGHTS:
        logger.warning(
            "MODEL.LDMSEG.IMAGE_ENCODER: %s is frozen with random weights, and the checkpoints of "
            "a training leave frozen weights out: set its OPTIONS.PRETRAINED, or MODEL.WEIGHTS to "
            "a file that has them",
            encoder.NAME,
        )
    return built


def build_denoiser(cfg: CfgNode) -> Denoiser:
    """The UNet of ``MODEL.LDMSEG.DENOISER``, with an input for every latent and condition."""
    unet = cfg.MODEL.LDMSEG.DENOISER
    return Denoiser(
        latent_channels=cfg.MODEL.LDMSEG.AUTOENCODER.LATENT_CHANNELS,
        condition_channels=cfg.MODEL.LDMSEG.IMAGE_ENCODER.OUT_CHANNELS,
        self_conditioning=cfg.MODEL.LDMSEG.DIFFUSION.SELF_CONDITIONING,
        block_out_channels=unet.BLOCK_OUT_CHANNELS,
        down_block_types=unet.DOWN_BLOCK_TYPES,
        up_block_types=unet.UP_BLOCK_TYPES,
        layers_per_block=unet.LAYERS_PER_BLOCK,
        attention_head_dim=unet.ATTENTION_HEAD_DIM,
        norm_num_groups=unet.NORM_NUM_GROUPS,
        pretrained=unet.PRETRAINED,
        subfolder=unet.SUBFOLDER,
        conv_in_mask_init=unet.CONV_IN_MASK_INIT,
        conv_in_init=unet.CONV_IN_INIT,
        conditioning=unet.CONDITIONING,
        cross_attention=unet.CROSS_ATTENTION,
        cross_attention_dim=unet.CROSS_ATTENTION_DIM,
        freeze=unet.FREEZE,
        gradient_checkpointing=unet.GRADIENT_CHECKPOINTING,
        channels_last=unet.CHANNELS_LAST,
        compile_unet=unet.COMPILE,
    )


def postprocess_arguments(cfg: CfgNode) -> dict:
    """Keyword arguments of ``logits_to_panoptic`` from ``cfg.MODEL.LDMSEG.POSTPROCESS``."""
    post = cfg.MODEL.LDMSEG.POSTPROCESS
    return {
        "mask_threshold": post.MASK_THRESHOLD,
        "overlap_threshold": post.OVERLAP_THRESHOLD,
        "count_threshold": post.COUNT_THRESHOLD,
        "min_segment_score": post.MIN_SEGMENT_SCORE,
        "min_segment_area": post.MIN_SEGMENT_AREA,
    }


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


def encoder_parts(name: str, encoder: ImageEncoder) -> list[str]:
    """What ``MODEL.LDMSEG.IMAGE_ENCODER.FREEZE`` freezes: dotted names of sub-modules."""
    return [f"{name}.{part}" for part in encoder.backbone_names] or [name]


def pixel_statistics(mean: list[float], std: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """``MODEL.PIXEL_MEAN`` and ``PIXEL_STD`` as (3, 1, 1) tensors."""
    return torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)
