"""What a user gives of a partition: checked, brought to the network's grid, and put back."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from ..panoptic import SegmentsInfo

# An id PNG, in which results are saved, holds 24 bits.
MAX_GIVEN_ID = 2**24 - 1


class GivenParts(NamedTuple):
    """The given part of one picture's partition, at the size of the result."""

    ids: Tensor  # (H, W) int64; 0 is void, and wherever nothing is given
    mask: Tensor  # (H, W) bool: pixels whose id (or void) is given
    classes: dict[int, int | None]  # given id to contiguous class, None where nobody says it

    def labels(self) -> Tensor:
        """(K,) int64 given ids, increasing, without void."""
        labels = torch.unique(self.ids)
        return labels[labels != 0]


def read_given_parts(entry: dict, *, max_segments: int, asked: bool = True) -> GivenParts | None:
    """What an input dict gives.

    Args:
        entry: with ``height`` and ``width`` of the result and, where something is given,
            ``known_ids``: (H, W) integers, ids of the given segments up to 2^24 - 1, 0 elsewhere;
            ``known_mask``: (H, W) bool, pixels whose partition is given, perhaps as void (ids
            outside of it are ignored), without it where known_ids is not 0; ``known_classes``: a
            dict of given id to contiguous class, optional.
        max_segments: how many segments the model can name, 2^num_bits - 1.
        asked: whether the input asks for segments.

    Returns:
        The given parts, or None where nothing is given.

    Raises:
        ValueError: a mask or classes without ids, another size or type, ids out of range, too many
            segments, or segments are not asked for.
    """
    name = str(entry.get("file_name", "image"))
    if entry.get("known_ids") is None:
        if entry.get("known_mask") is not None or entry.get("known_classes"):
            raise ValueError(
                f"{name}: 'known_mask' or 'known_classes' without 'known_ids': give both, with id "
                "0 where a known pixel is void"
            )
        return None
    if not asked:
        raise ValueError(
            f"{name}: 'known_ids' are completed by the task 'instance', which this model does not "
            "have or which the input's 'tasks' leave out"
        )
    ids = torch.as_tensor(entry["known_ids"])
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(
            f"{name}: 'known_ids' is {ids.dtype}, expected integers such as int64: they are ids, "
            "0 where nothing is given"
        )
    size = entry["height"], entry["width"]
    _check_size(ids, size, f"{name}: 'known_ids'")
    ids = ids.long()
    mask = ids != 0
    if entry.get("known_mask") is not None:
        mask = torch.as_tensor(entry["known_mask"], device=ids.device)
        if mask.dtype != torch.bool:
            raise ValueError(
                f"{name}: 'known_mask' is {mask.dtype}, expected bool: convert it with "
                "'known_mask != 0'"
            )
        _check_size(mask, size, f"{name}: 'known_mask'")
        ids = torch.where(mask, ids, 0)
    if not bool(mask.any()):
        return None
    if int(ids.min()) < 0 or int(ids.max()) > MAX_GIVEN_ID:
        raise ValueError(
            f"{name}: 'known_ids' span {int(ids.min())}..{int(ids.max())}, allowed are 0 (void) to "
            f"{MAX_GIVEN_ID}: number the segments anew"
        )
    said = entry.get("known_classes") or {}
    parts = GivenParts(ids, mask, {})
    labels = parts.labels().tolist()
    if len(labels) > max_segments:
        raise ValueError(
            f"{name}: 'known_ids' has {len(labels)} segments, but MODEL.LDMSEG.NUM_BITS holds "
            f"{max_segments}: give fewer, or use a model with more bits"
        )
    if not set(said) <= set(labels):
        raise ValueError(
            f"{name}: 'known_classes' has ids {sorted(set(said) - set(labels))[:10]}, which "
            "'known_ids' does not give"
        )
    return parts._replace(classes={label: said.get(label) for label in labels})


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


def known_cells(mask: Tensor, *, image_size: int, downsample_factor: int) -> Tensor:
    """The latent cells all of whose pixels are known.

    Args:
        mask: (h, w) or (N, h, w) bool, h and w at most ``image_size``: what of the square is no
            padding, which is at its right and bottom and counts neither for nor against a cell.
        image_size: side S of the square that the network sees.
        downsample_factor: pixels of a cell's side, a divisor of S.

    Returns:
        (S / factor, S / factor) or (N, ...) bool; False in cells that are padding alone.
    """
    padding = (0, image_size - mask.shape[-1], 0, image_size - mask.shape[-2])
    pixels = F.pad(torch.stack([mask, ~mask]).float(), padding)
    known, unknown = F.max_pool2d(pixels, downsample_factor)
    return (known > 0) & (unknown == 0)


def _check_size(values: Tensor, size: tuple[int, int], what: str) -> None:
    if tuple(values.shape) != tuple(size):
        raise ValueError(
            f"{what} is {tuple(values.shape)}, expected (height, width) of the result, "
            f"{tuple(size)}: resize it by nearest neighbour"
        )


def put_back(
    panoptic: Tensor,
    segments_info: SegmentsInfo,
    given: GivenParts,
    *,
    codes: Mapping[int, int],
    min_area: int = 0,
) -> tuple[Tensor, SegmentsInfo]:
    """Put the given part back exactly, and its ids.

    1. A segment that the model made of a given one (:func:`match_given`) gets its given id, with
       all that it covers; the others get the smallest ids that are not given, in their order.
    2. The given pixels become what they were given as, void included.
    3. A new segment that lost pixels to them becomes void if fewer than ``min_area`` are left.

    Args:
        panoptic: (H, W) integer segment ids as decoded, 0 is void.
        segments_info: dicts with ``id``, ``category_id``, ``isthing``, ``score``, ``area``.
        given: the given part, at the same size.
        codes: id in ``panoptic`` under which the model was told each given segment.
        min_area: pixels, at least 1 in effect.

    Returns:
        (H, W) int32 map; and segments_info sorted by id. The score of a given segment is the mean
        over its pixels, 1 where they are given.
    """
    labels = given.labels().tolist()
    table = _result_ids(panoptic, match_given(panoptic, given, codes), set(labels))
    old_info = {table[int(s["id"])]: s for s in segments_info if int(s["id"]) in table}
    found, inverse = torch.unique(panoptic, return_inverse=True)
    before = torch.tensor([table.get(i, 0) for i in found.tolist()], device=panoptic.device)
    before = before[inverse]
    result = torch.where(given.mask, given.ids, before)

    old_areas, own_areas = _areas(before), _areas(given.ids)
    segments: SegmentsInfo = []
    for id_, area in sorted(_areas(result).items()):
        info = old_info.get(id_, {})
        score = float(info.get("score", 0.0))
        if id_ in own_areas:
            score = (own_areas[id_] + score * (area - own_areas[id_])) / area
        elif area < min_area and area < old_areas[id_]:
            result = torch.where(result == id_, 0, result)
            continue
        class_ = given.classes.get(id_)
        class_ = int(info.get("category_id", 0)) if class_ is None else class_
        segment = {"id": id_, "category_id": class_, "isthing": bool(info.get("isthing", True))}
        segments.append({**segment, "score": score, "area": area})
    return result.to(torch.int32), segments


def match_given(panoptic: Tensor, given: GivenParts, codes: Mapping[int, int]) -> dict[int, int]:
    """Which decoded segment is which given one.

    One to one, so that as many given pixels as possible lie in the segment that gets their id
    (Hungarian algorithm). Where a given segment's cells were known, that is the segment under its
    code; where too little was given to fill a cell, the segment that the given pixels lie in. A
    segment under the right code counts half a pixel more.

    Args:
        panoptic: (H, W) integer ids as decoded.
        given: the given part, at the same size.
        codes: id in ``panoptic`` to given id.

    Returns:
        Id in ``panoptic`` to given id.
    """
    labels = given.labels()
    segments = torch.unique(panoptic)
    segments = segments[segments != 0]
    inside = panoptic[given.ids != 0]
    rows = torch.searchsorted(labels, given.ids[given.ids != 0])[inside != 0]
    columns = torch.searchsorted(segments, inside[inside != 0])
    size = len(labels), len(segments)
    pairs = rows * len(segments) + columns
    score = torch.bincount(pairs, minlength=size[0] * size[1]).view(size).double()
    named = torch.tensor([codes.get(i, 0) for i in segments.tolist()], device=panoptic.device)
    score = (score + 0.5 * (labels.view(-1, 1) == named.view(1, -1))).cpu()
    best = zip(*linear_sum_assignment(score.numpy(), maximize=True))
    return {int(segments[c]): int(labels[r]) for r, c in best if score[r, c] > 0}


def _areas(ids: Tensor) -> dict[int, int]:
    """Pixels of every id but void."""
    labels, counts = torch.unique(ids, return_counts=True)
    return {i: n for i, n in zip(labels.tolist(), counts.tolist()) if i != 0}


def _result_ids(panoptic: Tensor, matched: Mapping[int, int], given: set[int]) -> dict[int, int]:
    """Id of the result for each id of a map: given where it is a given one, else a free one."""
    table, free = {}, 0
    for old in torch.unique(panoptic).tolist():
        if old == 0:
            continue
        if old in matched:
            table[old] = matched[old]
            continue
        free += 1
        while free in given:
            free += 1
        table[old] = free
    return table
