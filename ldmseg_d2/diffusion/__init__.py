"""Forward process, training loss and sampler, as functions on tensors."""

from .loss import DiffusionLoss, diffusion_loss
from .randomness import SampleRandomness
from .sampling import (
    image_generator,
    initial_noise,
    predict_from_noise,
    sample_latents,
    spread_steps,
)
from .schedule import (
    add_noise,
    build_scheduler,
    predicted_x0,
    prediction_target,
    timestep_loss_weights,
)

__all__ = [
    "DiffusionLoss",
    "SampleRandomness",
    "add_noise",
    "build_scheduler",
    "diffusion_loss",
    "image_generator",
    "initial_noise",
    "predict_from_noise",
    "predicted_x0",
    "prediction_target",
    "sample_latents",
    "spread_steps",
    "timestep_loss_weights",
]
