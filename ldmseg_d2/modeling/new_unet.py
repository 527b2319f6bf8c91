"""A UNet of any size with random weights: diffusers' UNet2DConditionModel."""

from collections.abc import Sequence

from diffusers import UNet2DConditionModel
from torch import nn


def new_unet(
    *,
    block_out_channels: Sequence[int],
    down_block_types: Sequence[str],
    up_block_types: Sequence[str],
    in_channels: int,
    out_channels: int,
    layers_per_block: int = 2,
    attention_head_dim: int = 8,
    norm_num_groups: int = 32,
    cross_attention_dim: int | None = None,
) -> UNet2DConditionModel:
    """A UNet with random weights.

    Args:
        block_out_channels, down_block_types, up_block_types: one entry per level; these and all
            others as in diffusers' UNet2DConditionModel.
        cross_attention_dim: None: the cross-attention will be removed.

    Raises:
        ValueError: the three sequences differ in length.
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
        in_channels=in_channels,
        out_channels=out_channels,
        layers_per_block=layers_per_block,
        attention_head_dim=attention_head_dim,
        norm_num_groups=norm_num_groups,
        # diffusers wants a size also for what is then removed; this one costs nothing.
        cross_attention_dim=cross_attention_dim or norm_num_groups,
    )


def freeze_parameters(module: nn.Module, name_parts: Sequence[str]) -> None:
    """Take the gradient from parameters whose name contains one of ``name_parts``.

    Raises:
        ValueError: a name part matches nothing.
    """
    for part in name_parts:
        matched = [p for name, p in module.named_parameters() if part in name]
        if not matched:
            raise ValueError(f"MODEL.LDMSEG.DENOISER.FREEZE: no parameter contains {part!r}")
        for parameter in matched:
            parameter.requires_grad_(False)
