"""Training for inpainting: which latent cells of a sample are given (TRAIN_INPAINTING)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..batching import SampleRandomness
from .base import Task
from .instance import InstanceTask
from .layout import Batch
from .training import TrainingTargets

# Sides of the square groups of cells that are given or not as one.
GROUP_SIDES = (1, 2, 4)


class KnownCells(NamedTuple):
    """Which parts of a batch of latents (R, C', h, w) are given; None: none."""

    cells: Tensor | None  # (R, 1, h, w) bool, what the denoiser is told
    latents: Tensor | None  # (R, C', h, w) bool: the same in the channels of the segments' task


def known_cells(
    tasks: Sequence[Task],
    batch: Batch,
    targets: TrainingTargets,
    *,
    prob: float,
    randomness: SampleRandomness,
) -> KnownCells:
    """Draw what is given of the task "instance" in a training batch.

    Args:
        tasks: of the model.
        batch, targets: see :func:`encode_targets`.
        prob: share of samples in which something is given.
        randomness: of the rows.
    """
    x0 = targets.x0
    cells = torch.zeros_like(x0[:, :1], dtype=torch.bool)
    latents = torch.zeros_like(x0, dtype=torch.bool)
    for block, target in zip(batch.blocks, targets.by_block, strict=True):
        task = tasks[block.task]
        if not isinstance(task, InstanceTask):
            continue
        known = draw_known_cells(
            target.pixels,
            x0.shape[-1],
            num_ids=task.autoencoder.num_ids,
            prob=prob,
            randomness=randomness.of_samples(block.rows),
        )
        cells[block.rows] = known
        latents[block.rows, block.channels] = known.expand_as(target.latents)
    return KnownCells(cells, latents)


def draw_known_cells(
    ids: Tensor, size: int, *, num_ids: int, prob: float, randomness: SampleRandomness
) -> Tensor:
    """Draw the cells that are given.

    A sample has given cells with probability ``prob``. Half of these samples give groups of cells,
    the others whole segments; the share that is given is uniform in [0, 1].

    Args:
        ids: (N, S, S) int64 segment ids in 0..num_ids - 1, 0 is void.
        size: side h of the latents, a divisor of S.
        num_ids: how many ids there may be; a sample's numbers must not depend on the others' ids.
        prob: in [0, 1].
        randomness: of these samples.

    Returns:
        (N, 1, h, h) bool. A cell is given if all of its pixels are; void is never given as part of
        a segment.
    """
    has, kind, share, group = (randomness.rand().tolist() for _ in range(4))
    cells = randomness.rand_map(size)  # [N, h, h]
    segments = randomness.rand_map(num_ids, 1)[:, :, 0]  # [N, num_ids]
    known = torch.zeros(len(ids), 1, size, size, dtype=torch.bool, device=ids.device)
    for i in range(len(ids)):
        if has[i] >= prob:
            continue
        if kind[i] < 0.5:
            side = GROUP_SIDES[int(group[i] * len(GROUP_SIDES))]
            side = side if size % side == 0 else 1
            groups = cells[i, : size // side, : size // side] < share[i]
            known[i, 0] = groups.repeat_interleave(side, 0).repeat_interleave(side, 1)
        else:
            given = (segments[i] < share[i])[ids[i]] & (ids[i] != 0)  # [S, S]
            factor = ids.shape[-1] // size
            missing = F.max_pool2d((~given)[None, None].float(), factor)
            known[i] = missing[0] == 0
    return known
