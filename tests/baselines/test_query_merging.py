"""Merging of queries, against a naive loop over pixels and against transformers."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from ldmseg_d2.baselines.query_merging import queries_to_panoptic, queries_to_semantic

IS_THING = (True, False, True, False)


def naive_merge(class_logits, mask_logits, *, object_score, overlap, mask_prob, min_area):
    """Pixel by pixel, in plain Python: sets of pixels by (class, number)."""
    num_queries, height, width = mask_logits.shape
    kept = []
    for q in range(num_queries):
        exp = [math.exp(v) for v in class_logits[q].tolist()]
        best = max(range(len(exp)), key=lambda c: exp[c])
        if best < len(exp) - 1 and exp[best] / sum(exp) > object_score:
            kept.append((q, best, exp[best] / sum(exp)))
    won = {q: set() for q, _, _ in kept}
    own = {q: set() for q, _, _ in kept}
    for y in range(height):
        for x in range(width):
            m = {q: 1 / (1 + math.exp(-float(mask_logits[q, y, x]))) for q, _, _ in kept}
            if kept:
                best = max(kept, key=lambda k: k[2] * m[k[0]])[0]
                if m[best] >= mask_prob:
                    won[best].add((y, x))
            for q in own:
                if m[q] >= 0.5:
                    own[q].add((y, x))
    segments = {}
    for q, label, _ in kept:
        if len(won[q] & own[q]) > overlap * len(own[q]):
            key = (label, q if IS_THING[label] else -1)
            segments[key] = segments.get(key, set()) | won[q]
    return {k: pixels for k, pixels in segments.items() if len(pixels) >= max(min_area, 1)}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("thresholds", [(0.3, 0.5, 0.5, 0), (0, 0, 0, 0), (0.3, 0.3, 0.0, 6)])
def test_same_as_a_loop_over_pixels(seed, thresholds):
    generator = torch.Generator().manual_seed(seed)
    class_logits = 2 * torch.randn(7, 5, generator=generator)
    coarse = 4 * torch.randn(1, 7, 3, 3, generator=generator)
    masks = F.interpolate(coarse, (9, 11), mode="bilinear")[0]
    ours = ("object_mask_threshold", "overlap_threshold", "mask_threshold", "min_area")
    panoptic, segments = queries_to_panoptic(
        class_logits, masks, is_thing=IS_THING, **dict(zip(ours, thresholds))
    )
    theirs = ("object_score", "overlap", "mask_prob", "min_area")
    expected = naive_merge(class_logits, masks, **dict(zip(theirs, thresholds)))
    found = set()
    for segment in segments:
        pixels = frozenset(tuple(p) for p in torch.nonzero(panoptic == segment["id"]).tolist())
        assert len(pixels) == segment["area"]
        assert segment["isthing"] == IS_THING[segment["category_id"]]
        found.add((segment["category_id"], pixels))
    assert found == {(label, frozenset(pixels)) for (label, _), pixels in expected.items()}
    assert set(panoptic.unique().tolist()) - {0} == {s["id"] for s in segments}


def test_same_as_transformers_where_masks_are_clear():
    """Theirs has no mask threshold and resizes; on clear masks that makes no difference."""
    transformers = pytest.importorskip("transformers")
    masks = torch.full((1, 6, 16, 16), -20.0)
    masks[0, 0, :8] = masks[0, 1, 8:, :8] = masks[0, 2, 8:, 8:] = 20.0
    masks[0, 3, 8:12, :8] = 19.0  # hidden by 1
    masks[0, 4, :, :] = 20.0  # no object
    masks[0, 5, 2:4, 2:4] = 20.0
    classes = torch.zeros(1, 6, 5)
    for q, label in enumerate((1, 1, 0, 2, 4, 3)):
        classes[0, q, label] = 9.0 - q
    classes[0, 5] = 0.1  # below the threshold
    # transformers resizes to 384 x 384 first; clear masks on an integer factor stay what they are.
    theirs = transformers.Mask2FormerImageProcessor().post_process_panoptic_segmentation(
        SimpleNamespace(class_queries_logits=classes, masks_queries_logits=masks),
        threshold=0.5,
        overlap_mask_area_threshold=0.8,
        label_ids_to_fuse={1, 3},
        target_sizes=[(384, 384)],
    )[0]
    panoptic, segments = queries_to_panoptic(
        classes[0],
        F.interpolate(masks, (384, 384), mode="bilinear")[0],
        is_thing=IS_THING,
        object_mask_threshold=0.5,
        mask_threshold=0.0,
    )
    assert torch.equal(panoptic, theirs["segmentation"].to(torch.int32))
    # Of fused stuff theirs has one entry a query, the best first here.
    best = {}
    for s in theirs["segments_info"]:
        best.setdefault(s["id"], (s["label_id"], pytest.approx(s["score"], abs=1e-5)))
    assert {s["id"]: (s["category_id"], s["score"]) for s in segments} == best and len(best) == 2


def test_nothing_found():
    no_object = torch.zeros(3, 5)
    no_object[:, -1] = 9
    panoptic, segments = queries_to_panoptic(no_object, torch.ones(3, 4, 4), is_thing=IS_THING)
    assert segments == [] and not panoptic.any()
    assert queries_to_semantic(no_object, torch.ones(3, 4, 4)).shape == (4, 4, 4)
