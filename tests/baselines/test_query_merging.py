"""Merging of queries, against a naive loop over pixels and against transformers."""

from types import SimpleNamespace

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


def test_same_as_transformers_where_masks_are_clear():
    """Theirs has no mask threshold and resizes to 384 x 384: no difference on clear masks."""
    transformers = pytest.importorskip("transformers")
    masks = torch.full((1, 6, 16, 16), -20.0)
    masks[0, 0, :8] = masks[0, 1, 8:, :8] = masks[0, 2, 8:, 8:] = 20.0
    masks[0, 3, 8:12, :8] = 19.0  # hidden by 1
    masks[0, 4] = masks[0, 5, 2:4, 2:4] = 20.0  # no object; below the threshold
    classes = 9.0 * F.one_hot(torch.tensor([[1, 1, 0, 2, 4, 3]]), 5).float()
    classes[0, 0] -= torch.tensor([0, 1.0, 0, 0, 0])
    classes[0, 5] = 0.1
    theirs = transformers.Mask2FormerImageProcessor().post_process_panoptic_segmentation(
        SimpleNamespace(class_queries_logits=classes, masks_queries_logits=masks),
        label_ids_to_fuse={1, 3},
        target_sizes=[(384, 384)],
    )[0]
    large = F.interpolate(masks, (384, 384), mode="bilinear")[0]
    options = dict(zip(THRESHOLDS, (0.5, 0.8, 0.0, 0)))
    panoptic, segments = queries_to_panoptic(classes[0], large, is_thing=IS_THING, **options)
    assert torch.equal(panoptic, theirs["segmentation"].to(torch.int32))
    # Of fused stuff theirs has one entry a query, the best last here.
    best = {s["id"]: (s["label_id"], s["score"]) for s in theirs["segments_info"]}
    assert {s["id"]: (s["category_id"], round(s["score"], 6)) for s in segments} == best
