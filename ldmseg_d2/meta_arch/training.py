"""Training: the losses of one denoising step for all tasks of a batch."""

import functools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..diffusion import diffusion_loss
from .batching import SampleRandomness
from .tasks.known_cells import known_cells
from .tasks.training import encode_targets, losses_by_task

if TYPE_CHECKING:
    from .ldmseg import LDMSeg


def training_losses(
    model: "LDMSeg", batched_inputs: list[dict], condition: Tensor
) -> dict[str, Tensor]:
    """The losses of a batch, see ``LDMSeg.forward``.

    Args:
        model: in training mode.
        batched_inputs: the input dicts.
        condition: (B, C', h, w) of their photos.
    """
    # 1. Noise, and which tasks each picture teaches.
    options = model.noise_options
    randomness = SampleRandomness(batched_inputs, model.device)
    noise = options.x_T(randomness.randn(*model.latent_shape))
    batch = model.layout.for_training(model.tasks, batched_inputs, randomness)
    told = torch.tensor(batch.tasks, device=model.device)
    predict = functools.cache(lambda: model.predict_from_noise(noise, condition, told))

    # 2. Clean latents of these tasks.
    targets = encode_targets(
        model.tasks,
        batch,
        batched_inputs,
        noise=noise,
        randomness=randomness,
        predict=predict,
    )

    # 3. For inpainting, cells of some samples that are given.
    known = known_cells(
        model.tasks,
        batch,
        targets,
        prob=model.train_inpainting_prob,
        randomness=randomness,
        with_draft=model.denoiser.draft_channels > 0,
        segments_share=model.given_segments_share,
    )

    # 4. One denoising step at a random timestep.
    t = options.timesteps(len(model.timestep_weights), randomness)
    chosen = None
    if model.denoiser.self_conditioning:
        chosen = randomness.rand() < model.self_conditioning_prob
    aligned = options.self_aligned(
        noise, targets.x0, t, predict=predict, scheduler=model.scheduler, randomness=randomness
    )
    result = diffusion_loss(
        lambda x_t, t, previous: model.denoiser(
            x_t, t, condition, previous, told, known.cells, known.draft
        ),
        targets.x0,
        t,
        aligned,
        scheduler=model.scheduler,
        weights=model.timestep_weights,
        valid=targets.valid,
        cell_weights=targets.weights,
        known=known.latents,
        self_conditioning_mask=chosen,
        x_t=noise if options.regression else None,
    )
    losses = losses_by_task(
        model.tasks,
        batch,
        targets,
        result,
        weights=model.layout.loss_weights,
        decoded_weight=model.decoded_loss_weight,
    )
    losses.update(model.classifier.losses(condition, batched_inputs))
    if model.supervision is not None:
        losses.update(model.supervision.losses(condition, batched_inputs, model.train_size))
    return losses
