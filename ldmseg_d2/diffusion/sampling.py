"""The diffusion sampler (LDMSeg, arXiv 2401.10227, section 3.3): noise in, mask latents out."""

from collections.abc import Callable, Sequence

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from .inpainting import KnownLatents
from .samplers import Sampler
from .schedule import output_of_x0, predicted_x0
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
    inpainting: str = "fixed",
    repaint_jump_length: int = 5,
    repaint_resamples: int = 3,
    callback: Callable[[int, int, Tensor], None] | None = None,
) -> Tensor:
    """Denoise from t = T - 1 to 0 and return the last x0 prediction.

    With known latents the same loop completes half-drawn masks: see
    :class:`~ldmseg_d2.diffusion.inpainting.KnownLatents` for the ways to put them back. A sample
    without known cells comes out as it would without those of the others.

    Args:
        denoise: the network with its image condition bound.
        noise: (B, C, h, w) x_T, standard normal.
        scheduler: a diffusers scheduler; its ``step`` is the update from x_t to x_{t-1}, see
            :class:`~ldmseg_d2.diffusion.samplers.Sampler` for what differs between them.
        num_inference_steps: steps N, 1..T.
        self_conditioning: feed each x0 prediction to the next step.
        generators: one per sample, for samplers that add noise ("DDPM", "LCM") and for "noised"
            and "repaint".
        known_latents: (B, C, h, w) clean latents where ``known_mask``; None: nothing is known.
        known_mask: (B, 1 or C, h, w) bool, cells that are given.
        inpainting: "fixed", "noised", "x0" or "repaint".
        repaint_jump_length, repaint_resamples: of "repaint", which takes about
            ``repaint_resamples`` times as many steps.
        callback: called as ``callback(i, t, x0)`` after step i = 0..N - 1, in RePaint's case after
            the first visit of each.

    Returns:
        (B, C, h, w) predicted x0 after the last step; the known latents where they are known.

    Raises:
        ValueError: only one of known_latents and known_mask is given, or see ``KnownLatents`` and
            ``Sampler``.
    """
    if (known_latents is None) != (known_mask is None):
        raise ValueError("known_latents and known_mask are given together or not at all")
    known = None
    if known_mask is not None:
        known = KnownLatents(
            known_latents, known_mask, method=inpainting, generators=generators,
            jump_length=repaint_jump_length, resamples=repaint_resamples,
        )  # fmt: skip

    # 1. The timesteps t_N > ... > t_1, e.g. 999, 979, ..., 19 for trailing spacing and N = 50, each
    #    visited once (Heun: all but the first twice; RePaint: some again, after a jump back up).
    sampler = Sampler(scheduler, num_inference_steps, device=noise.device, known=known)

    # 2. Start from noise; nothing has been predicted yet.
    x_t = noise  # [B, C, h, w]
    x0 = torch.zeros_like(noise)
    for visit in sampler.visits():
        t = sampler.timesteps[visit.index]
        t_batch = t.expand(len(x_t))
        before = x_t, x0

        # 3. What is known enters x_t, clean or noised to the level of t.
        if visit.jumps_from is not None:
            x_t = known.jump(x_t, visit, scheduler)
        if known:
            x_t = known.into_x_t(x_t, t, scheduler)

        # 4. Predict x0 at x_t, given the photo and, where used, the previous x0.
        output = denoise(x_t, t_batch, x0 if self_conditioning else None)
        x0 = predicted_x0(scheduler, output, x_t, t_batch)
        if known:
            x0 = known.into_x0(x0)
            if inpainting == "x0":
                output = output_of_x0(scheduler, x0, x_t, t_batch)
        if callback is not None and visit.is_first_of is not None:
            callback(visit.is_first_of, int(t), x0)

        # 5. One step towards x_{t-1} (DDIM: arXiv 2010.02502, eq. 12).
        x_t = sampler.step(output, x_t, visit, generators)
        if visit.is_again:
            x_t, x0 = known.hold(x_t, before[0]), known.hold(x0, before[1])

    # 6. The result is the prediction, not the slightly noisy x_{t_1}.
    return x0
