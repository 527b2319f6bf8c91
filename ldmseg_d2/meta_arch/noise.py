"""What training draws: how noisy the latents are, or no noise at all (regression)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from diffusers import SchedulerMixin
from torch import Tensor

from ..config import TIMESTEP_SAMPLINGS
from ..diffusion import high_noise_timesteps, self_aligned_noise, timestep_loss_weights
from .batching import SampleRandomness


class NoiseOptions(NamedTuple):
    """Of the training, see ``MODEL.LDMSEG.DIFFUSION``; ``regression`` holds for inference too."""

    timestep_sampling: str = "uniform"
    timestep_power: float = 2.0
    regression: bool = False
    self_aligned_prob: float = 0.0

    def timesteps(self, num_timesteps: int, randomness: SampleRandomness) -> Tensor:
        """(B,) int64 in 0..num_timesteps - 1."""
        if self.regression:
            size = (randomness.batch_size,)
            return torch.full(size, num_timesteps - 1, device=randomness.device)
        if self.timestep_sampling == "uniform":
            return randomness.randint(num_timesteps)
        return high_noise_timesteps(randomness.rand(), num_timesteps, self.timestep_power)

    def x_T(self, noise: Tensor) -> Tensor:  # noqa: N802 (the field's name)
        """What sampling starts from: the noise, or zeros."""
        return torch.zeros_like(noise) if self.regression else noise

    def self_aligned(
        self,
        noise: Tensor,
        x0: Tensor,
        t: Tensor,
        *,
        predict: Callable[[], Tensor],
        scheduler: SchedulerMixin,
        randomness: SampleRandomness,
    ) -> Tensor:
        """Noise of which some samples see their own prediction, see :func:`self_aligned_noise`.

        Args:
            noise: (B, C', h, w) of the step; a sample that is chosen gets new noise, as sampling
                adds it after its first step.
            x0: (B, C', h, w) the truth.
            t: (B,) int64 timesteps.
            predict: gives the network's x0 at t = T - 1.
            scheduler: of the forward process.
            randomness: of the samples.
        """
        if not self.self_aligned_prob:
            return noise
        chosen = randomness.rand() < self.self_aligned_prob
        fresh = randomness.randn(*noise.shape[1:])
        aligned = self_aligned_noise(scheduler, x0, predict().to(x0.dtype), fresh, t)
        return torch.where(chosen.view(-1, 1, 1, 1), aligned, noise)


def build_noise_options(cfg: CfgNode) -> NoiseOptions:
    """By ``MODEL.LDMSEG.DIFFUSION``.

    Raises:
        ValueError: an unknown name, a power of 0 or less, a share outside 0 to 1, or keys that a
            regression excludes.
    """
    diffusion, sampler = cfg.MODEL.LDMSEG.DIFFUSION, cfg.MODEL.LDMSEG.SAMPLER
    if diffusion.TIMESTEP_SAMPLING not in TIMESTEP_SAMPLINGS:
        raise ValueError(
            f"MODEL.LDMSEG.DIFFUSION.TIMESTEP_SAMPLING is {diffusion.TIMESTEP_SAMPLING!r}; "
            f"allowed: {', '.join(TIMESTEP_SAMPLINGS)}"
        )
    if not diffusion.TIMESTEP_POWER > 0:
        raise ValueError(
            f"MODEL.LDMSEG.DIFFUSION.TIMESTEP_POWER must be above 0, got {diffusion.TIMESTEP_POWER}"
        )
    if not 0 <= diffusion.SELF_ALIGNED_PROB <= 1:
        raise ValueError(
            "MODEL.LDMSEG.DIFFUSION.SELF_ALIGNED_PROB is a share of the samples, from 0 to 1, got "
            f"{diffusion.SELF_ALIGNED_PROB}"
        )
    needed = (
        ("DIFFUSION.PREDICTION_TYPE", diffusion.PREDICTION_TYPE, "sample"),
        ("DIFFUSION.SELF_CONDITIONING", diffusion.SELF_CONDITIONING, False),
        ("DIFFUSION.SELF_ALIGNED_PROB", diffusion.SELF_ALIGNED_PROB, 0.0),
        ("SAMPLER.NUM_INFERENCE_STEPS", sampler.NUM_INFERENCE_STEPS, 1),
        ("SAMPLER.TIMESTEP_SPACING", sampler.TIMESTEP_SPACING, "trailing"),
    )
    for key, value, wanted in needed if diffusion.REGRESSION else ():
        if value != wanted:
            raise ValueError(
                f"MODEL.LDMSEG.DIFFUSION.REGRESSION gives its result in one step from zeros: it "
                f"needs MODEL.LDMSEG.{key} {wanted!r}, not {value!r}"
            )
    return NoiseOptions(
        diffusion.TIMESTEP_SAMPLING,
        float(diffusion.TIMESTEP_POWER),
        diffusion.REGRESSION,
        float(diffusion.SELF_ALIGNED_PROB),
    )


def build_timestep_weights(cfg: CfgNode, scheduler: SchedulerMixin) -> Tensor:
    """(T,) loss weights by ``MODEL.LDMSEG.DIFFUSION.LOSS_WEIGHTING``; 1 in a regression."""
    diffusion = cfg.MODEL.LDMSEG.DIFFUSION
    return timestep_loss_weights(
        scheduler,
        weighting="uniform" if diffusion.REGRESSION else diffusion.LOSS_WEIGHTING,
        gamma=diffusion.MIN_SNR_GAMMA,
    )
