"""Forward process, training step and sampler, as functions on tensors."""

from .inpainting import INPAINTING_METHODS
from .sampling import initial_noise, sample_latents
from .schedule import (
    add_noise,
    build_scheduler,
    high_noise_timesteps,
    network_passes,
    output_of_x0,
    predicted_x0,
    prediction_target,
    self_aligned_noise,
    timestep_loss_weights,
)
from .training import DiffusionLoss, diffusion_loss

__all__ = [
    "INPAINTING_METHODS",
    "DiffusionLoss",
    "add_noise",
    "build_scheduler",
    "diffusion_loss",
    "high_noise_timesteps",
    "initial_noise",
    "network_passes",
    "output_of_x0",
    "predicted_x0",
    "prediction_target",
    "sample_latents",
    "self_aligned_noise",
    "timestep_loss_weights",
]
