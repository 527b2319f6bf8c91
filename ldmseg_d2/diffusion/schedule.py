"""The noise schedule and the loss weight of each timestep."""

from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from diffusers.training_utils import compute_snr
from torch import Tensor

# Name to diffusers' class and what is set there beside the keys of the config.
_SCHEDULERS: dict[str, tuple[type[SchedulerMixin], dict[str, Any]]] = {
    "DDIM": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    "DDPM": (DDPMScheduler, {"clip_sample": False}),
    "DPMSolver++": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"},
    ),
    "UniPC": (UniPCMultistepScheduler, {"solver_order": 2, "final_sigmas_type": "zero"}),
    "LCM": (LCMScheduler, {"clip_sample": False}),
    "Heun": (HeunDiscreteScheduler, {"clip_sample": False}),
}
# Name in the config to diffusers' name.
_BETA_SCHEDULES = {
    "scaled_linear": "scaled_linear",
    "linear": "linear",
    "cosine": "squaredcos_cap_v2",
    "squaredcos_cap_v2": "squaredcos_cap_v2",
}
_SPACINGS = ("trailing", "leading", "linspace")


def build_scheduler(
    name: str,
    *,
    num_train_timesteps: int = 1000,
    beta_schedule: str = "scaled_linear",
    beta_start: float = 0.00085,
    beta_end: float = 0.012,
    prediction_type: str = "epsilon",
    timestep_spacing: str = "trailing",
    rescale_betas_zero_snr: bool = False,
) -> SchedulerMixin:
    """Build a diffusers scheduler for mask latents.

    Latents are not clipped to [-1, 1], and the last DDIM step goes to ``alphas_cumprod[0]``, as in
    Stable Diffusion. "trailing" spacing starts at t = T - 1 (arXiv 2305.08891, table 2).

    Args:
        name: "DDIM" (arXiv 2010.02502, deterministic), "DDPM" (arXiv 2006.11239, ancestral),
            "DPMSolver++" (arXiv 2211.01095, 2M: second order, multistep), "UniPC" (arXiv
            2302.04867, second order), "LCM" (arXiv 2310.04378: the x0 prediction, noised anew at
            every step) or "Heun" (arXiv 2206.00364, algorithm 1, two network passes a step).
        num_train_timesteps: length T of the forward process.
        beta_schedule: "scaled_linear", "linear", or "cosine" (arXiv 2102.09672), which diffusers
            calls "squaredcos_cap_v2" and which has no start and end.
        beta_start, beta_end: betas, as in diffusers.
        prediction_type: "epsilon", "sample" or "v_prediction".
        timestep_spacing: "trailing", "leading" or "linspace", in the scheduler's own reading;
            "LCM" has "trailing" alone.
        rescale_betas_zero_snr: zero SNR at t = T - 1; "DPMSolver++" and "UniPC" leave 2^-24 of it.

    Raises:
        ValueError: an unknown name; a spacing or zero terminal SNR that the scheduler does not
            have; or zero terminal SNR with epsilon, from which x0 cannot be recovered at t = T - 1.
    """
    for key, value, allowed in (
        ("SAMPLER.NAME", name, _SCHEDULERS),
        ("DIFFUSION.BETA_SCHEDULE", beta_schedule, _BETA_SCHEDULES),
        ("SAMPLER.TIMESTEP_SPACING", timestep_spacing, _SPACINGS),
    ):
        if value not in allowed:
            raise ValueError(f"MODEL.LDMSEG.{key} is {value!r}; allowed: {', '.join(allowed)}")
    if rescale_betas_zero_snr and prediction_type == "epsilon":
        raise ValueError(
            "MODEL.LDMSEG.DIFFUSION.RESCALE_BETAS_ZERO_SNR needs PREDICTION_TYPE 'sample' or "
            "'v_prediction': with 'epsilon', x0 = (x_t - sigma_t epsilon) / 0 at t = T - 1"
        )
    if rescale_betas_zero_snr and name == "Heun":
        others = ", ".join(other for other in _SCHEDULERS if other != name)
        raise ValueError(
            "MODEL.LDMSEG.SAMPLER.NAME 'Heun' steps in sigma = sqrt(1 / alphas_cumprod - 1), which "
            "is infinite at t = T - 1 with DIFFUSION.RESCALE_BETAS_ZERO_SNR; allowed with it: "
            f"{others}"
        )
    if name == "LCM" and timestep_spacing != "trailing":
        raise ValueError(
            f"MODEL.LDMSEG.SAMPLER.TIMESTEP_SPACING is {timestep_spacing!r}; SAMPLER.NAME 'LCM' "
            "has its own spacing: allowed: trailing"
        )
    scheduler, arguments = _SCHEDULERS[name]
    arguments = {
        **arguments,
        "num_train_timesteps": num_train_timesteps,
        "beta_schedule": _BETA_SCHEDULES[beta_schedule],
        "beta_start": beta_start,
        "beta_end": beta_end,
        "prediction_type": prediction_type,
    }
    if name == "LCM":
        # N of the T timesteps of training rather than of 50 of a distillation: trailing spacing.
        arguments["original_inference_steps"] = num_train_timesteps
    else:
        arguments["timestep_spacing"] = timestep_spacing
    if name != "Heun":
        arguments["rescale_betas_zero_snr"] = rescale_betas_zero_snr
    return scheduler(**arguments)


def network_passes(name: str, num_inference_steps: int) -> int:
    """How often the sampler of this name calls the network: N times, "Heun" 2 N - 1 times."""
    order = _SCHEDULERS[name][0].order
    return order * num_inference_steps - (order - 1)


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
    """
    timesteps = torch.arange(scheduler.config.num_train_timesteps)
    if weighting == "uniform":
        return torch.ones(len(timesteps))
    if weighting != "min_snr":
        raise ValueError(
            f"MODEL.LDMSEG.DIFFUSION.LOSS_WEIGHTING is {weighting!r}; allowed: min_snr, uniform"
        )
    snr = compute_snr(scheduler, timesteps)
    clipped = snr.clamp(max=gamma)
    divisor = {"epsilon": snr, "sample": torch.ones_like(snr), "v_prediction": snr + 1}
    if scheduler.config.prediction_type not in divisor:
        raise ValueError(
            f"MODEL.LDMSEG.DIFFUSION.PREDICTION_TYPE is {scheduler.config.prediction_type!r}; "
            f"allowed: {', '.join(divisor)}"
        )
    return (clipped / divisor[scheduler.config.prediction_type]).float()


def add_noise(scheduler: SchedulerMixin, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The forward process, x_t = a x0 + s noise, with a^2 = alphas_cumprod[t], s^2 = 1 - a^2.

    The method of this name gives the same for "DDIM" and "DDPM" alone: others keep it to the
    timesteps of the last sampling run, or do not shrink x0.

    Args:
        x0, noise: (B, C, h, w).
        t: (B,) int64 timesteps.
    """
    a, s = _signal_and_noise(scheduler, x0, t)
    return a * x0 + s * noise


def self_aligned_noise(
    scheduler: SchedulerMixin, x0: Tensor, prediction: Tensor, noise: Tensor, t: Tensor
) -> Tensor:
    """The noise with which :func:`add_noise` of x0 gives that of the network's own prediction.

    In sampling x_t is made of what the network predicted, in training of the truth, which the
    network learns to read there and to trust. Self-aligned denoising (DDP, arXiv 2303.17559) trains
    on x_t of predictions as well; the target stays the truth, so that their errors are unlearnt. As
    noise, prediction - x0 goes with every prediction type: x_t = a x0 + s (noise + a / s (p - x0)).

    Args:
        x0: (B, C, h, w) the truth.
        prediction: (B, C, h, w) p, the network's x0.
        noise: (B, C, h, w) standard normal.
        t: (B,) int64 timesteps.

    Returns:
        (B, C, h, w).
    """
    a, s = _signal_and_noise(scheduler, x0, t)
    return noise + a / s * (prediction - x0)


def high_noise_timesteps(u: Tensor, num_timesteps: int, power: float) -> Tensor:
    """Timesteps that are drawn the more often the noisier they are.

    t = T u^(1 / power), rounded down: the density of t / T is power (t / T)^(power - 1), so that
    P(t < n) = (n / T)^power.

    Args:
        u: (B,) uniform in [0, 1).
        num_timesteps: T.
        power: above 0; 1 is uniform, below 1 little noise is drawn more often.

    Returns:
        (B,) int64 in 0..T - 1.

    Raises:
        ValueError: a power that is not above 0.
    """
    if not power > 0:
        raise ValueError(f"MODEL.LDMSEG.DIFFUSION.TIMESTEP_POWER must be above 0, got {power}")
    t = (u.double() ** (1 / power) * num_timesteps).long()
    return t.clamp(max=num_timesteps - 1)


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


def output_of_x0(scheduler: SchedulerMixin, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The network output that stands for an x0: the inverse of :func:`predicted_x0`.

    Args:
        x0, x_t: (B, C, h, w).
        t: (B,) int64 timesteps.
    """
    kind = scheduler.config.prediction_type
    if kind == "sample":
        return x0
    a, s = _signal_and_noise(scheduler, x_t, t)
    epsilon = (x_t - a * x0) / s
    return epsilon if kind == "epsilon" else a * epsilon - s * x0


def _signal_and_noise(scheduler: SchedulerMixin, like: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """a and s at each timestep, (B, 1, 1, 1)."""
    alphas_cumprod = scheduler.alphas_cumprod.to(like.device, like.dtype)[t].view(-1, 1, 1, 1)
    return alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()
