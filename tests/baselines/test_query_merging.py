"""Merging of queries, against a naive loop over pixels."""

import pytest
import torch
from torch.nn import functional as F

from ldmseg_d2.baselines.query_merging import queries_to_panoptic

IS_THING = (True, False, True, False)
THRESHOLDS = ("object_mask_threshold", "overlap_threshold", "mask_threshold", "min_area")


def naive_merge(class_probs, mask_probs, score, overlap, mask_prob, min_area):
    """Pixel by pixel, in plain Python: sets of pixels by (class, number)."""
    best = [(max(p), p.index(max(p))) for p in class_probs.tolist()]
    kept = {q: one for q, one in enumerate(best) if one[1] < len(IS_THING) and one[0] > score}
    masks, pixels = mask_probs.flatten(1).tolist(), range(mask_probs[0].numel())
    winner = [max(kept, key=lambda q: kept[q][0] * masks[q][i]) for i in pixels if kept]
    segments = {}
    for q, (_, label) in kept.items():
        won = {i for i in pixels if winner[i] == q and masks[q][i] >= mask_prob}
        own = {i for i in pixels if masks[q][i] >= 0.5}
        if len(won & own) > overlap * len(own):
            segments.setdefault((label, q if IS_THING[label] else -1), set()).update(won)
    return {(k[0], frozenset(won)) for k, won in segments.items() if len(won) >= max(min_area, 1)}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "thresholds", [(0.3, 0.5, 0.5, 0), (0, 0, 0, 0), (0.3, 0.3, 0.0, 6), (1, 0, 0, 0)]
)
def test_same_as_a_loop_over_pixels(seed, thresholds):
    generator = torch.Generator().manual_seed(seed)
    class_logits = 2 * torch.randn(7, 5, generator=generator)
    coarse = 4 * torch.randn(1, 7, 3, 3, generator=generator)
    masks = F.interpolate(coarse, (9, 11), mode="bilinear")[0]
    options = dict(zip(THRESHOLDS, thresholds))
    panoptic, segments = queries_to_panoptic(class_logits, masks, is_thing=IS_THING, **options)
    found = set()
    for segment in segments:
        pixels = frozenset(torch.nonzero(panoptic.flatten() == segment["id"]).flatten().tolist())
        assert len(pixels) == segment["area"]
        assert segment["isthing"] == IS_THING[segment["category_id"]]
        found.add((segment["category_id"], pixels))
    assert found == naive_merge(class_logits.softmax(-1), masks.sigmoid(), *thresholds)
    assert set(panoptic.unique().tolist()) - {0} == {s["id"] for s in segments}
