"""The denoiser: diffusers' UNet with a widened input and without cross-attention."""

from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn


class Denoiser(nn.Module):
    """UNet over [noisy mask latents | image condition | self-conditioning]."""

    def __init__(
        self,
        *,
        latent_channels: int,
        condition_channels: int,
        self_conditioning: bool,
        block_out_channels: Sequence[int],
        down_block_types: Sequence[str],
        up_block_types: Sequence[str],
        layers_per_block: int = 2,
        attention_head_dim: int = 8,
        norm_num_groups: int = 32,
        freeze: Sequence[str] = (),
        gradient_checkpointing: bool = False,
    ) -> None:
        """
        Args:
            latent_channels: channels C of the mask latents.
            condition_channels: channels of the image condition.
            self_conditioning: add C input channels for the previous x0 prediction.
            block_out_channels, down_block_types, up_block_types, layers_per_block,
            attention_head_dim, norm_num_groups: as in diffusers' UNet2DConditionModel.
            freeze: name parts of parameters that get no gradient.
            gradient_checkpointing: trade time for memory in training.

        Raises:
            ValueError: the blocks do not fit together, or a name part matches no parameter.
        """
        super().__init__()
        sizes = {len(block_out_channels), len(down_block_types), len(up_block_types)}
        if len(sizes) != 1:
            raise ValueError(
                "MODEL.LDMSEG.DENOISER: BLOCK_OUT_CHANNELS, DOWN_BLOCK_TYPES and UP_BLOCK_TYPES "
                f"need one entry per level, got {len(block_out_channels)}, "
                f"{len(down_block_types)} and {len(up_block_types)}"
            )
        self.latent_channels = latent_channels
        self.self_conditioning = self_conditioning
        self.unet = UNet2DConditionModel(
            in_channels=latent_channels * (2 if self_conditioning else 1) + condition_channels,
            out_channels=latent_channels,
            block_out_channels=tuple(block_out_channels),
            down_block_types=tuple(down_block_types),
            up_block_types=tuple(up_block_types),
            layers_per_block=layers_per_block,
            attention_head_dim=attention_head_dim,
            norm_num_groups=norm_num_groups,
            # Removed below; diffusers wants a size all the same, and this one costs nothing.
            cross_attention_dim=norm_num_groups,
            mid_block_type=_mid_block_type(down_block_types),
        )
        remove_cross_attention(self.unet)
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        freeze_parameters(self.unet, freeze)

    @property
    def downsample_factor(self) -> int:
        """Sides of the latent must be multiples of this."""
        return 2 ** (len(self.unet.config.block_out_channels) - 1)

    def forward(
        self, x_t: Tensor, t: Tensor, condition: Tensor, previous_x0: Tensor | None = None
    ) -> Tensor:
        """Network output at x_t.

        Args:
            x_t: (B, C, h, w) noisy mask latents.
            t: (B,) int64 timesteps.
            condition: (B, condition_channels, h, w).
            previous_x0: (B, C, h, w) self-conditioning; None stands for zeros.

        Returns:
            (B, C, h, w): epsilon, x0 or v, whatever it was trained to predict.
        """
        parts = [x_t, condition]
        if self.self_conditioning:
            parts.append(torch.zeros_like(x_t) if previous_x0 is None else previous_x0)
        return self.unet(torch.cat(parts, dim=1), t, encoder_hidden_states=None).sample


def _mid_block_type(down_block_types: Sequence[str]) -> str:
    """Attention in the middle only where some level has it: a UNet of convs stays one."""
    if any("Attn" in name for name in down_block_types):
        return "UNetMidBlock2DCrossAttn"
    return "UNetMidBlock2D"


def remove_cross_attention(unet: UNet2DConditionModel) -> None:
    """Take the cross-attention out of every transformer block, in place.

    Self-attention and feed-forward stay; ``encoder_hidden_states`` may then be None.
    """
    for module in unet.modules():
        if isinstance(module, BasicTransformerBlock):
            module.attn2 = None
            module.norm2 = None


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
