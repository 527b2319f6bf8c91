"""From queries, each with a class and a mask, to a panoptic map (MaskFormer, Mask2Former)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .decoding import SegmentsInfo
from .segment_splitting import split_things


def queries_to_panoptic(
    class_logits: Tensor,
    mask_logits: Tensor,
    *,
    is_thing: Sequence[bool],
    object_mask_threshold: float = 0.8,
    overlap_threshold: float = 0.8,
    mask_threshold: float = 0.5,
    min_area: int = 0,
    split_area: int = -1,
) -> tuple[Tensor, SegmentsInfo]:
    """Merge the queries of one picture (MaskFormer, arXiv 2107.06278, section 3.4).

    1. Queries whose best class is "no object" or has a probability of at most
       ``object_mask_threshold`` are dropped.
    2. A pixel goes to the query with the largest product of class probability p and mask
       probability m.
    3. A query stays a segment if more than ``overlap_threshold`` of its own mask (m >= 0.5) is left
       to it.
    4. Segments of one stuff class are one.
    5. Where ``split_area`` is above 0, things are taken apart (:func:`split_things`; ours).

    Args:
        class_logits: (Q, C + 1), "no object" last.
        mask_logits: (Q, H, W) at the size of the result.
        is_thing: a flag for each of the C classes.
        object_mask_threshold, overlap_threshold: in [0, 1].
        mask_threshold: pixels whose query has m below it become void, and do not count in step 3.
        min_area: segments with fewer pixels become void.
        split_area: pixels that a region of a thing needs to become a segment.

    Returns:
        (H, W) int32 map of ids from 1 on, 0 is void; and for each segment ``id``, ``category_id``,
        ``isthing``, ``score`` (p; of merged stuff the largest) and ``area`` in pixels.
    """
    scores, labels = class_logits.softmax(dim=-1).max(dim=-1)  # [Q]
    kept = (labels != class_logits.shape[-1] - 1) & (scores > object_mask_threshold)
    scores, labels = scores[kept], labels[kept]
    masks = mask_logits[kept].sigmoid()  # [K, H, W]
    panoptic = torch.zeros(mask_logits.shape[-2:], dtype=torch.int32, device=mask_logits.device)
    if len(scores) == 0:
        return panoptic, []
    winner = (scores.view(-1, 1, 1) * masks).argmax(dim=0)  # [H, W]
    segments: dict[int, dict] = {}
    stuff_ids: dict[int, int] = {}
    next_id = 1
    for k, (score, label) in enumerate(zip(scores.tolist(), labels.tolist(), strict=True)):
        own = masks[k] >= 0.5
        left = (winner == k) & (masks[k] >= mask_threshold)
        # What is left to it of its own mask: pixels that it won with m < 0.5 are no evidence.
        if int((left & own).sum()) <= overlap_threshold * int(own.sum()):
            continue
        id_ = next_id if is_thing[label] else stuff_ids.setdefault(label, next_id)
        panoptic[left] = id_
        if id_ in segments:
            segments[id_]["score"] = max(segments[id_]["score"], score)
            continue
        next_id += 1
        segments[id_] = {"id": id_, "category_id": label, "isthing": bool(is_thing[label])}
        segments[id_]["score"] = score
    panoptic, kept = _with_areas(panoptic, list(segments.values()), min_area)
    return split_things(panoptic, kept, min_area=split_area) if split_area > 0 else (panoptic, kept)


def _with_areas(
    panoptic: Tensor, segments: SegmentsInfo, min_area: int
) -> tuple[Tensor, SegmentsInfo]:
    """Count the pixels of each segment, and drop those with fewer than ``min_area``."""
    areas = torch.bincount(panoptic.flatten().long(), minlength=len(segments) + 1).tolist()
    kept = [{**s, "area": areas[s["id"]]} for s in segments if areas[s["id"]] >= max(min_area, 1)]
    small = set(range(1, len(segments) + 1)) - {s["id"] for s in kept}
    for id_ in small:
        panoptic[panoptic == id_] = 0
    return panoptic, kept


def queries_to_semantic(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Score of each class at each pixel: the sum over queries of p times m (section 3.4, ibid.).

    Args:
        class_logits: (Q, C + 1), "no object" last.
        mask_logits: (Q, H, W).

    Returns:
        (C, H, W), not negative; they need not sum to 1.
    """
    probabilities = class_logits.softmax(dim=-1)[:, :-1]  # [Q, C]
    return torch.einsum("qc,qhw->chw", probabilities, mask_logits.sigmoid())
