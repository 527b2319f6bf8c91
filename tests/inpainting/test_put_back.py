"""Given parts in the result, against the definition pixel by pixel."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ldmseg_d2.inpainting import given_ids_by_overlap, given_ids_by_votes, paste_known
from ldmseg_d2.inpainting.given_parts import KnownParts
from ldmseg_d2.panoptic import logits_to_panoptic

GIVEN = (3, 7, 1000)


def infos_of(ids, score=0.5):
    labels, areas = torch.unique(ids, return_counts=True)
    return [
        {"id": i, "category_id": i % 4, "isthing": True, "score": score, "area": a}
        for i, a in zip(labels.tolist(), areas.tolist())
        if i != 0
    ]


def draw_case(seed, share=0.4):
    """A random result under ids 1..9, of which 2, 4, 6 are made of the given ones."""
    rng = np.random.default_rng(seed)
    panoptic = torch.from_numpy(rng.integers(0, 10, (9, 11)).astype(np.int32))
    mask = torch.from_numpy(rng.random((9, 11)) < share)
    ids = torch.tensor([0, *GIVEN])[torch.from_numpy(rng.integers(0, 4, (9, 11)))] * mask
    return panoptic, KnownParts(ids, mask), dict(zip((2, 4, 6), GIVEN))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1), min_area=st.integers(0, 20))
def test_given_pixels_and_ids_are_kept_and_new_ids_are_others(seed, share, min_area):
    panoptic, known, given_ids = draw_case(seed, share)
    result, infos = paste_known(
        panoptic, infos_of(panoptic), known, given_ids=given_ids, min_area=min_area
    )
    assert torch.equal(result[known.mask].long(), known.ids[known.mask])
    labels, areas = torch.unique(result, return_counts=True)
    assert {s["id"]: s["area"] for s in infos} == {
        i: a for i, a in zip(labels.tolist(), areas.tolist()) if i != 0
    }
    for label in known.labels().tolist():
        assert label in labels
    outside = ~known.mask
    given_ids = {old: new for old, new in given_ids.items() if new in known.labels()}
    for old, label in given_ids.items():
        assert torch.equal((result == label) & outside, (panoptic == old) & outside)
    for old in set(panoptic.unique().tolist()) - {0, *given_ids}:
        new = set(result[(panoptic == old) & outside].tolist())
        assert len(new) <= 1 and not new & set(
            known.labels().tolist()
        )  # one id, perhaps void for its area
        touched = bool(((panoptic == old) & known.mask).any())
        if new == {0}:
            assert touched and int(((panoptic == old) & outside).sum()) < min_area


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(3)))
def test_renaming_what_is_given_renames_the_result(seed, order):
    panoptic, known, given_ids = draw_case(seed)
    names = dict(zip(GIVEN, (GIVEN[i] for i in order)))
    renamed = known.ids.clone().apply_(lambda i: names.get(i, i))
    first, infos = paste_known(panoptic, infos_of(panoptic), known, given_ids=given_ids)
    second, others = paste_known(
        panoptic, infos_of(panoptic), KnownParts(renamed, known.mask),
        given_ids={old: names[new] for old, new in given_ids.items()},
    )  # fmt: skip
    assert torch.equal(first.clone().apply_(lambda i: names.get(i, i)), second)
    as_set = {(names.get(s["id"], s["id"]), s["area"], round(s["score"], 9)) for s in infos}
    assert as_set == {(s["id"], s["area"], round(s["score"], 9)) for s in others}


def test_scores_classes_and_slivers():
    panoptic = torch.zeros(4, 8, dtype=torch.int32)
    panoptic[:, :4], panoptic[:, 4:] = 12, 20
    ids = torch.zeros(4, 8, dtype=torch.int64)
    ids[:2, :4], ids[:, 5:] = 77, 5  # 5 was never decoded, and leaves a sliver of 20
    known = KnownParts(ids, ids != 0)
    infos = infos_of(panoptic, score=0.6)
    result, infos = paste_known(
        panoptic, infos, known, given_ids={12: 77, 99: 5}, min_area=5, known_classes={77: 2},
        is_thing=[True, True, False, True], classify=lambda mask: int(mask.sum()) - 11,
    )  # fmt: skip
    assert result[0].tolist() == [77] * 4 + [0] + [5] * 3
    assert infos == [
        {"id": 5, "category_id": 1, "isthing": True, "score": 1.0, "area": 12},
        {"id": 77, "category_id": 2, "isthing": False, "score": pytest.approx(0.8), "area": 16},
    ]


def test_all_known_and_new_ids_are_the_smallest_free():
    panoptic = torch.tensor([[50, 60, 70, 0]], dtype=torch.int32)
    everything = KnownParts(torch.tensor([[4, 4, 0, 9]]), torch.ones(1, 4, dtype=torch.bool))
    result, infos = paste_known(panoptic, infos_of(panoptic), everything, given_ids={50: 4})
    assert result.tolist() == [[4, 4, 0, 9]]
    assert [s["id"] for s in infos] == [4, 9]
    little = KnownParts(torch.tensor([[2, 0, 0, 0]]), torch.tensor([[True, False, False, False]]))
    result, _ = paste_known(panoptic, infos_of(panoptic), little, given_ids={50: 2})
    assert result.tolist() == [[2, 1, 3, 0]]


def test_overlap_names_what_a_merge_has_joined():
    before = torch.tensor([[5, 5, 8, 8, 8, 1, 9]])
    after = torch.tensor([[1, 1, 1, 1, 1, 1, 0]])  # stuff of one class under the id of a new one
    known = KnownParts(torch.tensor([[5, 0, 8, 0, 0, 0, 9]]), before > 1)
    assert given_ids_by_overlap(after, before, known) == {1: 8}


def test_given_pixels_vote_for_the_segment_that_they_lie_in():
    panoptic = torch.tensor([[11, 11, 11, 12, 12, 12, 0, 13, 14]])
    known = KnownParts(torch.tensor([[5, 5, 5, 0, 6, 7, 7, 0, 0]]), torch.ones(1, 9) > 0)
    # 5 lies in 11 though its code is 12; 6 and 7 both lie in 12 with one pixel, 7 has the code 13.
    found = given_ids_by_votes(panoptic, known, {12: 5, 13: 7})
    assert found == {11: 5, 12: 6, 13: 7}
    nothing = torch.zeros_like(panoptic)
    assert given_ids_by_votes(nothing, known, {12: 5}) == {}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_votes_against_all_assignments(seed):
    panoptic, known, _ = draw_case(seed, share=0.2)
    panoptic = panoptic.clamp(max=4)
    found = given_ids_by_votes(panoptic, known, {})

    def votes(pairs):
        return sum(int(((panoptic == s) & (known.ids == g)).sum()) for s, g in pairs)

    labels = known.labels().tolist()
    best = max(votes(zip(order, labels)) for order in itertools.permutations((1, 2, 3, 4), 3))
    assert votes(found.items()) == best and len(set(found.values())) == len(found)


def test_thresholds_spare_given_segments():
    logits = torch.full((4, 16, 16), -8.0)
    logits[1] = 2.0
    logits[2, :2, :2], logits[3, 8:10, 8:10] = 2.5, 2.5  # small and unconfident
    arguments = {
        "mask_threshold": 0.0, "overlap_threshold": 0.0, "count_threshold": 10,
        "min_segment_score": 0.7, "min_segment_area": 5,
    }  # fmt: skip
    ids = logits_to_panoptic(logits, (16, 16), **arguments)[0]
    assert ids.unique().tolist() == [2]
    ids, infos = logits_to_panoptic(logits, (16, 16), keep_ids=[2], **arguments)
    assert ids.unique().tolist() == [2, 3] and [s["area"] for s in infos] == [252, 4]
