"""Classes for a class-agnostic panoptic map, by votes of pixels; segments that share an id."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from skimage.measure import label
from torch import Tensor

from .decoding import SegmentsInfo


def merge_classes(
    panoptic: Tensor,
    segments_info: SegmentsInfo,
    class_probs: Tensor,
    *,
    is_thing: Sequence[bool],
    given_classes: Mapping[int, int | None] | None = None,
) -> tuple[Tensor, SegmentsInfo]:
    """Give every segment a class and merge the stuff segments of one class.

    A segment's pixels vote with their class probabilities; the class with the largest sum wins, the
    lowest index in a tie. Segments that vote void are dropped. Its score is the winner's share of
    the votes times the incoming score. Things stay apart and keep their ids; stuff segments of one
    class become one, with the id of the largest (of equal ones that with the first pixel) and the
    mean score over its pixels. Neither partition nor classes depend on what the incoming ids are.

    Args:
        panoptic: (H, W) int32 segment ids, 0 is void.
        segments_info: for each segment a dict with ``id`` (> 0) and ``score`` in [0, 1], as
            :func:`logits_to_panoptic` gives it; one without a pixel is left out of the result.
        class_probs: (C + 1, H, W) probabilities: channel 0 is void, channel c + 1 is class c.
        is_thing: C flags.
        given_classes: segments that a user has told apart (inpainting), and their classes where he
            says so: they keep their ids, none of them is dropped, and no two become one. New stuff
            of their class joins the largest of them.

    Returns:
        (H, W) int32 map; and, sorted by id, for each segment a dict with ``id``, ``category_id``
        (contiguous class), ``isthing``, ``score`` and ``area`` in pixels.

    Raises:
        ValueError: if shapes do not fit, ids of the map and of ``segments_info`` differ, or a given
            class is none of the C.
    """
    given = given_classes or {}
    wrong = [c for c in given.values() if c is not None and not 0 <= c < len(is_thing)]
    if wrong:
        raise ValueError(
            f"'known_classes' names class {wrong[0]}, but the model has classes "
            f"0..{len(is_thing) - 1}"
        )
    ids, index = index_segments(panoptic, segments_info)
    votes = vote_classes(class_probs, index, ids, is_thing)  # [C + 1, S + 1]
    areas = torch.bincount(index, minlength=len(ids))
    order = torch.arange(len(index), device=index.device)
    first = order.new_full((len(ids),), len(index)).scatter_reduce(0, index, order, "amin").tolist()
    for id_, class_ in given.items():
        position = ids.index(id_) if id_ in ids else 0
        votes[0, position] = -1
        if class_ is not None and position:
            votes[class_ + 1, position] = areas[position] + 1  # more than any sum
    most, winners = votes.max(dim=0)
    shares = (most / areas.clamp(min=1)).clamp(max=1).tolist()
    scores = {int(s["id"]): float(s["score"]) for s in segments_info}

    # Which segments become one: things and given segments stay apart, stuff goes by its class.
    groups: dict[tuple, SegmentsInfo] = {}
    for id_, area, share, winner in zip(ids, areas.tolist(), shares, winners.tolist()):
        if id_ == 0 or area == 0 or winner == 0:
            continue
        thing = bool(is_thing[winner - 1])
        segment = {"id": id_, "category_id": winner - 1, "isthing": thing}
        segment |= {"score": share * scores[id_], "area": area}
        groups.setdefault(("apart", id_) if thing else ("stuff", winner), []).append(segment)
    for group in [group for key, group in groups.items() if key[0] == "stuff"]:
        # Largest first, for the id, and so that the sum's rounding does not depend on ids.
        group.sort(key=lambda s: (s["id"] not in given, -s["area"], first[ids.index(s["id"])]))
        for segment in [s for s in group[1:] if s["id"] in given]:
            group.remove(segment)
            groups["apart", segment["id"]] = [segment]
    table = torch.zeros(len(ids), dtype=torch.int32, device=panoptic.device)
    segments = []
    for group in groups.values():
        merged = {**group[0], "area": sum(s["area"] for s in group)}
        merged["score"] = sum(s["score"] * s["area"] for s in group) / merged["area"]
        table[[ids.index(s["id"]) for s in group]] = merged["id"]
        segments.append(merged)
    return table[index].view_as(panoptic), sorted(segments, key=lambda s: s["id"])


def vote_classes(
    class_probs: Tensor, index: Tensor, ids: Sequence[int], is_thing: Sequence[bool]
) -> Tensor:
    """Class probabilities (C + 1, H, W) summed over each segment: (C + 1, S + 1) float64.

    Float64: a float32 sum over 10^6 pixels may call a near tie differently for another order.

    Args:
        class_probs: channel 0 is void, channel c + 1 is class c.
        index, ids: of :func:`index_segments`.
        is_thing: C flags.

    Raises:
        ValueError: the shapes do not fit.
    """
    if len(class_probs) != len(is_thing) + 1 or class_probs[0].numel() != index.numel():
        raise ValueError(
            f"class_probs is {tuple(class_probs.shape)}, expected {len(is_thing)} classes and void "
            f"at the map's size, {index.numel()} pixels"
        )
    values = class_probs.flatten(1)
    sums = values.new_zeros(len(values), len(ids), dtype=torch.float64)
    return sums.scatter_add_(1, index.expand_as(values), values.double())


def split_segments(
    panoptic: Tensor,
    segments_info: SegmentsInfo,
    class_probs: Tensor,
    *,
    is_thing: Sequence[bool],
    min_area: int,
    given: Tensor | None = None,
) -> tuple[Tensor, SegmentsInfo]:
    """Take segments apart that got one id: the paper keeps what an id covers together.

    Nothing in a generated map keeps two things from sharing an id. An 8-connected region of
    ``min_area`` pixels leaves a segment where another class than the segment's (the one with the
    largest sum of probabilities) is most probable, or where the segment is a thing and the region
    does not touch its largest one.

    Args:
        panoptic: (H, W) int32 segment ids, 0 is void.
        segments_info: for each segment a dict with ``id`` (> 0).
        class_probs: (C + 1, H, W) probabilities: channel 0 is void, channel c + 1 is class c.
        is_thing: C flags.
        min_area: pixels, at least 1.
        given: (H, W) integers, the ids of pixels that a user has given (inpainting), 0 elsewhere;
            None: nothing is given. What holds given pixels of a segment stays in it.

    Returns:
        (H, W) int32 map; and, sorted by id, the segments. A region that left has a copy of its
        segment's dict with the smallest id that was free. ``area``, where a dict has it, is that of
        the result.

    Raises:
        ValueError: ``min_area`` is below 1, the shapes do not fit, or ids of the map and of
            ``segments_info`` differ.
    """
    if min_area < 1:
        raise ValueError(f"min_area must be at least 1 pixel, got {min_area}")
    ids, index = index_segments(panoptic, segments_info)
    votes = vote_classes(class_probs, index, ids, is_thing).argmax(dim=0).cpu().numpy()
    index = index.view(panoptic.shape).cpu().numpy()  # [H, W] position among ids
    likeliest = class_probs.argmax(dim=0).cpu().numpy()  # [H, W] class + 1, 0 is void
    result = panoptic.cpu().numpy().copy()
    holds = np.zeros_like(result, dtype=bool)
    if given is not None:
        holds = (given.cpu().numpy() == result) & (result > 0)

    # 1. Each pixel's class: its segment's, but in large regions of another, without given pixels.
    home = votes[index]
    classes = np.where((likeliest > 0) & (index > 0), likeliest, home)
    regions, areas, held = _regions(index, classes, holds)
    leaves = (areas >= min_area) & ~held
    classes = np.where(leaves[regions], classes, home)

    # 2. Of the regions that these make, those leave that are of another class or a thing apart.
    regions, areas, held = _regions(index, classes, holds)
    first = np.unique(regions, return_index=True)[1]  # any pixel of a region tells all
    owner, strange = index.flat[first], (classes != home).flat[first]
    things = np.array([False, *is_thing])[votes][owner]
    used = {int(s["id"]) for s in segments_info}
    used |= set(() if given is None else np.unique(given.cpu().numpy()).tolist()) - {0}
    segments = {int(s["id"]): dict(s) for s in segments_info}
    for position, id_ in enumerate(ids[1:], start=1):
        own = np.flatnonzero(owner == position)
        # The largest region stays: of equal ones that with the first pixel, and of the segment's
        # class if any region is.
        own = sorted(own, key=lambda r: (strange[r], -areas[r], first[r]))
        anchored = held[own].any()
        for rank, region in enumerate(own):
            stays = held[region] if anchored else rank == 0
            if stays or areas[region] < min_area or not (strange[region] or things[region]):
                continue
            new_id = smallest_free_id(used)
            used.add(new_id)
            result[regions == region] = new_id
            segments[new_id] = {**segments[id_], "id": new_id}
    sizes = np.bincount(result.ravel(), minlength=max(used, default=0) + 1)
    for segment in segments.values():
        if "area" in segment:
            segment["area"] = int(sizes[segment["id"]])
    return torch.from_numpy(result).to(panoptic), [segments[id_] for id_ in sorted(segments)]


def _regions(
    index: np.ndarray, classes: np.ndarray, holds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The (H, W) number, from 0 on, of each 8-connected region of one segment and class; by
    region its area, and whether it holds a pixel of ``holds``."""
    keys = index * (int(classes.max()) + 1) + classes
    regions = label(keys, background=-1, connectivity=2) - 1
    areas = np.bincount(regions.ravel())
    return regions, areas, np.bincount(regions.ravel(), weights=holds.ravel()) > 0


def panoptic_to_semantic(panoptic: Tensor, segments_info: SegmentsInfo, num_classes: int) -> Tensor:
    """Scores (C, H, W) float32 of the classes: a segment's own score in its class, 0 elsewhere.

    Args:
        panoptic: (H, W) segment ids, 0 is void.
        segments_info: dicts with ``id``, ``category_id`` in 0..C - 1 and ``score``.
        num_classes: C.
    """
    ids, index = index_segments(panoptic, segments_info)
    by_id = {int(s["id"]): s for s in segments_info}
    chosen = [by_id.get(id_, {"category_id": 0, "score": 0.0}) for id_ in ids]
    classes = torch.tensor([s["category_id"] for s in chosen], device=panoptic.device)
    scores = torch.tensor([float(s["score"]) for s in chosen], device=panoptic.device)
    result = scores.new_zeros(num_classes, panoptic.numel())
    result.scatter_(0, classes[index].unsqueeze(0), scores[index].unsqueeze(0))
    return result.view(num_classes, *panoptic.shape)


def index_segments(panoptic: Tensor, segments_info: SegmentsInfo) -> tuple[list[int], Tensor]:
    """Sorted ids with void's 0 in front, and each pixel's (H * W,) position among them."""
    ids = sorted({0, *(int(s["id"]) for s in segments_info)})
    if ids[0] < 0 or len(ids) != len(segments_info) + 1:
        raise ValueError(
            "segments_info needs distinct ids above 0, got "
            f"{sorted(int(s['id']) for s in segments_info)}"
        )
    known = torch.tensor(ids, dtype=panoptic.dtype, device=panoptic.device)
    pixels = panoptic.reshape(-1)
    index = torch.searchsorted(known, pixels).clamp(max=len(ids) - 1)
    strangers = known[index] != pixels
    if strangers.any():
        raise ValueError(
            f"the map has segment ids {torch.unique(pixels[strangers]).tolist()[:10]}, which "
            f"segments_info does not list (it has {ids[1:]})"
        )
    return ids, index


def smallest_free_id(taken: Collection[int]) -> int:
    """The smallest id from 1 on that is not taken."""
    return min(set(range(1, len(taken) + 2)).difference(taken))
