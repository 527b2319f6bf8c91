"""Pretrained UNets in diffusers' layout: from a folder or the hub, then fitted to our channels."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import nn

from .from_hub import load_from_hub

logger = logging.getLogger(__name__)

CONV_IN_MASK_INITS = ("pretrained", "random")
CONV_IN_INITS = ("zero", "random")
CONFIG_NAME = "config.json"
# Inputs that some UNets need besides the timestep (SDXL, unCLIP, ...), and that LDMSeg has not.
UNSUPPORTED_INPUTS = ("addition_embed_type", "class_embed_type", "encoder_hid_dim")


def load_unet(
    pretrained: str, *, subfolder: str = "unet", with_cross_attention: bool = True
) -> UNet2DConditionModel:
    """Load a UNet that ``save_pretrained`` wrote, e.g. the one of Stable Diffusion 1.x or 2.x.

    Args:
        pretrained: a local folder, or the id of a repository on the hub (``owner/name``), which is
            looked up in the local cache first.
        subfolder: where the UNet is inside of it; a folder that itself holds ``config.json`` is
            taken as the UNet.
        with_cross_attention: the cross-attention's weights must be there. False: they may be
            missing, as in a UNet saved after :func:`remove_cross_attention`.

    Returns:
        The UNet in float32, on the CPU.

    Raises:
        FileNotFoundError: no such folder, or the hub's repository cannot be had.
        ValueError: the files are not those of a UNet that LDMSeg can use.
    """
    arguments = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}

    def load(source: str, **more: Any) -> tuple[UNet2DConditionModel, dict[str, Any]]:
        with _quiet_loading():
            return UNet2DConditionModel.from_pretrained(
                source, output_loading_info=True, **arguments, **more
            )

    folder = find_model_folder(pretrained, subfolder)
    if folder is None:
        unet, info = load_from_hub(
            partial(load, subfolder=subfolder),
            pretrained,
            key="MODEL.LDMSEG.DENOISER.PRETRAINED",
            files=f"{subfolder}/{CONFIG_NAME} and {subfolder}/diffusion_pytorch_model.safetensors",
        )
    else:
        try:
            unet, info = load(str(folder), local_files_only=True)
        except Exception as error:  # diffusers raises whatever its parts do
            raise ValueError(
                f"MODEL.LDMSEG.DENOISER.PRETRAINED: {folder} holds no UNet2DConditionModel that "
                f"diffusers can load: {error}"
            ) from error
    missing = [k for k in info["missing_keys"] if with_cross_attention or not _is_cross(k)]
    if missing:
        raise ValueError(
            f"MODEL.LDMSEG.DENOISER.PRETRAINED {pretrained!r} lacks {len(missing)} tensors, such "
            f"as {min(missing)}; a UNet saved without cross-attention loads with "
            "MODEL.LDMSEG.DENOISER.CROSS_ATTENTION 'removed'"
        )
    for name in UNSUPPORTED_INPUTS:
        if unet.config.get(name) is not None:
            raise ValueError(
                f"MODEL.LDMSEG.DENOISER.PRETRAINED {pretrained!r} needs further inputs "
                f"({name}={unet.config[name]!r}); use a UNet of Stable Diffusion 1.x or 2.x"
            )
    logger.info("UNet from %s (%s)", folder or pretrained, subfolder)
    return unet


def find_model_folder(pretrained: str, subfolder: str) -> Path | None:
    """The local folder that holds the model's ``config.json``; None for the id of a repository.

    Raises:
        FileNotFoundError: it is a folder without a model, or a path that does not exist.
    """
    root = Path(pretrained).expanduser()
    if root.is_dir():
        for folder in (root / subfolder, root):
            if (folder / CONFIG_NAME).is_file():
                return folder
        raise FileNotFoundError(
            f"MODEL.LDMSEG.DENOISER.PRETRAINED: neither {root / subfolder} nor {root} has a "
            f"{CONFIG_NAME}; MODEL.LDMSEG.DENOISER.SUBFOLDER is {subfolder!r}"
        )
    # The hub's ids are "name" or "owner/name".
    if pretrained.startswith(("/", ".", "~")) or pretrained.count("/") > 1:
        raise FileNotFoundError(
            f"MODEL.LDMSEG.DENOISER.PRETRAINED: there is no folder {pretrained!r}"
        )
    return None


@contextlib.contextmanager
def _quiet_loading() -> Iterator[None]:
    """Without diffusers' own report of missing weights: load_unet makes a better one."""
    log = logging.getLogger("diffusers.models.modeling_utils")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def fit_channels(
    unet: UNet2DConditionModel,
    *,
    latent_channels: int,
    in_channels: int,
    out_channels: int | None = None,
    mask_init: str = "pretrained",
    new_init: str = "zero",
) -> None:
    """Widen ``conv_in`` to [mask latents | further inputs], in place and in the UNet's config.

    As the paper does (arXiv 2401.10227, section 3.3): the mask latents keep the pretrained
    weights, the further inputs start at zero, so that training starts at the pretrained function.

    Args:
        unet: reads and predicts some latents; one that has ``in_channels`` already stays as it is.
        latent_channels: C of the mask latents, the first input channels and all output channels.
        in_channels: all input channels.
        out_channels: all output channels, those of the mask latents first; None: only those.
        mask_init: of the mask latents' weights: "pretrained", or "random" (with the bias, and with
            a new ``conv_out`` where it has another number of channels).
        new_init: of the further channels' weights: "zero" or "random".

    Raises:
        ValueError: an unknown name, or pretrained weights for another number of latent channels.
    """
    check_choice("CONV_IN_MASK_INIT", mask_init, CONV_IN_MASK_INITS)
    check_choice("CONV_IN_INIT", new_init, CONV_IN_INITS)
    old = unet.conv_in
    if mask_init == "pretrained":
        read, predicted = old.in_channels, unet.conv_out.out_channels
        if predicted != latent_channels or read not in (latent_channels, in_channels):
            raise ValueError(
                f"MODEL.LDMSEG.DENOISER.PRETRAINED reads {read} channels and predicts {predicted}: "
                f"that fits neither the mask latents alone ({latent_channels}, "
                f"MODEL.LDMSEG.AUTOENCODER.LATENT_CHANNELS) nor all inputs ({in_channels}). Use an "
                f"autoencoder with {predicted} latent channels, or set "
                "MODEL.LDMSEG.DENOISER.CONV_IN_MASK_INIT to 'random'"
            )
        if read == in_channels and out_channels in (None, predicted):
            return
    if old.in_channels != in_channels or mask_init == "random":
        unet.conv_in = _like(old, in_channels, old.out_channels)
        with torch.no_grad():
            if mask_init == "pretrained":
                unet.conv_in.weight[:, :latent_channels] = old.weight
                unet.conv_in.bias.copy_(old.bias)
            if new_init == "zero":
                unet.conv_in.weight[:, latent_channels:] = 0
    out_channels = out_channels or latent_channels
    old_out = unet.conv_out
    if old_out.out_channels != out_channels:
        unet.conv_out = _like(old_out, old_out.in_channels, out_channels)
        if old_out.out_channels == latent_channels:
            with torch.no_grad():
                unet.conv_out.weight[:latent_channels] = old_out.weight
                unet.conv_out.bias[:latent_channels] = old_out.bias
    # Assigning to unet.config would change neither the attribute nor what is saved.
    unet.register_to_config(in_channels=in_channels, out_channels=out_channels)


def _like(conv: nn.Conv2d, in_channels: int, out_channels: int) -> nn.Conv2d:
    """A new conv that differs in channels only."""
    return nn.Conv2d(
        in_channels, out_channels, conv.kernel_size, stride=conv.stride, padding=conv.padding
    )


def remove_cross_attention(unet: UNet2DConditionModel) -> None:
    """Take the cross-attention out of every transformer block, in place.

    Self-attention and feed-forward stay; ``encoder_hidden_states`` may then be None.
    """
    for module in unet.modules():
        if isinstance(module, BasicTransformerBlock):
            module.attn2 = None
            module.norm2 = None


def cross_attention_width(unet: UNet2DConditionModel) -> int:
    """Channels D of the tokens that the cross-attention reads.

    Raises:
        ValueError: there is no cross-attention, or its blocks read different widths.
    """
    widths = {
        module.attn2.to_k.in_features
        for module in unet.modules()
        if isinstance(module, BasicTransformerBlock) and module.attn2 is not None
    }
    if len(widths) != 1:
        found = f"reads tokens of {sorted(widths)} channels" if widths else "has no cross-attention"
        raise ValueError(
            "MODEL.LDMSEG.DENOISER: CROSS_ATTENTION 'kept' needs cross-attention of one width; "
            f"this UNet {found}"
        )
    return widths.pop()


def check_choice(key: str, value: str, allowed: Sequence[str]) -> None:
    """Raise a ValueError that names the config key unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"MODEL.LDMSEG.DENOISER.{key} is {value!r}; allowed: {', '.join(allowed)}")


def _is_cross(key: str) -> bool:
    """Whether a state-dict key belongs to what :func:`remove_cross_attention` removes."""
    return ".transformer_blocks." in key and (".attn2." in key or ".norm2." in key)
