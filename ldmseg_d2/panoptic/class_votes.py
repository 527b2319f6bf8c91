"""Classes for a class-agnostic panoptic map: every segment takes the class that its pixels vote."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .decoding import SegmentsInfo


def semantic_probabilities(
    id_logits: Tensor, *, class_ids: Tensor, size: tuple[int, int]
) -> Tensor:
    """Probabilities of the classes from logits of ids, of which each class has one.

    Args:
        id_logits: (K, h, w) finite logits of the ids; channel 0 is void.
        class_ids: (C,) int64 id (channel) of each class, 1..K - 1.
        size: (H, W) of the result.

    Returns:
        (C + 1, H, W) float32 probabilities that sum to 1: channel 0 is void, channel c + 1 is
        class c. Ids that no class has take no part.
    """
    void = torch.zeros(1, dtype=torch.int64, device=id_logits.device)
    channels = torch.cat([void, class_ids.to(void)])
    resized = F.interpolate(
        id_logits[channels].unsqueeze(0).float(), size=size, mode="bilinear", align_corners=False
    )[0]
    return resized.softmax(dim=0)


def merge_classes(
    panoptic: Tensor,
    segments_info: SegmentsInfo,
    class_probs: Tensor,
    *,
    is_thing: Sequence[bool],
    fill_void: bool = False,
    min_stuff_area: int = 0,
    given_ids: Collection[int] = (),
) -> tuple[Tensor, SegmentsInfo]:
    """Give every segment a class and merge the stuff segments of one class.

    A segment's pixels vote with their class probabilities; the class with the largest sum wins, the
    lowest index in a tie. Segments that vote void are dropped. Its score is the winner's share of
    the votes times the incoming score. Things stay apart; stuff segments of one class become one,
    whose score is the mean over its pixels.

    Neither partition nor classes depend on what the incoming ids are, or on the order of
    ``segments_info``. Ids of the result: a thing keeps its id, merged stuff takes the id of its
    largest member (the smallest such id in a tie), and a segment that ``fill_void`` founds takes
    the smallest id that no incoming segment had.

    Args:
        panoptic: (H, W) int32 segment ids, 0 is void.
        segments_info: for each segment a dict with ``id`` (> 0) and ``score`` in [0, 1], as
            :func:`logits_to_panoptic` gives it; one without a pixel is left out of the result.
        class_probs: (C + 1, H, W) probabilities: channel 0 is void, channel c + 1 is class c.
        is_thing: C flags.
        fill_void: also give pixels that are void after that vote to the stuff class that is their
            most probable one (of all classes and void). They join its segment or found it; there
            their score is their mean probability. An extension: the paper leaves them void.
        min_stuff_area: with ``fill_void``, a class takes pixels only if its segment then has at
            least that many.
        given_ids: segments that a user has told apart (inpainting): none of them is dropped, and
            no two become one. New stuff of their class joins the largest of them.

    Returns:
        (H, W) int32 map; and, sorted by id, for each segment a dict with ``id``, ``category_id``
        (contiguous class), ``isthing``, ``score`` and ``area`` in pixels.

    Raises:
        ValueError: if shapes do not fit, or ids of the map and of ``segments_info`` differ.
    """
    check_class_probs(class_probs, len(is_thing), panoptic)
    ids, index = index_segments(panoptic, segments_info)
    areas = torch.bincount(index, minlength=len(ids))
    votes = sum_by_segment(class_probs.flatten(1), index, len(ids))  # [C + 1, S + 1]
    votes[0, [position for position, id_ in enumerate(ids) if id_ in given_ids]] = -1
    most, winners = votes.max(dim=0)
    shares = (most / areas.clamp(min=1)).tolist()
    scores = {s["id"]: float(s["score"]) for s in segments_info}

    things, stuff = [], {}
    for id_, area, share, winner in zip(ids, areas.tolist(), shares, winners.tolist()):
        if id_ == 0 or area == 0 or winner == 0:
            continue
        segment = _segment(id_, winner - 1, is_thing, share * scores[id_], area)
        if segment["isthing"]:
            things.append((segment, [id_]))
        else:
            stuff.setdefault(winner - 1, []).append(segment)
    for segments in stuff.values():
        given = sorted((s for s in segments if s["id"] in given_ids), key=lambda s: -s["area"])
        for segment in given[1:]:
            segments.remove(segment)
            things.append((segment, [segment["id"]]))  # stays apart, as things do
    merged = {class_: _merge(segments) for class_, segments in stuff.items()}
    new_ids = dict.fromkeys(ids, 0)
    for segment, members in (*things, *merged.values()):
        new_ids.update(dict.fromkeys(members, segment["id"]))
    table = torch.tensor([new_ids[id_] for id_ in ids], dtype=torch.int32, device=panoptic.device)
    result = table[index].view_as(panoptic)
    stuff_segments = {class_: segment for class_, (segment, _) in merged.items()}
    if fill_void:
        _fill_void(
            result,
            stuff_segments,
            class_probs,
            is_thing=is_thing,
            min_area=min_stuff_area,
            taken=set(ids),
        )
    segments = [segment for segment, _ in things] + list(stuff_segments.values())
    return result, sorted(segments, key=lambda segment: segment["id"])


def panoptic_to_semantic(panoptic: Tensor, segments_info: SegmentsInfo, num_classes: int) -> Tensor:
    """Scores of the classes from a panoptic map: at a pixel, its segment's score for its class.

    Args:
        panoptic: (H, W) integer segment ids, 0 is void.
        segments_info: dicts with ``id``, ``category_id`` (contiguous class) and ``score``.
        num_classes: C.

    Returns:
        (C, H, W) float32; all channels are 0 where the map is void.

    Raises:
        ValueError: for a class outside 0..C - 1, and ids that differ from ``segments_info``'s.
    """
    for segment in segments_info:
        if not 0 <= segment["category_id"] < num_classes:
            raise ValueError(
                f"segment {segment['id']} has category_id {segment['category_id']}, expected a "
                f"contiguous class in 0..{num_classes - 1}"
            )
    ids, index = index_segments(panoptic, segments_info)
    by_id = {s["id"]: s for s in segments_info}
    void = {"category_id": 0, "score": 0.0}
    chosen = [by_id.get(id_, void) for id_ in ids]
    classes = torch.tensor([s["category_id"] for s in chosen], device=panoptic.device)
    scores = torch.tensor([float(s["score"]) for s in chosen], device=panoptic.device)
    result = scores.new_zeros(num_classes, panoptic.numel())
    result.scatter_(0, classes[index].unsqueeze(0), scores[index].unsqueeze(0))
    return result.view(num_classes, *panoptic.shape)


def check_class_probs(class_probs: Tensor, num_classes: int, panoptic: Tensor) -> None:
    """Raise ValueError unless the probabilities are (C + 1, H, W) for a map (H, W)."""
    expected = (num_classes + 1, *panoptic.shape)
    if class_probs.shape != expected:
        raise ValueError(
            f"class_probs is {tuple(class_probs.shape)}, expected {num_classes} classes and void "
            f"at the map's size: {expected}"
        )


def smallest_free_id(taken: Collection[int]) -> int:
    """The smallest id from 1 on that is not taken."""
    return min(set(range(1, len(taken) + 2)).difference(taken))


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


def sum_by_segment(values: Tensor, index: Tensor, num_segments: int) -> Tensor:
    """(C, N) values summed over the pixels of each segment: (C, num_segments) float64.

    Float64: a float32 sum over 10^6 pixels may call a near tie differently for another order.
    """
    sums = torch.zeros(len(values), num_segments, dtype=torch.float64, device=values.device)
    return sums.scatter_add_(1, index.expand_as(values), values.double())


def _segment(id_: int, class_: int, is_thing: Sequence[bool], score: float, area: int) -> dict:
    return {
        "id": id_,
        "category_id": class_,
        "isthing": bool(is_thing[class_]),
        "score": min(score, 1.0),  # sums of rounded probabilities may exceed the area by an ulp
        "area": area,
    }


def _merge(segments: SegmentsInfo) -> tuple[dict, list[int]]:
    """One stuff segment of several, and the ids of its members."""
    area = sum(s["area"] for s in segments)
    # Largest first: the sum's rounding must not depend on the incoming ids.
    ordered = sorted(segments, key=lambda s: (-s["area"], s["score"], s["id"]))
    score = sum(s["score"] * s["area"] for s in ordered) / area
    id_ = min(s["id"] for s in segments if s["area"] == ordered[0]["area"])
    return {**segments[0], "id": id_, "score": score, "area": area}, [s["id"] for s in segments]


def _fill_void(
    panoptic: Tensor,
    stuff_segments: dict[int, dict],
    class_probs: Tensor,
    *,
    is_thing: Sequence[bool],
    min_area: int,
    taken: set[int],
) -> None:
    """Hand void pixels to stuff classes; changes the map and the segments by class in place."""
    probability, winner = class_probs.max(dim=0)  # [H, W]
    winner = winner.masked_fill(panoptic != 0, 0)
    areas = torch.bincount(winner.reshape(-1), minlength=len(class_probs)).tolist()
    mass = sum_by_segment(probability.reshape(1, -1), winner.reshape(-1), len(class_probs))[
        0
    ].tolist()
    for class_, thing in enumerate(is_thing):
        new_area = areas[class_ + 1]
        old = stuff_segments.get(class_)
        area = new_area + (old["area"] if old else 0)
        if thing or new_area == 0 or area < min_area:
            continue
        id_ = old["id"] if old else smallest_free_id(taken)
        taken.add(id_)
        score = (mass[class_ + 1] + (old["score"] * old["area"] if old else 0.0)) / area
        stuff_segments[class_] = _segment(id_, class_, is_thing, score, area)
        panoptic.masked_fill_(winner == class_ + 1, id_)
