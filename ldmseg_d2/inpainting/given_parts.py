"""Given parts of a partition: checked, brought to the network's grid, and named as it names them.

A user gives ``known_ids`` and ``known_mask`` at the size of the result. The network completes
latents: so the given pixels are resized to its square, the cells that they fill are found, and the
given ids are re-coded to ids of the model's own assignment, from which the result is coded back
(:func:`ldmseg_d2.panoptic.paste_known`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from ..ids.id_maps import ordered_id_table, positional_id_table, random_id_table, segment_centroids
from ..ids.matching import PositionPull, predicted_id_table

# An id PNG, in which results are saved, holds 24 bits.
MAX_KNOWN_ID = 2**24 - 1
CELL_RULES = ("all", "most", "any")


class KnownParts(NamedTuple):
    """The given part of one picture's partition, at the size of the result."""

    ids: Tensor  # (H, W) int64; 0 is void, and wherever nothing is given
    mask: Tensor  # (H, W) bool: pixels whose id (or void) is given

    def labels(self) -> Tensor:
        """(K,) int64 given ids, increasing, without void."""
        labels = torch.unique(self.ids)
        return labels[labels != 0]


def check_known_parts(
    known_ids: Tensor | None,
    known_mask: Tensor | None = None,
    *,
    size: tuple[int, int],
    max_segments: int,
    name: str = "image",
) -> KnownParts | None:
    """Check what a user gives with one picture.

    Args:
        known_ids: (H, W) integers: ids of the given segments, 0 elsewhere; any ids up to 2^24 - 1.
        known_mask: (H, W) bool: pixels whose partition is given, perhaps as void (known_ids 0); ids
            outside of it are ignored. None: where known_ids is not 0.
        size: (H, W) of the result, ``height`` and ``width`` of the input dict.
        max_segments: how many segments the model can name, 2^num_bits - 1.
        name: of the picture, for messages.

    Returns:
        The given parts, or None where nothing is given.

    Raises:
        ValueError: a mask without ids, another size or type, ids out of range, too many segments.
    """
    if known_ids is None:
        if known_mask is not None:
            raise ValueError(
                f"{name}: 'known_mask' without 'known_ids': give both, with id 0 where a known "
                "pixel is void"
            )
        return None
    ids = torch.as_tensor(known_ids)
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(
            f"{name}: 'known_ids' is {ids.dtype}, expected integers such as int64: they are ids, "
            "0 where nothing is given"
        )
    _check_size(ids, size, f"{name}: 'known_ids'")
    ids = ids.long()
    mask = ids != 0
    if known_mask is not None:
        mask = torch.as_tensor(known_mask, device=ids.device)
        if mask.dtype != torch.bool:
            raise ValueError(
                f"{name}: 'known_mask' is {mask.dtype}, expected bool: convert it with "
                "'known_mask != 0'"
            )
        _check_size(mask, size, f"{name}: 'known_mask'")
        ids = torch.where(mask, ids, 0)
    if not bool(mask.any()):
        return None
    if int(ids.min()) < 0 or int(ids.max()) > MAX_KNOWN_ID:
        raise ValueError(
            f"{name}: 'known_ids' span {int(ids.min())}..{int(ids.max())}, allowed are 0 (void) to "
            f"{MAX_KNOWN_ID}: number the segments anew"
        )
    parts = KnownParts(ids, mask)
    if len(parts.labels()) > max_segments:
        raise ValueError(
            f"{name}: 'known_ids' has {len(parts.labels())} segments, but MODEL.LDMSEG.NUM_BITS "
            f"holds {max_segments}: give fewer, or use a model with more bits"
        )
    return parts


def resize_nearest(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a map by nearest neighbour, with pixel centres aligned as PIL (and the mapper) do.

    Args:
        values: (H, W) of any type.
        size: (h, w) of the result.
    """
    rows, columns = (
        ((2 * torch.arange(new, device=values.device) + 1) * old) // (2 * new)
        for new, old in zip(size, values.shape)
    )
    return values[rows.unsqueeze(1), columns]


def known_cells(
    mask: Tensor, *, image_size: int, downsample_factor: int, rule: str = "all"
) -> Tensor:
    """Reduce known pixels to latent cells.

    Args:
        mask: (h, w) bool, h and w at most ``image_size``: what of the square is no padding, which
            is at its right and bottom. Padding counts neither for nor against a cell.
        image_size: side S of the square that the network sees.
        downsample_factor: pixels of a cell's side, a divisor of S.
        rule: "all": a cell is known where all its pixels are; "most": where at least half are;
            "any": where one is.

    Returns:
        (S / factor, S / factor) bool; False in cells that are padding alone.

    Raises:
        ValueError: unknown rule.
    """
    if rule not in CELL_RULES:
        raise ValueError(f"unknown rule {rule!r} for known cells; allowed: {', '.join(CELL_RULES)}")
    padding = (0, image_size - mask.shape[1], 0, image_size - mask.shape[0])
    pixels = F.pad(torch.stack([mask, ~mask]).float(), padding)
    # Shares of a cell's pixels, padding included.
    known, unknown = F.avg_pool2d(pixels.unsqueeze(0), downsample_factor)[0]
    if rule == "any":
        return known > 0
    if rule == "most":
        return (known > 0) & (known >= unknown)
    return (known > 0) & (unknown == 0)


def fill_unknown(ids: Tensor, mask: Tensor) -> Tensor:
    """Give every unknown pixel the id of the nearest known one.

    Args:
        ids: (H, W) int64.
        mask: (H, W) bool, known pixels; where there is none, ``ids`` are returned as they are.
    """
    if bool(mask.all()) or not bool(mask.any()):
        return ids
    indices = ndimage.distance_transform_edt(
        (~mask).cpu().numpy(), return_distances=False, return_indices=True
    )
    rows, columns = torch.from_numpy(indices.astype(np.int64)).to(ids.device)
    return ids[rows, columns]


def given_id_table(
    ids: Tensor,
    num_segments: int,
    *,
    method: str,
    num_bits: int,
    generator: torch.Generator | None = None,
    y_edges: Sequence[float] = (),
    x_edges: Sequence[float] = (),
    predicted: Tensor | None = None,
    expand: Callable[[Tensor], Tensor] | None = None,
    position_weight: float = 0.0,
) -> Tensor:
    """The id under which the model would know each given segment, by its own assignment.

    "random" draws distinct ids; "ordered" and "positional" go by the centroid of the given part;
    "matched" takes the ids that the network's own prediction from the sample's noise comes nearest
    to in the given parts, so that what is new agrees with what is given; "matched_positional" those
    that are near to the code of the given part's place as well.

    Args:
        ids: (h, w) int64 at the network's size: 1..K the given segments, 0 elsewhere.
        num_segments: K < 2^num_bits; a segment may have no pixel here.
        method: ``MODEL.LDMSEG.ID_ASSIGNMENT``.
        num_bits: bits of an id.
        generator: of the random ids.
        y_edges, x_edges: of "positional" and "matched_positional".
        predicted: (C, h, w) decoded x0 prediction, and
        expand: linear map from (B, C, h, w) to logits (B, 2^num_bits, h, w): for "matched" and
            "matched_positional".
        position_weight: of "matched_positional", see :class:`PositionPull`.

    Returns:
        (K + 1,) int64 on the CPU, distinct ids in 1..2^num_bits - 1; 0 stays 0.

    Raises:
        ValueError: unknown method, "matched" without a prediction, or more segments than ids.
    """
    if num_segments >= 2**num_bits:
        raise ValueError(
            f"{num_segments} given segments, but {num_bits} bits hold {2**num_bits - 1}"
        )
    if method == "random":
        return random_id_table(num_segments, 2**num_bits, generator).cpu()
    if method in ("matched", "matched_positional"):
        if predicted is None or expand is None:
            raise ValueError("matched ids need the decoded prediction and the map to logits of ids")
        position = PositionPull(position_weight, y_edges, x_edges)
        return predicted_id_table(
            ids, num_segments, predicted, expand, None if method == "matched" else position
        )
    centroids = segment_centroids(ids, num_segments)
    if method == "ordered":
        return ordered_id_table(centroids).cpu()
    if method == "positional":
        return positional_id_table(centroids, num_bits, y_edges, x_edges)
    raise ValueError(
        f"MODEL.LDMSEG.ID_ASSIGNMENT is {method!r}; allowed: random, ordered, positional, matched, "
        "matched_positional"
    )


def _check_size(values: Tensor, size: tuple[int, int], what: str) -> None:
    if tuple(values.shape) != tuple(size):
        raise ValueError(
            f"{what} is {tuple(values.shape)}, expected (height, width) of the result, "
            f"{tuple(size)}: resize it by nearest neighbour"
        )
