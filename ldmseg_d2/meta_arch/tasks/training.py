"""Targets and losses of a batch that holds several tasks."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor

from ...diffusion import DiffusionLoss
from ..batching import SampleRandomness
from .base import Target, Task
from .layout import Batch


class TrainingTargets(NamedTuple):
    """What the denoiser learns from a batch."""

    x0: Tensor  # (R, C', h, w); 0 where there is no target
    valid: Tensor  # (R, C', h, w) bool
    weights: Tensor | None  # (R, C', h, w) of the squared errors; None: all 1
    by_block: list[Target]


@torch.no_grad()
def encode_targets(
    tasks: Sequence[Task],
    batch: Batch,
    entries: Sequence[dict],
    *,
    noise: Tensor,
    randomness: SampleRandomness,
    predict: Callable[[], Tensor],
) -> TrainingTargets:
    """The clean latents of every task in a batch.

    Args:
        tasks: of the model.
        batch: its rows and blocks.
        entries: the input dict of each row.
        noise: (R, C', h, w); the targets get its shape.
        randomness: of the rows.
        predict: gives (R, C', h, w), the network's x0 from that noise; called for every task.
    """
    x0 = torch.zeros_like(noise)
    valid = torch.zeros_like(noise, dtype=torch.bool)
    weights: Tensor | None = None
    targets = []
    for block in batch.blocks:
        target = tasks[block.task].encode(
            [entries[row] for row in block.rows],
            randomness.of_samples(block.rows),
            lambda block=block: block.of(predict()),
        )
        x0[block.rows, block.channels] = target.latents.to(noise.dtype)
        cells = torch.ones_like(target.latents, dtype=torch.bool)
        valid[block.rows, block.channels] = cells if target.valid is None else target.valid & cells
        if target.weights is not None:
            weights = torch.ones_like(noise) if weights is None else weights
            weights[block.rows, block.channels] = target.weights.to(noise.dtype)
        targets.append(target)
    return TrainingTargets(x0, valid, weights, targets)


def losses_by_task(
    tasks: Sequence[Task],
    batch: Batch,
    targets: TrainingTargets,
    result: DiffusionLoss,
    *,
    weights: Sequence[float],
    decoded_weight: float = 0.0,
) -> dict[str, Tensor]:
    """Divide the diffusion loss among the tasks.

    Args:
        tasks: of the model.
        batch, targets, result: of one training step.
        weights: of each task's loss.
        decoded_weight: of ``loss_decoded``; 0: it is left out.

    Returns:
        ``loss_diffusion`` of a single task; of several ``loss_<task>`` for each, whose sum is the
        mean over all valid latents where the weights are 1. The mean over a task's own latents is
        logged as ``diffusion/<task>``.
    """
    # Every task has its key in every iteration: processes compare their keys.
    losses = {f"loss_{task.name}": 0.0 * result.loss for task in tasks}
    if len(tasks) == 1:
        losses = {"loss_diffusion": result.loss}
    else:
        for block in batch.blocks:
            name = tasks[block.task].name
            error = block.of(result.error).sum()
            losses[f"loss_{name}"] = weights[block.task] * error / result.num_valid
            if has_event_storage():
                # Independent of how many samples of the batch have the task.
                mean = error.detach() / block.of(targets.valid).sum().clamp(min=1)
                get_event_storage().put_scalar(f"diffusion/{name}", float(mean))
    if decoded_weight > 0:
        total = 0.0 * result.loss
        for block, target in zip(batch.blocks, targets.by_block, strict=True):
            loss = tasks[block.task].decoded_loss(block.of(result.x0), target)
            total = total + loss * (len(block.rows) / len(result.x0))
        losses["loss_decoded"] = decoded_weight * total
    return losses
