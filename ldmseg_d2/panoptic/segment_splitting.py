"""Segments that share an id are taken apart: by class, and by connected regions."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..ids import connected_regions
from .class_votes import check_class_probs, index_segments, smallest_free_id, sum_by_segment
from .decoding import SegmentsInfo


def split_segments(
    panoptic: Tensor,
    segments_info: SegmentsInfo,
    class_probs: Tensor,
    *,
    is_thing: Sequence[bool],
    min_area: int,
    given: Tensor | None = None,
) -> tuple[Tensor, SegmentsInfo]:
    """Take segments apart that got one id. The paper keeps what an id covers together.

    Nothing in a generated map keeps two things from sharing an id, and small ones take that of
    what is beside them. For every segment:

    1. its class is the one with the largest sum of probabilities (:func:`merge_classes`);
    2. 8-connected regions of its pixels whose most probable class is another one leave it;
    3. if its class is a thing, all 8-connected regions of what remains but the largest (of equal
       ones the one with the first pixel in raster order) leave it.

    Where all of it would leave, the largest region stays.

    Only regions of at least ``min_area`` pixels leave; what is smaller stays, as do pixels whose
    most probable class is void. A thing that others hide in parts is cut by step 3: where such
    parts are common and large, splitting costs more than it brings.

    Args:
        panoptic: (H, W) int32 segment ids, 0 is void.
        segments_info: for each segment a dict with ``id`` (> 0).
        class_probs: (C + 1, H, W) probabilities: channel 0 is void, channel c + 1 is class c.
        is_thing: C flags.
        min_area: pixels, at least 1.
        given: (H, W) integers, the ids of pixels that a user has given (inpainting), 0 elsewhere;
            None: nothing is given. Of a given segment, regions with given pixels stay together, and
            all others leave: the user has told what it is, the network where it goes on.

    Returns:
        (H, W) int32 map; and, sorted by id, the segments. A region that left has a copy of its
        segment's dict with the smallest id that was free. ``area``, where a dict has it, is that of
        the result.

    Raises:
        ValueError: ``min_area`` is below 1, the shapes do not fit, or ids of the map and of
            ``segments_info`` differ.
    """
    _check_area(min_area)
    check_class_probs(class_probs, len(is_thing), panoptic)
    ids, index = index_segments(panoptic, segments_info)
    votes = sum_by_segment(class_probs.flatten(1), index, len(ids))  # [C + 1, S + 1]
    classes = dict(zip(ids, votes.argmax(dim=0).tolist(), strict=True))  # 0: void
    likeliest = class_probs.argmax(dim=0).cpu().numpy()
    given_map = np.zeros(panoptic.shape, int) if given is None else given.cpu().numpy()

    def leaving(mask: np.ndarray, segment: dict) -> Iterable[np.ndarray]:
        class_ = classes[segment["id"]]
        thing = class_ > 0 and bool(is_thing[class_ - 1])
        stays = mask & (given_map == segment["id"])
        return _leaving_regions(mask, likeliest, class_, thing, min_area, stays)

    taken = set(np.unique(given_map).tolist()) - {0}
    return _split(panoptic, segments_info, leaving, taken=taken)


def split_things(
    panoptic: Tensor, segments_info: SegmentsInfo, *, min_area: int
) -> tuple[Tensor, SegmentsInfo]:
    """Step 3 of :func:`split_segments` for a map that has classes: regions of a thing leave it.

    Args:
        panoptic: (H, W) int32 segment ids, 0 is void.
        segments_info: for each segment a dict with ``id`` (> 0) and ``isthing``.
        min_area: pixels, at least 1.

    Returns:
        As :func:`split_segments`.

    Raises:
        ValueError: ``min_area`` is below 1.
    """
    _check_area(min_area)

    def leaving(mask: np.ndarray, segment: dict) -> Iterable[np.ndarray]:
        return _regions(mask, min_area)[1:] if segment["isthing"] else ()

    return _split(panoptic, segments_info, leaving)


def _check_area(min_area: int) -> None:
    if min_area < 1:
        raise ValueError(f"min_area must be at least 1 pixel, got {min_area}")


def _split(
    panoptic: Tensor,
    segments_info: SegmentsInfo,
    leaving: Callable[[np.ndarray, dict], Iterable[np.ndarray]],
    *,
    taken: Collection[int] = (),
) -> tuple[Tensor, SegmentsInfo]:
    """Make segments of the regions that leave one.

    Args:
        panoptic, segments_info: as in :func:`split_segments`.
        leaving: gives the regions that leave a segment, from its (H, W) bool mask and its dict.
        taken: ids that no region may get, beside those of the segments.
    """
    ids = panoptic.cpu().numpy()
    result = ids.copy()
    used = {int(s["id"]) for s in segments_info} | set(taken)
    segments: SegmentsInfo = []
    for segment in sorted(segments_info, key=lambda s: s["id"]):
        mask = ids == segment["id"]
        segments.append(dict(segment))
        regions = list(leaving(mask, segment)) if mask.any() else []
        if sum(map(np.count_nonzero, regions)) == np.count_nonzero(mask):
            # Its class is no pixel's most probable one: the largest region keeps the id.
            regions = sorted(regions, key=np.count_nonzero, reverse=True)[1:]
        for region in regions:
            new_id = smallest_free_id(used)
            used.add(new_id)
            result[region] = new_id
            segments.append({**segment, "id": new_id})
    areas = np.bincount(result.ravel(), minlength=max(used, default=0) + 1)
    for segment in segments:
        if "area" in segment:
            segment["area"] = int(areas[segment["id"]])
    split = torch.from_numpy(result).to(panoptic)
    return split, sorted(segments, key=lambda segment: segment["id"])


def _leaving_regions(
    mask: np.ndarray,
    likeliest: np.ndarray,
    class_: int,
    thing: bool,
    min_area: int,
    stays: np.ndarray,
) -> Iterator[np.ndarray]:
    """(H, W) bool masks of the regions that leave a segment, see :func:`split_segments`.

    Args:
        mask: (H, W) bool, of the segment.
        likeliest: (H, W) most probable class + 1 of each pixel, 0 is void.
        class_: of the segment, in the same numbers.
        thing: whether that is a thing.
        min_area: pixels.
        stays: (H, W) bool, pixels of it that are given.
    """
    remaining = mask.copy()
    inside = likeliest[mask]
    for other in np.unique(inside[(inside > 0) & (inside != class_)]).tolist():
        for region in _regions(mask & (likeliest == other), min_area):
            if not stays[region].any():
                remaining &= ~region
                yield region
    if thing:
        regions = _regions(remaining, min_area)
        free = [region for region in regions if not stays[region].any()]
        yield from free if stays.any() else free[1:]


def _regions(mask: np.ndarray, min_area: int) -> list[np.ndarray]:
    """8-connected regions as masks, the largest first, of equal ones that with the first pixel."""
    regions = connected_regions(mask, min_area)
    return sorted(regions, key=lambda region: (-np.count_nonzero(region), region.argmax()))
