"""diffusers' UNet for the denoiser: pretrained and fitted to our channels, or new of any size."""

import re
from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import nn

from .from_hub import load_pretrained

KEY = "MODEL.LDMSEG.DENOISER.PRETRAINED"


def load_unet(pretrained: str, *, with_cross_attention: bool) -> UNet2DConditionModel:
    """A UNet that ``save_pretrained`` wrote, such as that of Stable Diffusion 1.x or 2.x.

    Without cross-attention its weights may be missing, as in a UNet saved after
    :func:`remove_cross_attention`. ValueError: LDMSeg cannot use it; FileNotFoundError: it cannot
    be had, see :func:`load_pretrained`.
    """
    # low_cpu_mem_usage would leave missing weights on the meta device.
    options = {"subfolder": "unet", "low_cpu_mem_usage": False}
    unet, missing = load_pretrained(UNet2DConditionModel, pretrained, key=KEY, **options)
    if not with_cross_attention:
        cross = re.compile(r"\.transformer_blocks\..*\.(attn2|norm2)\.")
        missing = [key for key in missing if not cross.search(key)]
    if missing:
        raise ValueError(
            f"{KEY} {pretrained!r} lacks {len(missing)} tensors, such as {min(missing)}; a UNet "
            "saved without cross-attention serves one task, or several with TASK_MODE 'joint'"
        )
    # Inputs that some UNets need besides the timestep (SDXL, unCLIP, ...), and that LDMSeg has not.
    for name in ("addition_embed_type", "class_embed_type", "encoder_hid_dim"):
        if unet.config.get(name) is not None:
            raise ValueError(
                f"{KEY} {pretrained!r} needs further inputs ({name}={unet.config[name]!r}); use a "
                "UNet of Stable Diffusion 1.x or 2.x"
            )
    return unet.float()


def fit_channels(unet: UNet2DConditionModel, *, latent_channels: int, in_channels: int) -> None:
    """Widen ``conv_in`` to [mask latents | further inputs], in place and in the UNet's config.

    As the paper does (arXiv 2401.10227, section 3.3): the mask latents keep the pretrained
    weights, the further inputs start at zero, so that training starts at the pretrained function.
    A UNet that has ``in_channels`` already stays as it is; ValueError: its weights are for another
    number of channels.
    """
    old = unet.conv_in
    read, predicted = old.in_channels, unet.conv_out.out_channels
    if predicted != latent_channels or read not in (latent_channels, in_channels):
        raise ValueError(
            f"{KEY} reads {read} channels and predicts {predicted}: that fits neither the mask "
            f"latents alone ({latent_channels}) nor all inputs ({in_channels}). Set "
            f"MODEL.LDMSEG.AUTOENCODER.LATENT_CHANNELS to {predicted}, and with several tasks "
            "MODEL.LDMSEG.TASK_MODE to 'separate'"
        )
    if read == in_channels:
        return
    unet.conv_in = nn.Conv2d(
        in_channels, old.out_channels, old.kernel_size, stride=old.stride, padding=old.padding
    )
    with torch.no_grad():
        unet.conv_in.weight.zero_()
        unet.conv_in.weight[:, :latent_channels] = old.weight
        unet.conv_in.bias.copy_(old.bias)
    # Assigning to unet.config would change neither the attribute nor what is saved.
    unet.register_to_config(in_channels=in_channels)


def new_unet(
    *,
    block_out_channels: Sequence[int],
    down_block_types: Sequence[str],
    up_block_types: Sequence[str],
    norm_num_groups: int = 32,
    cross_attention_dim: int | None = None,
    **sizes: int,
) -> UNet2DConditionModel:
    """A UNet with random weights; arguments as in diffusers' UNet2DConditionModel.

    ``cross_attention_dim`` None: the cross-attention will be removed. ValueError: the three
    sequences, of one entry per level, differ in length.
    """
    lengths = len(block_out_channels), len(down_block_types), len(up_block_types)
    if len(set(lengths)) != 1:
        raise ValueError(
            "MODEL.LDMSEG.DENOISER: BLOCK_OUT_CHANNELS, DOWN_BLOCK_TYPES and UP_BLOCK_TYPES "
            f"need one entry per level, got {lengths[0]}, {lengths[1]} and {lengths[2]}"
        )
    # Attention in the middle only where some level has it: a UNet of convs stays one.
    has_attention = any("Attn" in name for name in down_block_types)
    return UNet2DConditionModel(
        block_out_channels=tuple(block_out_channels),
        down_block_types=tuple(down_block_types),
        up_block_types=tuple(up_block_types),
        mid_block_type="UNetMidBlock2DCrossAttn" if has_attention else "UNetMidBlock2D",
        norm_num_groups=norm_num_groups,
        # diffusers wants a size also for what is then removed; this one costs nothing.
        cross_attention_dim=cross_attention_dim or norm_num_groups,
        **sizes,
    )


def remove_cross_attention(unet: UNet2DConditionModel) -> None:
    """Take it out of every transformer block; ``encoder_hidden_states`` may then be None."""
    for module in unet.modules():
        if isinstance(module, BasicTransformerBlock):
            module.attn2 = None
            module.norm2 = None


def cross_attention_width(unet: UNet2DConditionModel) -> int:
    """Channels of the tokens that the cross-attention reads; ValueError unless there is one."""
    blocks = [m for m in unet.modules() if isinstance(m, BasicTransformerBlock)]
    widths = {block.attn2.to_k.in_features for block in blocks if block.attn2 is not None}
    if len(widths) != 1:
        found = f"reads tokens of {sorted(widths)} channels" if widths else "has no cross-attention"
        raise ValueError(
            "MODEL.LDMSEG.DENOISER: several tasks with TASK_MODE 'separate' need cross-attention "
            f"of one width; this UNet {found}"
        )
    return widths.pop()


def freeze_parameters(module: nn.Module, name_parts: Sequence[str]) -> None:
    """Freeze parameters whose name contains one of `name_parts`; ValueError if one matches none."""
    for part in name_parts:
        matched = [p for name, p in module.named_parameters() if part in name]
        if not matched:
            raise ValueError(f"MODEL.LDMSEG.DENOISER.FREEZE: no parameter contains {part!r}")
        for parameter in matched:
            parameter.requires_grad_(False)
