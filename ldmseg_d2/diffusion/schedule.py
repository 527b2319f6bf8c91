"""The noise schedule, the loss weight of each timestep, and epsilon, x0 and v of one another."""

from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from diffusers.training_utils import compute_snr
from torch import Tensor

# Name to diffusers' class and what is set there beside the forward process.
_SCHEDULERS: dict[str, tuple[type[SchedulerMixin], dict[str, Any]]] = {
    "DDIM": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    "DDPM": (DDPMScheduler, {"clip_sample": False}),
    "DPMSolver++": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"},
    ),
    "UniPC": (UniPCMultistepScheduler, {"solver_order": 2, "final_sigmas_type": "zero"}),
}


def build_scheduler(name: str, *, prediction_type: str = "epsilon") -> SchedulerMixin:
    """A diffusers scheduler for mask latents, with Stable Diffusion's forward process.

    T = 1000 timesteps, betas "scaled_linear" from 0.00085 to 0.012 (LDMSeg, section 4). Latents are
    not clipped to [-1, 1], and the last DDIM step goes to ``alphas_cumprod[0]``. "trailing" spacing
    starts at t = T - 1 (arXiv 2305.08891, table 2).

    Args:
        name: "DDIM" (arXiv 2010.02502, deterministic; the paper), "DDPM" (arXiv 2006.11239,
            ancestral), "DPMSolver++" (arXiv 2211.01095, second order) or "UniPC" (arXiv 2302.04867,
            second order).
        prediction_type: "epsilon" (the paper), "sample" (x0) or "v_prediction".

    Raises:
        ValueError: an unknown name.
    """
    if name not in _SCHEDULERS:
        raise ValueError(
            f"MODEL.LDMSEG.SAMPLER.NAME is {name!r}; allowed: {', '.join(_SCHEDULERS)}"
        )
    scheduler, arguments = _SCHEDULERS[name]
    return scheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction_type,
        timestep_spacing="trailing",
        **arguments,
    )


def timestep_loss_weights(
    scheduler: SchedulerMixin, *, weighting: str = "min_snr", gamma: float = 2.0
) -> Tensor:
    """Weight of the squared error at every timestep.

    Min-SNR (arXiv 2303.09556, eq. 7 and section 3.4) weights the error of x0 by min(SNR, gamma);
    written for what the network predicts: epsilon min(SNR, gamma) / SNR, sample min(SNR, gamma),
    v_prediction min(SNR, gamma) / (SNR + 1).

    Args:
        scheduler: gives alphas_cumprod and the prediction type.
        weighting: "min_snr" or "uniform" (1 everywhere).
        gamma: of min-SNR.

    Returns:
        (T,) float32.

    Raises:
        ValueError: unknown weighting.
    """
    timesteps = torch.arange(scheduler.config.num_train_timesteps)
    if weighting == "uniform":
        return torch.ones(len(timesteps))
    if weighting != "min_snr":
        raise ValueError(
            f"MODEL.LDMSEG.DIFFUSION.LOSS_WEIGHTING is {weighting!r}; allowed: min_snr, uniform"
        )
    snr = compute_snr(scheduler, timesteps)
    divisor = {"epsilon": snr, "sample": torch.ones_like(snr), "v_prediction": snr + 1}
    return (snr.clamp(max=gamma) / divisor[scheduler.config.prediction_type]).float()


def add_noise(scheduler: SchedulerMixin, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The forward process, x_t = a x0 + s noise, with a^2 = alphas_cumprod[t], s^2 = 1 - a^2.

    The method of this name gives the same for "DDIM" and "DDPM" alone: others keep it to the
    timesteps of the last sampling run.

    Args:
        x0, noise: (B, C, h, w).
        t: (B,) int64 timesteps.
    """
    a, s = _signal_and_noise(scheduler, x0, t)
    return a * x0 + s * noise


def prediction_target(scheduler: SchedulerMixin, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What the network should output at x_t: epsilon, x0 or v (arXiv 2202.00512, appendix D).

    Args:
        x0, noise: (B, C, h, w).
        t: (B,) int64 timesteps.
    """
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "sample":
        return x0
    a, s = _signal_and_noise(scheduler, x0, t)
    return a * noise - s * x0


def predicted_x0(scheduler: SchedulerMixin, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The x0 that a network output stands for, one timestep per sample.

    x_t = a x0 + s epsilon and v = a epsilon - s x0, with a^2 = alphas_cumprod[t], s^2 = 1 - a^2.

    Args:
        output, x_t: (B, C, h, w).
        t: (B,) int64 timesteps.
    """
    kind = scheduler.config.prediction_type
    if kind == "sample":
        return output
    a, s = _signal_and_noise(scheduler, x_t, t)
    if kind == "epsilon":
        return (x_t - s * output) / a
    return a * x_t - s * output


def _signal_and_noise(scheduler: SchedulerMixin, like: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """a and s at each timestep, (B, 1, 1, 1)."""
    alphas_cumprod = scheduler.alphas_cumprod.to(like.device, like.dtype)[t].view(-1, 1, 1, 1)
    return alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()
