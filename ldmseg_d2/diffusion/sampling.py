"""The diffusion sampler (LDMSeg, arXiv 2401.10227, section 3.3): noise in, mask latents out."""

from collections.abc import Callable, Sequence

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from .schedule import predicted_x0
from .training import Denoise


def initial_noise(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal noise with one generator per sample: a result depends on no other sample.

    Args:
        shape: (C, h, w) of one sample.
        generators: one per sample, on the device where the noise is wanted.

    Returns:
        (B, C, h, w) float32.
    """
    return torch.stack([torch.randn(*shape, generator=g, device=g.device) for g in generators])


@torch.no_grad()
def sample_latents(
    denoise: Denoise,
    noise: Tensor,
    *,
    scheduler: SchedulerMixin,
    num_inference_steps: int,
    self_conditioning: bool,
    generators: Sequence[torch.Generator] | None = None,
    known_latents: Tensor | None = None,
    known_mask: Tensor | None = None,
    callback: Callable[[int, int, Tensor], None] | None = None,
) -> Tensor:
    """Denoise from t = T - 1 to 0 and return the last x0 prediction.

    With known latents the same loop completes half-drawn masks (inpainting): the clean known cells
    stand in for the noisy ones at every step, and for the prediction at the end.

    Args:
        denoise: the network with its image condition bound.
        noise: (B, C, h, w) x_T, standard normal.
        scheduler: a diffusers scheduler; its ``step`` is the update from x_t to x_{t-1}.
        num_inference_steps: steps N, 1..T.
        self_conditioning: feed each x0 prediction to the next step.
        generators: one per sample, for samplers that add noise ("DDPM").
        known_latents: (B, C, h, w) clean latents where ``known_mask``; None: nothing is known.
        known_mask: (B, 1, h, w) bool, cells that are given.
        callback: called as ``callback(i, t, x0)`` after step i = 0..N - 1.

    Returns:
        (B, C, h, w) predicted x0 after the last step.

    Raises:
        ValueError: only one of known_latents and known_mask is given.
    """
    if (known_latents is None) != (known_mask is None):
        raise ValueError("known_latents and known_mask are given together or not at all")

    # 1. The timesteps t_N > ... > t_1, e.g. 999, 979, ..., 19 for trailing spacing and N = 50.
    scheduler.set_timesteps(num_inference_steps, device=noise.device)

    # 2. Start from noise; nothing has been predicted yet.
    x_t = noise * scheduler.init_noise_sigma  # [B, C, h, w]
    x0 = torch.zeros_like(noise)
    for i, t in enumerate(scheduler.timesteps):
        # 3. Known cells are clean at every noise level.
        if known_mask is not None:
            x_t = torch.where(known_mask, known_latents, x_t)

        # 4. Predict x0 at x_t, given the photo and, where used, the previous x0.
        t_batch = t.expand(len(x_t))
        output = denoise(x_t, t_batch, x0 if self_conditioning else None)
        x0 = predicted_x0(scheduler, output, x_t, t_batch)
        if known_mask is not None:
            x0 = torch.where(known_mask, known_latents, x0)
        if callback is not None:
            callback(i, int(t), x0)

        # 5. One step towards x_{t-1} (DDIM: arXiv 2010.02502, eq. 12).
        x_t = scheduler_step(scheduler, output, t, x_t, generators)

    # 6. The result is the prediction, not the slightly noisy x_{t_1}.
    return x0


def scheduler_step(
    scheduler: SchedulerMixin,
    output: Tensor,
    t: Tensor,
    x_t: Tensor,
    generators: Sequence[torch.Generator] | None,
) -> Tensor:
    """``scheduler.step`` with one generator per sample, if the scheduler draws noise at all."""
    if generators is None or scheduler.__class__.__name__ == "DDIMScheduler":
        return scheduler.step(output, t, x_t).prev_sample
    return scheduler.step(output, t, x_t, generator=list(generators)).prev_sample
