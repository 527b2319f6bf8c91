"""The diffusion sampler (LDMSeg, arXiv 2401.10227, section 3.3): noise in, mask latents out."""

import zlib
from collections.abc import Callable, Mapping, Sequence

import torch
from diffusers import DDPMScheduler, SchedulerMixin
from torch import Tensor

from .loss import Denoise
from .schedule import predicted_x0


def image_generator(seed: int, key: int | str, device: torch.device) -> torch.Generator:
    """A generator for one image.

    Args:
        seed: ``cfg.SEED``, or the input dict's own ``seed``.
        key: the data set's id of the image, perhaps with a task and a draw.
        device: where the noise is drawn.
    """
    number = zlib.crc32(f"{seed}/{key}".encode())
    return torch.Generator(device=device).manual_seed(number)


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
def predict_from_noise(
    denoise: Denoise,
    noise: Tensor,
    *,
    conditions: Mapping[str, Tensor | None],
    scheduler: SchedulerMixin,
) -> Tensor:
    """x0 (B, C, h, w) that the network predicts at t = T - 1; arguments as of sample_latents."""
    last = scheduler.config.num_train_timesteps - 1
    t = torch.full((len(noise),), last, device=noise.device)
    return predicted_x0(scheduler, denoise(noise, t, None, **conditions).float(), noise, t)


@torch.no_grad()
def sample_latents(
    denoise: Denoise,
    noise: Tensor,
    *,
    conditions: Mapping[str, Tensor | None],
    scheduler: SchedulerMixin,
    num_inference_steps: int,
    self_conditioning: bool,
    generators: Sequence[torch.Generator] | None = None,
    known_latents: Tensor | None = None,
    known_mask: Tensor | None = None,
    callback: Callable[[int, int, Tensor], None] | None = None,
) -> Tensor:
    """Denoise from t = T - 1 to 0 and return the last x0 prediction.

    Args:
        denoise: the network.
        noise: (B, C, h, w) x_T, standard normal.
        conditions: what the network is told beside x_t and t, such as the image condition.
        scheduler: of :func:`build_scheduler`; its ``step`` is the update from x_t to x_{t-1}.
        num_inference_steps: steps N, 1..T.
        self_conditioning: feed each x0 prediction to the next step.
        generators: one per sample, for "DDPM", which adds noise.
        known_latents: (B, C, h, w) clean latents where ``known_mask``: inpainting, the mask is
            completed. None: nothing is known.
        known_mask: (B, 1 or C, h, w) bool, cells that are given; all False in a sample without.
        callback: called as ``callback(i, t, x0)`` after the prediction of step i = 0..N - 1.

    Returns:
        (B, C, h, w) predicted x0 after the last step; the known latents where they are known.

    Raises:
        ValueError: more steps than the scheduler has timesteps, or less than one.
    """
    # 1. The timesteps t_N > ... > t_1, e.g. 999, 979, ..., 19 for N = 50.
    length = scheduler.config.num_train_timesteps
    if not 1 <= num_inference_steps <= length:
        raise ValueError(
            f"MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS is {num_inference_steps}; allowed: 1 to "
            f"{length}"
        )
    scheduler.set_timesteps(num_inference_steps, device=noise.device)
    # For 62 numbers of steps, 61 the least, diffusers gives a further one, at t = -1.
    scheduler.timesteps = scheduler.timesteps[:num_inference_steps]

    # 2. Start from noise; nothing has been predicted yet.
    x_t = noise  # [B, C, h, w]
    x0 = torch.zeros_like(noise)
    for i, t in enumerate(scheduler.timesteps):
        # 3. Inpainting: clean known cells stand in for the noisy ones at every step.
        if known_mask is not None:
            x_t = torch.where(known_mask, known_latents, x_t)

        # 4. Predict x0 at x_t, given the photo and, where used, the previous x0.
        t_batch = t.long().expand(len(x_t))
        output = denoise(x_t, t_batch, x0 if self_conditioning else None, **conditions)
        x0 = predicted_x0(scheduler, output, x_t, t_batch)
        if known_mask is not None:
            x0 = torch.where(known_mask, known_latents, x0)
        if callback is not None:
            callback(i, int(t), x0)

        # 5. One step towards x_{t-1} (DDIM: arXiv 2010.02502, eq. 12). Under autocast the output
        #    has a lower precision, which some schedulers would give to x.
        output = output.to(x_t.dtype)
        if generators is not None and isinstance(scheduler, DDPMScheduler):
            x_t = scheduler.step(output, t, x_t, generator=list(generators)).prev_sample
        else:
            x_t = scheduler.step(output, t, x_t).prev_sample

    # 6. The result is the prediction, not the slightly noisy x_{t_1}.
    return x0


def spread_steps(steps: list[tuple[int, Tensor]], wanted: int) -> list[tuple[int, Tensor]]:
    """At most ``wanted`` of the steps, evenly spread, the last one among them."""
    indices = torch.linspace(len(steps) - 1, 0, min(wanted, len(steps))).round().long()
    return [steps[i] for i in sorted(set(indices.tolist()))]
