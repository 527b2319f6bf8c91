"""One training step of the diffusion model (LDMSeg, arXiv 2401.10227, section 3.2)."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from .schedule import add_noise, predicted_x0, prediction_target

# denoise(x_t, t, previous_x0, **conditions) -> network output, all of x_t's shape.
Denoise = Callable[..., Tensor]


class DiffusionLoss(NamedTuple):
    """Result of :func:`diffusion_loss`."""

    loss: Tensor  # scalar: weighted mean squared error
    error: Tensor  # (B, C, h, w) weighted squared error; 0 where not valid
    num_valid: Tensor  # scalar: latent values that count; error.sum() / num_valid is the loss


def diffusion_loss(
    denoise: Denoise,
    x0: Tensor,
    t: Tensor,
    noise: Tensor,
    *,
    conditions: Mapping[str, Tensor | None],
    scheduler: SchedulerMixin,
    weights: Tensor,
    valid: Tensor | None = None,
    cell_weights: Tensor | None = None,
    known: Tensor | None = None,
    self_conditioning_mask: Tensor | None = None,
) -> DiffusionLoss:
    """Weighted, masked squared error of one denoising step.

    L = mean over valid cells of w_t w_cell || f(x_t, t) - target ||^2, x_t = a_t x0 + s_t noise.

    Args:
        denoise: the network.
        x0: (B, C, h, w) clean mask latents.
        t: (B,) int64 timesteps in 0..T - 1.
        noise: (B, C, h, w) standard normal.
        conditions: what the network is told beside x_t and t, such as the image condition.
        scheduler: forward process and prediction type.
        weights: (T,) loss weight of each timestep.
        valid: (B, 1 or C, h, w) bool, cells that count; None: all.
        cell_weights: (B, 1 or C, h, w) weight of each cell, whatever t is; None: 1 (the paper).
        known: (B, 1 or C, h, w) bool, cells that stay clean in x_t and are not learnt: training for
            inpainting; None: none.
        self_conditioning_mask: (B,) bool, samples that see the network's own first prediction
            (Analog Bits, arXiv 2208.04202, algorithm 1); None: no self-conditioning.

    Returns:
        The loss and what it is the mean of. It is 0 (with gradient 0) where nothing is valid.
    """
    # 1. Forward diffusion.
    x_t = add_noise(scheduler, x0, noise, t)  # [B, C, h, w]
    if known is not None:
        x_t = torch.where(known, x0, x_t)
        valid = ~known if valid is None else valid & ~known

    # 2. Self-conditioning: a first prediction without gradient, given to the chosen samples.
    previous_x0 = None
    if self_conditioning_mask is not None:
        previous_x0 = torch.zeros_like(x0)
        if self_conditioning_mask.any():
            with torch.no_grad():
                output = denoise(x_t, t, previous_x0, **conditions)
                first = predicted_x0(scheduler, output, x_t, t)
            previous_x0 = first * self_conditioning_mask.view(-1, 1, 1, 1)

    # 3. Prediction and its squared error.
    output = denoise(x_t, t, previous_x0, **conditions)
    target = prediction_target(scheduler, x0, noise, t)
    error = (output.float() - target.float()) ** 2 * weights.to(x0.device)[t].view(-1, 1, 1, 1)
    if cell_weights is not None:
        error = error * cell_weights

    # 4. Mean over valid cells of the whole batch.
    num_valid = torch.as_tensor(error.numel(), device=error.device)
    if valid is not None:
        error = error * valid
        num_valid = valid.expand_as(error).sum().clamp(min=1)
    return DiffusionLoss(error.sum() / num_valid, error, num_valid)
