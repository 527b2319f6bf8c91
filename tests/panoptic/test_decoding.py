import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ldmseg_d2.panoptic import logits_to_panoptic, semantic_probabilities, suppress_unconfident_ids


def random_logits(seed, num_ids=7, size=(6, 8)):
    """Each id strong somewhere, so that several of them win."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 6 * torch.randn(1, num_ids, 3, 4, generator=generator)
    noise = 2 * torch.randn(num_ids, *size, generator=generator)
    return F.interpolate(coarse, size=size)[0] + noise


def naive_suppressed(logits, min_score, min_area, keep_ids):
    """The channels that lose, by definition."""
    probabilities, lost = logits.softmax(0), set()
    for k in range(1, len(logits)):
        won = [float(p) for p in probabilities[k][logits.argmax(0) == k]]
        confident = len(won) >= min_area and sum(won) / max(len(won), 1) >= min_score
        if not confident and k not in keep_ids:
            lost.add(k)
    return lost


@given(
    seed=st.integers(0, 10**6),
    min_score=st.floats(0, 1),
    min_area=st.integers(1, 12),
    keep_ids=st.sets(st.integers(1, 6)),
)
def test_ids_that_win_little_or_without_confidence_are_struck_out(
    seed, min_score, min_area, keep_ids
):
    logits = random_logits(seed)
    options = {"min_score": min_score, "min_area": min_area, "keep_ids": keep_ids}
    result = suppress_unconfident_ids(logits, **options)
    lost = naive_suppressed(logits, **options)
    for k in range(7):
        assert torch.equal(result[k], torch.full_like(result[k], -torch.inf)) == (k in lost)
        assert k in lost or torch.equal(result[k], logits[k])


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    mask_threshold=st.floats(0, 1),
    overlap_threshold=st.floats(0, 1),
    count_threshold=st.integers(0, 60),
    min_segment_score=st.sampled_from([0.0, 0.7, 0.95]),
    keep_ids=st.sets(st.integers(1, 6)),
)
def test_panoptic_map_against_the_definition_pixel_by_pixel(
    seed, mask_threshold, overlap_threshold, count_threshold, min_segment_score, keep_ids
):
    logits, size = random_logits(seed), (9, 11)
    panoptic, segments_info = logits_to_panoptic(
        logits, size, mask_threshold=mask_threshold, overlap_threshold=overlap_threshold,
        count_threshold=count_threshold, min_segment_score=min_segment_score,
        min_segment_area=3, keep_ids=keep_ids,
    )  # fmt: skip
    lost = naive_suppressed(logits, min_segment_score, 3, keep_ids) if min_segment_score else ()
    large = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
    own = (large.sigmoid() >= mask_threshold).sum((1, 2))
    large[list(lost)] = -torch.inf
    probabilities = large.softmax(0)
    pixels: dict[int, list] = {}
    for y in range(size[0]):
        for x in range(size[1]):
            best = max(range(7), key=lambda k: probabilities[k, y, x])  # noqa: B023
            if best and probabilities[best, y, x] >= mask_threshold:
                pixels.setdefault(best, []).append((y, x))
    expected, infos = torch.zeros(size, dtype=torch.int32), []
    for k, won in sorted(pixels.items()):
        large_enough = len(won) >= max(count_threshold, overlap_threshold * int(own[k]))
        if not large_enough and k not in keep_ids:
            continue
        for pixel in won:
            expected[pixel] = k + 1
        score = sum(float(probabilities[(k, *pixel)]) for pixel in won) / len(won)
        infos.append({"id": k + 1, "category_id": 0, "isthing": True, "area": len(won)})
        infos[-1]["score"] = pytest.approx(score, abs=1e-5)
    assert torch.equal(panoptic, expected) and panoptic.dtype == torch.int32
    assert segments_info == infos


def test_semantic_probabilities_by_hand():
    # 3 ids and void at 1 x 2; classes have the ids 3 and 1; id 2 takes no part, however likely.
    logits = torch.tensor([[0.0, 0.0], [1.0, 5.0], [99.0, 99.0], [2.0, -2.0]])[:, None]
    result = semantic_probabilities(logits, class_ids=torch.tensor([3, 1]), size=(1, 4))
    # Bilinear, corners not aligned: columns are at 0, 1/4, 3/4 and 1 of the way.
    way = torch.tensor([0.0, 0.25, 0.75, 1.0])
    expected = torch.stack([0 * way, 2 - 4 * way, 1 + 4 * way]).softmax(0)[:, None]
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("name", ["logits", "confident_logits"])
@pytest.mark.parametrize("image", [0, 1])
def test_panoptic_maps_are_the_references(reference, name, image):
    post = reference["metadata"]["post"]
    panoptic, segments_info = logits_to_panoptic(
        reference[name][image],
        tuple(post["original_size"]),
        mask_threshold=post["mask_th"],
        overlap_threshold=post["overlap_th"],
        count_threshold=post["count_th"],
    )
    expected = reference[f"panoptic_{name}_{image}"]
    assert torch.equal(panoptic, expected)
    assert {s["id"] for s in segments_info} == set(expected.unique().tolist()) - {0}
    assert all(s["area"] == int((expected == s["id"]).sum()) for s in segments_info)


@pytest.mark.parametrize("thresholds", [(0.5, 0.9), (0.9, 0.9), (0.9, 0.5), (0.3, 0.5)])
def test_a_segment_is_compared_with_its_own_mask_at_the_same_threshold(thresholds):
    """An edge that fades over many pixels: at 0.5 its mask is 1.4 times as large as at 0.9."""
    mask_threshold, overlap_threshold = thresholds
    ramp = torch.linspace(-8, 8, 64).expand(1, 8, 64)
    panoptic, segments_info = logits_to_panoptic(
        torch.cat([torch.zeros_like(ramp), ramp]), (8, 64), mask_threshold=mask_threshold,
        overlap_threshold=overlap_threshold, count_threshold=1,
    )  # fmt: skip
    # Against void alone, an id's probability is the sigmoid of its logit.
    assert torch.equal(panoptic == 2, ramp[0].sigmoid() >= max(mask_threshold, 0.5))
    assert [s["id"] for s in segments_info] == [2]
