"""From logits of ids to a panoptic map (LDMSeg, arXiv 2401.10227, section 3.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

SegmentsInfo = list[dict]


def suppress_unconfident_ids(
    logits: Tensor, *, min_score: float, min_area: int, keep_ids: Sequence[int] = ()
) -> Tensor:
    """Strike out ids that win only speckles or win without confidence.

    Plain argmax over all ids leaves speckles along boundaries. An id stays if the region where it
    wins has at least ``min_area`` pixels and a mean top probability of at least ``min_score``; a
    later argmax then chooses among the ids that stay and void.

    Args:
        logits: (K, h, w) logits of the ids; channel 0 is void, which always stays.
        min_score: least mean probability of the winning region, in [0, 1].
        min_area: least number of pixels of the winning region.
        keep_ids: channels that stay whatever they win, such as given segments in inpainting.

    Returns:
        (K, h, w) logits, -inf in the channels that were struck out.
    """
    top, winner = logits.softmax(dim=0).max(dim=0)  # [h, w]
    num_ids = len(logits)
    area = torch.bincount(winner.reshape(-1), minlength=num_ids)
    mass = torch.bincount(winner.reshape(-1), weights=top.double().reshape(-1), minlength=num_ids)
    keep = (area >= min_area) & (mass / area.clamp(min=1) >= min_score)
    keep[[0, *keep_ids]] = True
    return logits.masked_fill(~keep.view(-1, 1, 1), float("-inf"))


def logits_to_panoptic(
    logits: Tensor,
    size: tuple[int, int],
    *,
    mask_threshold: float = 0.5,
    overlap_threshold: float = 0.5,
    count_threshold: int = 512,
    min_segment_score: float = 0.0,
    min_segment_area: int = 8,
    keep_ids: Sequence[int] = (),
) -> tuple[Tensor, SegmentsInfo]:
    """Turn logits of ids into a panoptic map of the wanted size.

    1. (where ``min_segment_score`` > 0) unconfident ids are struck out;
    2. logits are resized bilinearly, every pixel takes its most probable id;
    3. a pixel whose probability is below ``mask_threshold`` becomes void;
    4. an id stays a segment if it wins at least ``count_threshold`` pixels, and they are at least
       ``overlap_threshold`` of its own mask (sigmoid >= ``mask_threshold``).

    Args:
        logits: (K, h, w) logits of the ids; channel 0 is void.
        size: (H, W) of the result.
        mask_threshold, overlap_threshold: in [0, 1].
        count_threshold: pixels of the result.
        min_segment_score: in [0, 1], 0 turns step 1 off.
        min_segment_area: pixels at the logits' own size, for step 1.
        keep_ids: channels that steps 1 and 4 spare, such as given segments in inpainting.

    Returns:
        (H, W) int32 map of segment ids from 1 on (channel + 1), 0 is void; and for each segment a
        dict with ``id``, ``category_id`` 0, ``isthing`` True, ``score`` (mean probability of its
        pixels) and ``area`` in pixels.
    """
    if min_segment_score > 0:
        logits = suppress_unconfident_ids(
            logits, min_score=min_segment_score, min_area=min_segment_area, keep_ids=keep_ids
        )
    # Struck-out channels are dropped before the resize: it is cheaper, and -inf would spread.
    channels = torch.nonzero(torch.isfinite(logits).all(dim=(1, 2)))[:, 0]
    resized = F.interpolate(
        logits[channels].unsqueeze(0).float(), size=size, mode="bilinear", align_corners=False
    )[0]  # [K', H, W]
    probability, winner = resized.softmax(dim=0).max(dim=0)  # [H, W]
    confident = probability >= mask_threshold

    panoptic = torch.zeros(size, dtype=torch.int32, device=logits.device)
    segments_info: SegmentsInfo = []
    for index in torch.unique(winner[confident]).tolist():
        channel = int(channels[index])
        if channel == 0:
            continue
        mask = (winner == index) & confident
        area = int(mask.sum())
        own_area = int((resized[index].sigmoid() >= mask_threshold).sum())
        small = area < count_threshold or area < overlap_threshold * own_area
        if small and channel not in keep_ids:
            continue
        panoptic[mask] = channel + 1
        segments_info.append(
            {
                "id": channel + 1,
                "category_id": 0,
                "isthing": True,
                "score": float(probability[mask].mean()),
                "area": area,
            }
        )
    return panoptic, segments_info


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
