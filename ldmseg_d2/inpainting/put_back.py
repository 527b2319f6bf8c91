"""The given part of a partition in the result: its pixels, ids and classes as they were given."""

from collections.abc import Callable, Mapping, Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..panoptic.decoding import SegmentsInfo
from .given_parts import KnownParts


def paste_known(
    panoptic: Tensor,
    segments_info: SegmentsInfo,
    known: KnownParts,
    *,
    given_ids: Mapping[int, int],
    min_area: int = 0,
    known_classes: Mapping[int, int] | None = None,
    is_thing: Sequence[bool] | None = None,
    classify: Callable[[Tensor], int] | None = None,
) -> tuple[Tensor, SegmentsInfo]:
    """Put the given part back exactly, and its ids.

    1. A segment that the model made of a given one gets its given id, with all that it covers; the
       others get the smallest ids that are not given, in the order of their own.
    2. The given pixels become what they were given as, void included.
    3. A new segment that lost pixels to them becomes void if fewer than ``min_area`` are left.

    Args:
        panoptic: (H, W) integer segment ids, 0 is void.
        segments_info: dicts with ``id``, ``category_id``, ``isthing``, ``score``, ``area``.
        known: the given part, at the same size.
        given_ids: id in ``panoptic`` to given id, for the segments made of a given one: see
            :func:`given_ids_by_votes` and :func:`given_ids_by_overlap`.
        min_area: pixels, at least 1 in effect.
        known_classes: given id to contiguous class, where the user says it.
        is_thing: a flag for each class; None: every segment is a thing.
        classify: contiguous class of a mask (H, W) bool, for given segments that neither the user
            nor ``segments_info`` gives a class; None: class 0.

    Returns:
        (H, W) int32 map; and segments_info sorted by id. The score of a given segment is the mean
        over its pixels, 1 where they are given.
    """
    given = known.labels().tolist()
    known_classes = known_classes or {}
    given_ids = {old: new for old, new in given_ids.items() if new in given}
    table = _new_ids(panoptic, given_ids, set(given))
    old_info = {table[int(s["id"])]: s for s in segments_info if int(s["id"]) in table}
    labels, inverse = torch.unique(panoptic, return_inverse=True)
    renamed = torch.tensor([table.get(i, 0) for i in labels.tolist()], device=panoptic.device)
    before = renamed[inverse]
    ids = known.ids.to(panoptic.device)
    result = torch.where(known.mask.to(panoptic.device), ids, before)

    old_areas, areas = _areas(before), _areas(result)
    own_areas = _areas(ids)
    segments: SegmentsInfo = []
    for id_, area in sorted(areas.items()):
        info = old_info.get(id_, {})
        score = float(info.get("score", 0.0))
        if id_ in given:
            score = (own_areas[id_] + score * (area - own_areas[id_])) / area
        elif area < min_area and area < old_areas[id_]:
            result = torch.where(result == id_, 0, result)
            continue
        category = known_classes.get(id_, info.get("category_id"))
        if category is None:
            category = classify(result == id_) if classify is not None else 0
        thing = bool(is_thing[category]) if is_thing is not None else info.get("isthing", True)
        segment = {"id": id_, "category_id": int(category), "isthing": thing}
        segments.append({**segment, "score": score, "area": area})
    return result.to(torch.int32), segments


def given_ids_by_votes(
    panoptic: Tensor, known: KnownParts, named: Mapping[int, int]
) -> dict[int, int]:
    """Which decoded segment is which given one.

    One to one, so that as many given pixels as possible lie in the segment that gets their id
    (Hungarian algorithm). Where a given segment's cells were known, that is the segment under its
    code; where too little was given to fill a cell, the segment that the given pixels lie in. A
    segment under the right code counts half a pixel more.

    Args:
        panoptic: (H, W) integer ids as decoded.
        known: the given part, at the same size.
        named: id in ``panoptic`` to given id, from the codes.

    Returns:
        Id in ``panoptic`` to given id, for :func:`paste_known`.
    """
    labels = known.labels()
    segments = torch.unique(panoptic)
    segments = segments[segments != 0]
    rows = torch.searchsorted(labels, known.ids[known.ids != 0])
    inside = panoptic[known.ids != 0]
    columns = torch.searchsorted(segments, inside[inside != 0])
    score = torch.zeros(len(labels), len(segments), dtype=torch.float64, device=panoptic.device)
    ones = torch.ones(len(columns), dtype=torch.float64, device=panoptic.device)
    score.index_put_((rows[inside != 0], columns), ones, accumulate=True)
    codes = torch.tensor([named.get(i, 0) for i in segments.tolist()], device=panoptic.device)
    score = (score + 0.5 * (labels.view(-1, 1) == codes.view(1, -1))).cpu()
    pairs = zip(*linear_sum_assignment(score.numpy(), maximize=True))
    return {int(segments[c]): int(labels[r]) for r, c in pairs if score[r, c] > 0}


def given_ids_by_overlap(panoptic: Tensor, before: Tensor, known: KnownParts) -> dict[int, int]:
    """Which segment is which given one, after a step that joined or renamed segments.

    Each given id goes to the segment that holds most of what it covered before that step; where
    several meet in one (stuff of one class, merged), the largest of them names it, the smallest id
    in a tie, and the others keep what was given of them.

    Args:
        panoptic: (H, W) integer ids, after the step.
        before: (H, W) integer ids under which the given ones still have their given ids.
        known: the given part.

    Returns:
        Id in ``panoptic`` to given id, for :func:`paste_known`.
    """
    best: dict[int, tuple[int, int]] = {}
    for given in known.labels().tolist():
        labels, counts = torch.unique(panoptic[before == given], return_counts=True)
        labels, counts = labels[labels != 0], counts[labels != 0]
        if len(labels) == 0:
            continue
        most = int(counts.argmax())
        label, size = int(labels[most]), int(counts[most])
        if label not in best or size > best[label][0]:
            best[label] = (size, given)
    return {label: given for label, (_, given) in best.items()}


def _areas(ids: Tensor) -> dict[int, int]:
    """Pixels of every id but void."""
    labels, counts = torch.unique(ids, return_counts=True)
    return {i: n for i, n in zip(labels.tolist(), counts.tolist()) if i != 0}


def _new_ids(panoptic: Tensor, given_ids: Mapping[int, int], given: set[int]) -> dict[int, int]:
    """Id of the result for each id of a map: given where it is a given one, else a free one."""
    table, free = {}, 0
    for old in torch.unique(panoptic).tolist():
        if old == 0:
            continue
        if old in given_ids:
            table[old] = given_ids[old]
            continue
        free += 1
        while free in given:
            free += 1
        table[old] = free
    return table
