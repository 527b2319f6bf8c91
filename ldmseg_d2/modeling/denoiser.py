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

CROSS_ATTENTIONS = ("removed", "kept")
CONDITIONINGS = ("concat", "cross_attention")
# Logit of a new gate: mostly open, so that training starts at the draft and learns to correct it.
INITIAL_GATE = 2.0


class Denoiser(nn.Module):
    """UNet over [noisy latents | image condition | self-conditioning | known cells | draft].

    With ``conditioning="cross_attention"`` the image condition comes as tokens instead.
    """

    def __init__(
        self,
        *,
        latent_channels: int,
        condition_channels: int,
        self_conditioning: bool,
        pretrained: str = "",
        conditioning: str = "concat",
        cross_attention: str = "removed",
        cross_attention_dim: int = 768,
        num_tasks: int = 1,
        tokens_per_task: int = 1,
        task_in_time_embedding: bool = False,
        known_channel: bool = False,
        draft_channels: int = 0,
        draft_start: int | None = None,
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
            conditioning: "concat" or "cross_attention" (which keeps the cross-attention).
            cross_attention: "removed", or "kept": it attends to the task's learnt tokens.
            cross_attention_dim: width of the tokens; a pretrained UNet has its own.
            num_tasks: tasks that :meth:`forward` distinguishes; above 1 they need cross-attention.
            tokens_per_task: learnt tokens N of each task.
            task_in_time_embedding: add a learnt vector of the task (zero at first) to the
                timestep's embedding as well, which every residual block reads.
            known_channel: one more input channel: 1 where cells are given (inpainting).
            draft_channels: input channels for a draft of the mask, made of what is given; 0: none.
            draft_start: the output is x0, and its channels from this one on may be copied from the
                draft: one more output channel is a gate for each cell. None: no gate.
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
        for key, value, allowed in (
            ("CONDITIONING", conditioning, CONDITIONINGS),
            ("CROSS_ATTENTION", cross_attention, CROSS_ATTENTIONS),
        ):
            if value not in allowed:
                raise ValueError(
                    f"MODEL.LDMSEG.DENOISER.{key} is {value!r}; allowed: {', '.join(allowed)}"
                )
        self.latent_channels = latent_channels
        self.self_conditioning = self_conditioning
        self.conditioning = conditioning
        self.known_channel = known_channel
        self.draft_channels = draft_channels
        self.draft_start = draft_start if draft_channels else None
        self.channels_last = channels_last
        self.cross_attends = cross_attention == "kept" or conditioning == "cross_attention"
        if num_tasks > 1 and not self.cross_attends:
            raise ValueError(
                f"MODEL.LDMSEG.DENOISER.CROSS_ATTENTION 'removed' cannot tell {num_tasks} tasks "
                "apart: set it to 'kept', or MODEL.LDMSEG.TASK_MODE to 'joint'"
            )
        in_channels = latent_channels * (2 if self_conditioning else 1)
        in_channels += condition_channels if conditioning == "concat" else 0
        in_channels += int(known_channel) + draft_channels
        out_channels = latent_channels + (0 if self.draft_start is None else 1)
        if pretrained:
            self.unet = load_unet(pretrained, with_cross_attention=self.cross_attends)
            fit_channels(self.unet, latent_channels=latent_channels, in_channels=in_channels)
        else:
            self.unet = new_unet(
                in_channels=in_channels,
                out_channels=out_channels,
                cross_attention_dim=cross_attention_dim if self.cross_attends else None,
                **sizes,
            )
        if self.draft_start is not None:
            with torch.no_grad():
                self.unet.conv_out.bias[-1] = INITIAL_GATE
        if self.cross_attends:
            self._add_tokens(condition_channels, num_tasks, tokens_per_task)
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

    def _add_tokens(self, condition_channels: int, num_tasks: int, tokens_per_task: int) -> None:
        """What the cross-attention reads: tokens of the task, and of a projected condition."""
        width = cross_attention_width(self.unet)
        if self.conditioning == "concat" or num_tasks > 1:
            self.task_tokens = nn.Parameter(0.02 * torch.randn(num_tasks, tokens_per_task, width))
        if self.conditioning == "cross_attention":
            same = condition_channels == width
            self.token_projection = nn.Identity() if same else nn.Linear(condition_channels, width)

    @property
    def num_known_channels(self) -> int:
        """Input channels for what is given: the last ones."""
        return int(self.known_channel) + self.draft_channels

    @property
    def downsample_factor(self) -> int:
        """Sides of the latent must be multiples of this."""
        return 2 ** (len(self.unet.config.block_out_channels) - 1)

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        condition: Tensor,
        previous_x0: Tensor | None = None,
        task: Tensor | None = None,
        known: Tensor | None = None,
        draft: Tensor | None = None,
    ) -> Tensor:
        """Network output at x_t.

        Args:
            x_t: (B, C, h, w) noisy mask latents.
            t: (B,) int64 timesteps.
            condition: (B, condition_channels, h, w); with ``conditioning="cross_attention"`` its
                grid may be another.
            previous_x0: (B, C, h, w) self-conditioning; None stands for zeros.
            task: (B,) int64 in 0..num_tasks - 1; None stands for 0.
            known: (B, 1, h, w) bool, cells of x_t that are given; None stands for none. Not read
                without ``known_channel``.
            draft: (B, draft_channels, h, w) latents of a draft of the mask, 0 where nothing is
                given; None stands for zeros. Not read without ``draft_channels``.

        Returns:
            (B, C, h, w): epsilon, x0 or v, whatever it was trained to predict.
        """
        parts = [x_t, condition] if self.conditioning == "concat" else [x_t]
        if self.self_conditioning:
            parts.append(torch.zeros_like(x_t) if previous_x0 is None else previous_x0)
        if self.known_channel:
            parts.append(torch.zeros_like(x_t[:, :1]) if known is None else known.to(x_t.dtype))
        if self.draft_channels:
            shape = len(x_t), self.draft_channels, *x_t.shape[2:]
            parts.append(x_t.new_zeros(shape) if draft is None else draft.to(x_t.dtype))
        x = torch.cat(parts, dim=1)  # [B, in_channels, h, w]
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        if task is None:
            task = torch.zeros(len(x_t), dtype=torch.int64, device=x_t.device)
        output = self.unet(
            x,
            t,
            encoder_hidden_states=self._tokens(condition, task),
            class_labels=None if self.task_vectors is None else self.task_vectors(task),
        ).sample
        return output if self.draft_start is None else self._copy_draft(output, draft)

    def _copy_draft(self, output: Tensor, draft: Tensor | None) -> Tensor:
        """(B, C, h, w) x0 of (B, C + 1, h, w): where its gate is open, the draft; see class."""
        x0, gate = output.split([self.latent_channels, 1], dim=1)
        if draft is None:
            return x0
        has_draft = (draft != 0).flatten(1).any(dim=1).view(-1, 1, 1, 1)
        gate = gate.sigmoid() * has_draft
        end = self.draft_start + self.draft_channels
        before, own, after = x0[:, : self.draft_start], x0[:, self.draft_start : end], x0[:, end:]
        return torch.cat([before, torch.lerp(own, draft.to(own.dtype), gate), after], dim=1)

    def _tokens(self, condition: Tensor, task: Tensor) -> Tensor | None:
        """(B, N, D) for the cross-attention, from the condition (B, C', h', w') and the task."""
        if not self.cross_attends:
            return None
        parts = [self.task_tokens[task]] if hasattr(self, "task_tokens") else []
        if self.conditioning == "cross_attention":
            tokens = self.token_projection(condition.flatten(2).transpose(1, 2))  # [B, h' w', D]
            height, width = condition.shape[-2:]
            positions = position_embedding(height, width, tokens.shape[-1], device=tokens.device)
            parts.append(tokens + positions.to(tokens.dtype))
        return torch.cat(parts, dim=1)


def position_embedding(
    height: int, width: int, channels: int, *, device: torch.device | str = "cpu"
) -> Tensor:
    """Fixed sine-cosine embedding of the cells of a grid.

    The first half of the channels encodes y, the second x, with the frequencies of "Attention Is
    All You Need" (arXiv 1706.03762, section 3.5).

    Args:
        height, width: of the grid, cells.
        channels: D, a multiple of 4.
        device: of the result.

    Returns:
        (height * width, D) float32 in [-1, 1], row by row.

    Raises:
        ValueError: D is no multiple of 4.
    """
    if channels % 4:
        raise ValueError(
            f"cross-attention tokens need a multiple of 4 channels, got {channels}: change "
            "MODEL.LDMSEG.DENOISER.CROSS_ATTENTION_DIM"
        )
    frequencies = 10000.0 ** (-torch.arange(channels // 4, device=device) / (channels // 4))
    y = torch.arange(height, device=device)[:, None] * frequencies  # [h, D / 4]
    x = torch.arange(width, device=device)[:, None] * frequencies  # [w, D / 4]
    y = torch.cat([y.sin(), y.cos()], dim=1)[:, None].expand(-1, width, -1)  # [h, w, D / 2]
    x = torch.cat([x.sin(), x.cos()], dim=1)[None].expand(height, -1, -1)  # [h, w, D / 2]
    return torch.cat([y, x], dim=2).flatten(0, 1)
