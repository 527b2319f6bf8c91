"""From queries, each with a class and a mask, to a panoptic map (MaskFormer, Mask2Former).

transformers' ``post_process_panoptic_segmentation`` is not used: after a second query of a stuff
class it gives the next segment an id that is taken, it makes no pixel void, and it resizes all
masks to 384 x 384 first.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def queries_to_panoptic(
    class_logits: Tensor,
    mask_logits: Tensor,
    *,
    is_thing: Sequence[bool],
    object_mask_threshold: float = 0.8,
    overlap_threshold: float = 0.8,
    mask_threshold: float = 0.5,
    min_area: int = 0,
) -> tuple[Tensor, list[dict]]:
    """Merge the queries of one picture (MaskFormer, arXiv 2107.06278, section 3.4).

    Args:
        class_logits: (Q, C + 1), "no object" last.
        mask_logits: (Q, H, W) at the size of the result.
        is_thing: of each of the C classes; the others: see ``MODEL.MASK2FORMER.POSTPROCESS``.

    Returns:
        (H, W) int32 map of ids from 1 on, 0 is void; and for each segment ``id``, ``category_id``,
        ``isthing``, ``score`` (the class probability; of merged stuff the largest) and ``area``.
    """
    # 1. Queries of "no object", or unsure of their class, are dropped.
    scores, labels = class_logits.softmax(dim=-1).max(dim=-1)  # [Q]
    kept = (labels != class_logits.shape[-1] - 1) & (scores > object_mask_threshold)
    scores, labels = scores[kept], labels[kept]
    masks = mask_logits[kept].sigmoid()  # [K, H, W]
    panoptic = torch.zeros(mask_logits.shape[-2:], dtype=torch.int32, device=mask_logits.device)
    if len(scores) == 0:
        return panoptic, []
    # 2. A pixel goes to the query with the largest product of class and mask probability.
    winner = (scores.view(-1, 1, 1) * masks).argmax(dim=0)  # [H, W]
    # 3. Who keeps enough of its own mask is a segment; those of one stuff class are one.
    segments: dict[int, dict] = {}
    stuff_ids: dict[int, int] = {}
    for k, (score, label) in enumerate(zip(scores.tolist(), labels.tolist(), strict=True)):
        own = masks[k] >= 0.5
        left = (winner == k) & (masks[k] >= mask_threshold)
        # Pixels that it won with a mask probability below 0.5 are no evidence.
        if int((left & own).sum()) <= overlap_threshold * int(own.sum()):
            continue
        new = len(segments) + 1
        id_ = new if is_thing[label] else stuff_ids.setdefault(label, new)
        panoptic[left] = id_
        segment = segments.setdefault(
            id_, {"id": id_, "category_id": label, "isthing": bool(is_thing[label]), "score": score}
        )
        segment["score"] = max(segment["score"], score)
    # 4. Small segments become void.
    areas = torch.bincount(panoptic.flatten().long(), minlength=len(segments) + 1)
    panoptic[(areas < min_area)[panoptic.long()]] = 0
    for segment in segments.values():
        segment["area"] = int(areas[segment["id"]])
    return panoptic, [s for s in segments.values() if s["area"] >= max(min_area, 1)]


def queries_to_semantic(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """(C, H, W) scores of classes from (Q, C + 1) and (Q, H, W) logits (section 3.4, ibid.).

    The sum over queries of class times mask probability; not negative, but need not sum to 1.
    """
    probabilities = class_logits.softmax(dim=-1)[:, :-1]  # [Q, C]
    return torch.einsum("qc,qhw->chw", probabilities, mask_logits.sigmoid())
