"""Panoptic maps from regions of the semantic map, in which ids only tell things apart."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from ..ids import connected_regions
from .class_votes import check_class_probs, index_segments, merge_classes, smallest_free_id
from .decoding import SegmentsInfo


class _Piece(NamedTuple):
    """Pixels of one class that one id holds together; `id` is 0 where none does."""

    mask: np.ndarray  # (H, W) bool
    id: int


def fuse_regions(
    panoptic: Tensor,
    segments_info: SegmentsInfo,
    class_probs: Tensor,
    *,
    is_thing: Sequence[bool],
    region_area: int,
    part_area: int = 1,
    part_share: float = 0.1,
    split_area: int = 1,
    keep_void: bool = False,
) -> tuple[Tensor, SegmentsInfo]:
    """The semantic map says what a pixel is, the ids which things are apart.

    As Panoptic-DeepLab merges its two maps (arXiv 1911.10194), with ids for its centers. In LDMSeg
    a segment's pixels vote instead (:func:`merge_classes`), and a small thing inside the segment of
    something else is lost.

    1. Every pixel takes its most probable class, void left out unless ``keep_void``. 8-connected
       regions of a class with at least ``region_area`` pixels claim theirs.
    2. A thing's region is cut where ids divide it: an id takes part if it has ``part_area`` pixels
       of the region and ``part_share`` of them. What else is in the region goes to the nearest
       part. With fewer than two parts the region is one piece, of the id that has most of it.
    3. Pieces of a class with one id are one thing, seen in parts: those below ``split_area`` pixels
       join the largest one. Larger ones are things that share an id.
    4. All regions of a stuff class are one segment.
    5. Pixels that nothing claimed go to the nearest segment, but for those of ``keep_void``.

    The partition does not depend on what the ids are. Where no region is large enough, the result
    is that of :func:`merge_classes`.

    Args:
        panoptic: (H, W) int32 segment ids, 0 is void.
        segments_info: for each segment a dict with ``id`` (> 0) and ``score`` in [0, 1].
        class_probs: (C + 1, H, W) probabilities: channel 0 is void, channel c + 1 is class c.
        is_thing: C flags.
        region_area: pixels, at least 1.
        part_area: pixels, at least 1.
        part_share: in [0, 1].
        split_area: pixels; 1 or less: no pieces join.
        keep_void: a pixel where void is most probable is void in the result.

    Returns:
        (H, W) int32 map, without void unless ``keep_void``; and, sorted by id, the segments as
        :func:`merge_classes` gives them. The largest segment that an id holds keeps it. The score
        is the mean probability of the class times the score of that id.

    Raises:
        ValueError: an area is below 1, ``part_share`` is not in [0, 1], the shapes do not fit, or
            ids of the map and of ``segments_info`` differ.
    """
    if region_area < 1 or part_area < 1 or not 0 <= part_share <= 1:
        raise ValueError(
            "region_area and part_area must be at least 1 pixel and part_share in [0, 1], got "
            f"{region_area}, {part_area} and {part_share}"
        )
    check_class_probs(class_probs, len(is_thing), panoptic)
    index_segments(panoptic, segments_info)  # raises where they do not fit
    ids, first = panoptic.cpu().numpy(), 0 if keep_void else 1
    likeliest = class_probs[first:].argmax(dim=0).cpu().numpy() + first - 1  # [H, W], -1 is void
    void = likeliest < 0
    found: list[tuple[int, _Piece]] = []
    for class_ in np.unique(likeliest[~void]).tolist():
        regions = connected_regions(likeliest == class_, region_area)
        if is_thing[class_]:
            cut = [p for region in regions for p in _cut(region, ids, part_area, part_share)]
            pieces = _join(cut, split_area)
        else:
            pieces = [_whole(np.logical_or.reduce(regions), ids)] if regions else []
        found += [(class_, piece) for piece in pieces]
    if not found:
        return merge_classes(panoptic, segments_info, class_probs, is_thing=is_thing)
    found.sort(key=lambda one: _order(one[1].mask))

    index = np.zeros(ids.shape, dtype=np.int64)
    for number, (_, piece) in enumerate(found, start=1):
        index[piece.mask] = number
    index = np.where(void, 0, _fill(index))  # [H, W], 0 is void
    areas = np.bincount(index.ravel(), minlength=len(found) + 1)[1:]
    probs = _probabilities(class_probs, found, index)
    sums = np.bincount(index.ravel(), weights=probs.ravel(), minlength=len(found) + 1)[1:]
    scores = {int(s["id"]): float(s["score"]) for s in segments_info}
    new_ids = _new_ids([piece.id for _, piece in found], set(scores))
    segments = [
        {
            "id": new_id,
            "category_id": class_,
            "isthing": bool(is_thing[class_]),
            "score": min(float(total / area) * scores.get(piece.id, 1.0), 1.0),
            "area": int(area),
        }
        for new_id, (class_, piece), area, total in zip(new_ids, found, areas, sums, strict=True)
    ]
    result = torch.from_numpy(np.array([0, *new_ids], dtype=np.int32)[index]).to(panoptic)
    return result, sorted(segments, key=lambda segment: segment["id"])


def _probabilities(
    class_probs: Tensor, found: Sequence[tuple[int, _Piece]], index: np.ndarray
) -> np.ndarray:
    """(H, W) float64 probability of the class of each pixel's segment, or of void."""
    channels = np.array([0, *(class_ + 1 for class_, _ in found)])[index]
    chosen = torch.from_numpy(channels).to(class_probs.device).unsqueeze(0)
    return class_probs.gather(0, chosen)[0].double().cpu().numpy()


def _new_ids(ids: Sequence[int], taken: set[int]) -> list[int]:
    """The first segment of an id keeps it; others get the smallest that are free."""
    used, kept, new_ids = set(taken), set(), []
    for id_ in ids:
        if id_ == 0 or id_ in kept:
            id_ = smallest_free_id(used)
            used.add(id_)
        kept.add(id_)
        new_ids.append(id_)
    return new_ids


def _cut(region: np.ndarray, ids: np.ndarray, area: int, share: float) -> Iterator[_Piece]:
    """Step 2 for one region of a thing."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    inside, held = region[box], np.where(region[box], ids[box], 0)
    least = max(area, share * np.count_nonzero(inside))
    numbers, counts = np.unique(held[held > 0], return_counts=True)
    parts = numbers[counts >= least].tolist()
    if len(parts) < 2:
        yield _whole(region, ids)
        return
    nearest = _fill(np.where(np.isin(held, parts), held, 0))
    for part in parts:
        mask = np.zeros_like(region)
        mask[box] = inside & (nearest == part)
        yield _Piece(mask, part)


def _whole(mask: np.ndarray, ids: np.ndarray) -> _Piece:
    """A mask with the id that has most of it; of equal ones that with the first pixel."""
    held = ids[mask]
    held = held[held > 0]
    if not held.size:
        return _Piece(mask, 0)
    numbers, first, counts = np.unique(held, return_index=True, return_counts=True)
    return _Piece(mask, int(numbers[np.lexsort((first, -counts))[0]]))


def _join(pieces: Sequence[_Piece], split_area: int) -> list[_Piece]:
    """Step 3 for the pieces of one class."""
    joined: list[_Piece] = []
    largest: dict[int, int] = {}
    for piece in sorted(pieces, key=lambda piece: _order(piece.mask)):
        home = largest.get(piece.id) if piece.id else None
        if home is not None and np.count_nonzero(piece.mask) < split_area:
            joined[home] = _Piece(joined[home].mask | piece.mask, piece.id)
            continue
        largest.setdefault(piece.id, len(joined))
        joined.append(piece)
    return joined


def _order(mask: np.ndarray) -> tuple[int, int]:
    """Largest first, of equal ones that with the first pixel."""
    return -np.count_nonzero(mask), int(mask.argmax())


def _fill(index: np.ndarray) -> np.ndarray:
    """Zeros take the value of the nearest pixel that is none."""
    nearest = distance_transform_edt(index == 0, return_distances=False, return_indices=True)
    return index[tuple(nearest)]
