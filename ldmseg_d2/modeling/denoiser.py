"""The denoiser: diffusers' UNet with a widened input, with or without cross-attention."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .unet import (
    cross_attention_width,
    fit_channels,
    freeze_parameters,
    load_unet,
    new_unet,
    remove_cross_attention,
)

# Learnt tokens of each task, which the cross-attention reads.
TOKENS_PER_TASK = 4


class Denoiser(nn.Module):
    """UNet over [noisy mask latents | image condition | self-conditioning | known cells]."""

    def __init__(
        self,
        *,
        latent_channels: int,
        condition_channels: int,
        self_conditioning: bool,
        pretrained: str = "",
        cross_attention_dim: int = 768,
        num_tasks: int = 1,
        task_in_time_embedding: bool = False,
        known_channel: bool = False,
        freeze: Sequence[str] = (),
        gradient_checkpointing: bool = False,
        channels_last: bool = False,
        compile_unet: bool = False,
        **sizes: Any,
    ) -> None:
        """
        Args:
            latent_channels: channels C of the mask latents.
            condition_channels: channels of the image condition.
            self_conditioning: add C input channels for the previous x0 prediction.
            pretrained: a local folder or an id on the hub, see :func:`load_unet`; empty: random
                weights.
            cross_attention_dim: width of the tokens; a pretrained UNet has its own.
            num_tasks: tasks that :meth:`forward` distinguishes. The cross-attention reads learnt
                tokens of several; with one it is removed (the paper).
            task_in_time_embedding: add a learnt vector of the task (zero at first) to the
                timestep's embedding as well, which every residual block reads.
            known_channel: one more input channel: 1 where cells are given (inpainting).
            freeze: name parts of the UNet's parameters that get no gradient.
            gradient_checkpointing: trade time for memory in training.
            channels_last: memory format of the UNet's convolutions.
            compile_unet: ``torch.compile`` the UNet, at its first call.
            sizes: keyword arguments of :func:`new_unet`; not read where ``pretrained`` is given.

        Raises:
            FileNotFoundError: the pretrained UNet cannot be had.
            ValueError: the parts do not fit together, or a name is not known.
        """
        super().__init__()
        several = num_tasks > 1
        self.latent_channels = latent_channels
        self.self_conditioning = self_conditioning
        self.known_channel = known_channel
        self.channels_last = channels_last
        in_channels = latent_channels * (2 if self_conditioning else 1)
        in_channels += condition_channels + int(known_channel)
        if pretrained:
            self.unet = load_unet(pretrained, with_cross_attention=several)
            fit_channels(self.unet, latent_channels=latent_channels, in_channels=in_channels)
        else:
            self.unet = new_unet(
                in_channels=in_channels,
                out_channels=latent_channels,
                cross_attention_dim=cross_attention_dim if several else None,
                **sizes,
            )
        self.task_tokens: nn.Parameter | None = None
        if several:
            width = cross_attention_width(self.unet)
            self.task_tokens = nn.Parameter(0.02 * torch.randn(num_tasks, TOKENS_PER_TASK, width))
        else:
            remove_cross_attention(self.unet)
        self.task_vectors: nn.Embedding | None = None
        if task_in_time_embedding:
            self.task_vectors = nn.Embedding(
                num_tasks, self.unet.time_embedding.linear_2.out_features
            )
            nn.init.zeros_(self.task_vectors.weight)
            # diffusers' place for a vector beside the timestep's; ours needs no further layer.
            self.unet.class_embedding = nn.Identity()
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        freeze_parameters(self.unet, freeze)
        if channels_last:
            self.unet.to(memory_format=torch.channels_last)
        if compile_unet:
            # In place: torch.compile(module) would put "_orig_mod." into every state-dict key.
            self.unet.compile()

    @property
    def downsample_factor(self) -> int:
        """Sides of the latent must be multiples of this."""
        return 2 ** (len(self.unet.config.block_out_channels) - 1)

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        previous_x0: Tensor | None = None,
        *,
        condition: Tensor,
        task: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """Network output at x_t.

        Args:
            x_t: (B, C, h, w) noisy mask latents.
            t: (B,) int64 timesteps.
            previous_x0: (B, C, h, w) self-conditioning; None stands for zeros.
            condition: (B, condition_channels, h, w) of the photo.
            task: (B,) int64 in 0..num_tasks - 1; None stands for 0.
            known: (B, 1, h, w) bool, cells of x_t that are given; None stands for none. Not read
                without ``known_channel``.

        Returns:
            (B, C, h, w): epsilon, x0 or v, whatever it was trained to predict.
        """
        parts = [x_t, condition]
        if self.self_conditioning:
            parts.append(torch.zeros_like(x_t) if previous_x0 is None else previous_x0)
        if self.known_channel:
            parts.append(torch.zeros_like(x_t[:, :1]) if known is None else known.to(x_t.dtype))
        x = torch.cat(parts, dim=1)  # [B, in_channels, h, w]
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        if task is None:
            task = torch.zeros(len(x_t), dtype=torch.int64, device=x_t.device)
        return self.unet(
            x,
            t,
            encoder_hidden_states=None if self.task_tokens is None else self.task_tokens[task],
            class_labels=None if self.task_vectors is None else self.task_vectors(task),
        ).sample
