"""Forward process, training step and sampler, as functions on tensors."""

from .sampling import initial_noise, sample_latents
from .schedule import build_scheduler, predicted_x0, prediction_target, timestep_loss_weights
from .training import DiffusionLoss, diffusion_loss

__all__ = [
    "DiffusionLoss",
    "build_scheduler",
    "diffusion_loss",
    "initial_noise",
    "predicted_x0",
    "prediction_target",
    "sample_latents",
    "timestep_loss_weights",
]
