"""Training for inpainting: which latent cells of a sample are given (TRAIN_INPAINTING)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ...inpainting.given_parts import fill_unknown
from ..batching import SampleRandomness
from .base import Task
from .instance import InstanceTask
from .layout import Batch
from .training import TrainingTargets

# Sides of the square groups of cells that are given or not as one; with a draft larger ones, too.
GROUP_SIDES, DRAFT_GROUP_SIDES = (1, 2, 4), (1, 2, 4, 8)


class KnownCells(NamedTuple):
    """Which parts of a batch of latents (R, C', h, w) are given; None: none."""

    cells: Tensor | None  # (R, 1, h, w) bool, what the denoiser is told
    latents: Tensor | None  # (R, C', h, w) bool: the same in the channels of the segments' task
    draft: Tensor | None = None  # (R, C, h, w): what is given, continued to the nearest pixels


def known_cells(
    tasks: Sequence[Task],
    batch: Batch,
    targets: TrainingTargets,
    *,
    prob: float,
    randomness: SampleRandomness,
    with_draft: bool = False,
    segments_share: float = 0.5,
) -> KnownCells:
    """Draw what is given of the task "instance" in a training batch.

    Args:
        tasks: of the model.
        batch, targets: see :func:`encode_targets`.
        prob: share of samples in which something is given.
        randomness: of the rows.
        with_draft: also make drafts; what is given then need not fill whole cells.
        segments_share: see :func:`draw_known_pixels`.
    """
    if prob <= 0:
        return KnownCells(None, None)
    x0 = targets.x0
    draft = None
    cells = torch.zeros_like(x0[:, :1], dtype=torch.bool)
    latents = torch.zeros_like(x0, dtype=torch.bool)
    for block, target in zip(batch.blocks, targets.by_block, strict=True):
        task = tasks[block.task]
        if not isinstance(task, InstanceTask):
            continue
        pixels = draw_known_pixels(
            target.pixels,
            x0.shape[-1],
            num_ids=task.autoencoder.num_ids,
            prob=prob,
            randomness=randomness.of_samples(block.rows),
            shifted=with_draft,
            segments_share=segments_share,
        )
        known = whole_cells(pixels, x0.shape[-1])
        cells[block.rows] = known
        latents[block.rows, block.channels] = known.expand_as(target.latents)
        if with_draft:
            draft = x0.new_zeros(len(x0), target.latents.shape[1], *x0.shape[2:])
            draft[block.rows] = draft_latents(task, target.pixels, pixels).to(x0.dtype)
    return KnownCells(cells, latents, draft)


@torch.no_grad()
def draft_latents(task: InstanceTask, ids: Tensor, known: Tensor) -> Tensor:
    """Latents of what is given, where every other pixel has the id of the nearest given one.

    Args:
        task: whose autoencoder encodes.
        ids: (N, S, S) int64 segment ids, 0 is void.
        known: (N, S, S) bool, the given pixels.

    Returns:
        (N, C, h, w) normalised; 0 in the samples of which nothing is given.
    """
    filled = torch.stack([fill_unknown(*one) for one in zip(ids, known, strict=True)])
    latents = task.encode_ids(filled).latents
    return latents * known.flatten(1).any(dim=1).view(-1, 1, 1, 1)


def whole_cells(known: Tensor, size: int) -> Tensor:
    """(N, 1, h, h) bool: latent cells of which all pixels of (N, S, S) are known."""
    missing = F.max_pool2d((~known).unsqueeze(1).float(), known.shape[-1] // size)
    return missing == 0


def draw_known_pixels(
    ids: Tensor,
    size: int,
    *,
    num_ids: int,
    prob: float,
    randomness: SampleRandomness,
    shifted: bool = False,
    segments_share: float = 0.5,
) -> Tensor:
    """Draw the pixels that are given.

    Something of a sample is given with probability ``prob``. ``segments_share`` of these samples
    give whole segments, the others groups of cells; what is given of them is uniform in [0, 1].

    Args:
        ids: (N, S, S) int64 segment ids in 0..num_ids - 1, 0 is void.
        size: side h of the latents, a divisor of S.
        num_ids: how many ids there may be; a sample's numbers must not depend on the others' ids.
        prob: in [0, 1].
        randomness: of these samples.
        shifted: move the groups by a random number of pixels, so that some cells are given in part.
        segments_share: in [0, 1].

    Returns:
        (N, S, S) bool; void is never given as part of a segment.
    """
    has, kind, share, group = (randomness.rand().tolist() for _ in range(4))
    cells = randomness.rand_map(size)  # [N, h, h]
    segments = randomness.rand_map(num_ids, 1)[:, :, 0]  # [N, num_ids]
    factor = ids.shape[-1] // size
    sides = DRAFT_GROUP_SIDES if shifted else GROUP_SIDES
    shifts = randomness.randint(max(sides) * factor, 2).tolist() if shifted else None
    known = torch.zeros_like(ids, dtype=torch.bool)
    for i in range(len(ids)):
        if has[i] >= prob:
            continue
        if kind[i] < 1 - segments_share:
            side = sides[int(group[i] * len(sides))]
            side = side if size % side == 0 else 1
            groups = cells[i, : size // side, : size // side] < share[i]
            known[i] = groups.repeat_interleave(side * factor, 0).repeat_interleave(
                side * factor, 1
            )
            if shifts is not None:
                known[i] = known[i].roll(shifts[i], (0, 1))
        else:
            known[i] = (segments[i] < share[i])[ids[i]] & (ids[i] != 0)
    return known
