"""Training for inpainting: which cells of a sample are given (TRAIN_INPAINTING)."""

from typing import Any

import torch
from torch import Tensor

from ..diffusion import SampleRandomness
from .given_parts import known_cells

# Sides of the square groups of cells that are given or not as one.
GROUP_SIDES = (1, 2, 4)


def draw_known_cells(
    ids: Tensor, size: int, *, num_ids: int, prob: float, randomness: SampleRandomness
) -> Tensor:
    """Draw the latent cells that are given.

    Something of a sample is given with probability ``prob``. Half of these samples give whole
    segments, the others groups of cells; what is given of them is uniform in [0, 1].

    Args:
        ids: (N, S, S) int64 segment ids in 0..num_ids - 1, 0 is void.
        size: side h of the latents, a divisor of S.
        num_ids: how many ids there may be; a sample's numbers must not depend on the others' ids.
        prob: in [0, 1].
        randomness: of these samples.

    Returns:
        (N, h, h) bool; void is never given as part of a segment.
    """
    has, kind, share, group = (randomness.rand().tolist() for _ in range(4))
    cells = randomness.rand(size, size)  # [N, h, h]
    segments = randomness.rand(num_ids)  # [N, num_ids]
    factor = ids.shape[-1] // size
    known = torch.zeros_like(cells, dtype=torch.bool)
    for i in range(len(ids)):
        if has[i] >= prob:
            continue
        if kind[i] >= 0.5:
            pixels = (segments[i] < share[i])[ids[i]] & (ids[i] != 0)
            known[i] = known_cells(pixels, image_size=len(pixels), downsample_factor=factor)
            continue
        side = GROUP_SIDES[int(group[i] * len(GROUP_SIDES))]
        side = side if size % side == 0 else 1
        groups = cells[i, : size // side, : size // side] < share[i]
        known[i] = groups.repeat_interleave(side, 0).repeat_interleave(side, 1)
    return known


def draw_known_latents(
    block: Any, ids: Tensor | None, *, like: Tensor, prob: float, randomness: SampleRandomness
) -> Tensor:
    """Draw what is given of a training batch: (R, C', h, w) bool, in the segments' channels.

    Args:
        block: where the segments' latents are: ``rows`` and ``channels`` of the batch, and the
            ``task``; None: no sample has segments.
        ids: (N, S, S) int64 of the block's rows.
        like: (R, C', h, w) of the batch.
        prob: share of samples in which something is given.
        randomness: of the rows.
    """
    latents = torch.zeros_like(like, dtype=torch.bool)
    if block is not None:
        cells = draw_known_cells(
            ids,
            like.shape[-1],
            num_ids=block.task.autoencoder.num_ids,
            prob=prob,
            randomness=randomness.of_samples(block.rows),
        )
        shape = latents[block.rows, block.channels].shape
        latents[block.rows, block.channels] = cells.unsqueeze(1).expand(shape)
    return latents
