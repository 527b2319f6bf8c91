"""Shared ids taken apart: scenes by hand, a naive flood fill, what must not change the result."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ldmseg_d2.panoptic import merge_classes, split_segments, split_things

VOID, CAR, PERSON, ROAD, SKY = range(5)
IS_THING = (True, True, False, False)


def certain(classes):
    """(5, H, W) probabilities of a map of classes + 1."""
    return torch.nn.functional.one_hot(classes.long(), 5).permute(2, 0, 1).float()


def split(ids, classes, **options):
    segments = [{"id": i, "score": 1.0} for i in ids.unique().tolist() if i]
    options = {"is_thing": IS_THING, "min_area": 4, **options}
    return split_segments(ids, segments, certain(classes), **options)


def test_two_cars_of_one_id_become_two_segments_and_a_speckle_stays():
    ids = torch.zeros(12, 20, dtype=torch.int32)
    ids[:, :] = 1  # road
    ids[2:6, 2:8] = 5  # a car of 24 px,
    ids[2:5, 12:17] = 5  # another of 15,
    ids[10, 4:7] = 5  # and 3 px
    classes = torch.where(ids == 5, CAR, ROAD)
    result, segments = split(ids, classes)
    assert segments == [{"id": i, "score": 1.0} for i in (1, 2, 5)]  # 2: the smallest free id
    assert (result[2:6, 2:8] == 5).all() and (result[2:5, 12:17] == 2).all()
    assert (result[10, 4:7] == 5).all()
    assert (result[ids == 1] == 1).all() and result.dtype == torch.int32


def test_regions_that_touch_at_a_corner_are_one():
    ids = torch.zeros(4, 4, dtype=torch.int32)
    ids[:2, :2] = ids[2:, 2:] = 3
    result, _ = split(ids, torch.where(ids == 3, CAR, VOID))
    assert torch.equal(result, ids)


def test_a_person_with_the_id_of_the_road_becomes_a_segment():
    ids = torch.full((10, 10), 7, dtype=torch.int32)
    classes = torch.full((10, 10), ROAD)
    classes[2:6, 4:6] = PERSON
    classes[8, 8] = PERSON  # smaller than min_area
    info = [{"id": 7, "score": 0.5, "area": 100}]
    probs = certain(classes)
    result, segments = split_segments(ids, info, probs, is_thing=IS_THING, min_area=4)
    assert segments == [
        {"id": 1, "score": 0.5, "area": 8},
        {"id": 7, "score": 0.5, "area": 92},
    ]
    assert (result[2:6, 4:6] == 1).all() and result[8, 8] == 7
    assert info == [{"id": 7, "score": 0.5, "area": 100}]  # the caller's stays
    _, merged = merge_classes(result, segments, probs, is_thing=IS_THING)
    assert [(s["id"], s["category_id"], s["isthing"]) for s in merged] == [
        (1, PERSON - 1, True),
        (7, ROAD - 1, False),
    ]
    # Without it the road's vote swallows the person.
    _, unsplit = merge_classes(ids, info, probs, is_thing=IS_THING)
    assert [s["category_id"] for s in unsplit] == [ROAD - 1]


def test_stuff_is_not_cut_into_regions():
    ids = torch.zeros(8, 8, dtype=torch.int32)
    ids[:, :3] = ids[:, 5:] = 2
    result, segments = split(ids, torch.where(ids == 2, SKY, VOID))
    assert torch.equal(result, ids) and [s["id"] for s in segments] == [2]


def test_pixels_that_look_void_hold_a_thing_together():
    ids = torch.zeros(4, 12, dtype=torch.int32)
    ids[:, 1:11] = 2
    classes = torch.where(ids == 2, CAR, VOID)
    classes[:, 5:7] = VOID
    result, _ = split(ids, classes)
    assert torch.equal(result, ids)


def test_of_a_given_segment_what_holds_given_pixels_stays():
    """Three cars of one id, of which a user has given pixels of two as one segment."""
    ids = torch.zeros(6, 16, dtype=torch.int32)
    ids[1:4, 1:5] = ids[1:4, 6:9] = ids[1:4, 11:14] = 2
    classes = torch.where(ids == 2, CAR, VOID)
    given = torch.zeros(6, 16, dtype=torch.int64)
    given[2, 7] = given[1, 12] = 2
    result, segments = split(ids, classes, given=given)
    assert [s["id"] for s in segments] == [1, 2]
    assert (result[1:4, 1:5] == 1).all() and torch.equal(result == 2, (ids == 2) & (result != 1))
    # With all of it given, it stays whole, whatever its classes.
    classes[1:4, 6:9] = PERSON
    whole, segments = split(ids, classes, given=ids.long())
    assert torch.equal(whole, ids) and [s["id"] for s in segments] == [2]
    # What looks like another class leaves only where nothing of it is given.
    given[2, 7] = 0
    result, segments = split(ids, classes, given=given)
    assert [s["id"] for s in segments] == [1, 2, 3] and (result[1:4, 11:14] == 2).all()


def test_new_segments_do_not_take_given_ids():
    ids = torch.zeros(6, 12, dtype=torch.int32)
    ids[1:4, 1:4] = ids[1:4, 7:10] = 2
    given = torch.zeros(6, 12, dtype=torch.int64)
    given[0, 0], given[0, 1] = 1, 3  # given, and nothing of them in the map
    _, segments = split(ids, torch.where(ids == 2, CAR, VOID), given=given)
    assert [s["id"] for s in segments] == [2, 4]


def test_a_segment_never_loses_all_its_pixels():
    """Half car, half person, each with a strong second: the road has the largest sum."""
    ids = torch.full((4, 6), 8, dtype=torch.int32)
    probs = torch.zeros(5, 4, 6)
    probs[ROAD] = 0.45
    probs[CAR, :, :2] = probs[PERSON, :, 2:] = 0.55
    info = [{"id": 8, "area": 24}]
    result, segments = split_segments(ids, info, probs, is_thing=IS_THING, min_area=4)
    assert segments == [{"id": 1, "area": 8}, {"id": 8, "area": 16}]
    assert (result[:, :2] == 1).all() and (result[:, 2:] == 8).all()


def test_segments_without_a_pixel_and_empty_maps():
    ids = torch.zeros(4, 4, dtype=torch.int32)
    probs = certain(torch.zeros(4, 4))
    options = {"is_thing": IS_THING, "min_area": 1}
    assert split_segments(ids, [], probs, **options)[1] == []
    result, segments = split_segments(ids, [{"id": 3, "area": 9}], probs, **options)
    assert segments == [{"id": 3, "area": 0}] and not result.any()


def test_bad_input_is_named():
    ids = torch.zeros(4, 4, dtype=torch.int32)
    probs = certain(torch.zeros(4, 4))
    with pytest.raises(ValueError, match="min_area must be at least 1 pixel, got 0"):
        split_segments(ids, [], probs, is_thing=IS_THING, min_area=0)
    with pytest.raises(ValueError, match="expected 3 classes and void"):
        split_segments(ids, [], probs, is_thing=IS_THING[:3], min_area=1)


# An independent implementation, and what must hold for any map


def flood(mask):
    """8-connected regions of a mask as sets of pixels, in raster order of their first pixel."""
    left, regions = {tuple(p) for p in np.argwhere(mask)}, []
    while left:
        stack, region = [min(left)], set()
        while stack:
            y, x = stack.pop()
            if (y, x) in left:
                left.remove((y, x))
                region.add((y, x))
                stack += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        regions.append(region)
    return regions


def naive_partition(ids, probs, *, is_thing, min_area):
    """The partition (a set of sets of pixels) that splitting should give."""
    likeliest, parts = probs.argmax(axis=0), set()
    for id_ in sorted(set(ids.ravel().tolist()) - {0}):
        mask = ids == id_
        class_ = int(np.argmax([probs[c][mask].astype(float).sum() for c in range(len(probs))]))
        rest = {tuple(p) for p in np.argwhere(mask)}
        for other in range(1, len(probs)):
            for region in flood(mask & (likeliest == other)) if other != class_ else ():
                if len(region) >= min_area:
                    parts.add(frozenset(region))
                    rest -= region
        if class_ > 0 and is_thing[class_ - 1]:
            left = np.zeros_like(mask)
            for pixel in rest:
                left[pixel] = True
            large = [r for r in flood(left) if len(r) >= min_area]
            for region in sorted(large, key=lambda r: -len(r))[1:]:
                parts.add(frozenset(region))
                rest -= region
        if rest:
            parts.add(frozenset(rest))
    return parts


def partition(ids):
    return {
        frozenset(tuple(p) for p in np.argwhere(ids.numpy() == i))
        for i in ids.unique().tolist()
        if i
    }


def random_map(seed):
    """Ids in blocks, so that regions have more than a pixel, and probabilities of 3 classes."""
    rng = np.random.default_rng(seed)
    ids = np.kron(rng.choice([0, 2, 3, 9], (4, 5)), np.ones((3, 2))).astype(np.int32)
    probs = np.kron(rng.random((4, 4, 5)), np.ones((1, 3, 2))) + 0.2 * rng.random((4, 12, 10))
    probs = (probs / probs.sum(axis=0)).astype(np.float32)
    is_thing = tuple(rng.random(3) < 0.6)
    return torch.from_numpy(ids), torch.from_numpy(probs), is_thing


def segments_of(ids):
    return [{"id": i, "score": 1.0} for i in ids.unique().tolist() if i]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), min_area=st.integers(1, 12))
def test_equals_a_naive_flood_fill(seed, min_area):
    ids, probs, is_thing = random_map(seed)
    options = {"is_thing": is_thing, "min_area": min_area}
    result, segments = split_segments(ids, segments_of(ids), probs, **options)
    assert partition(result) == naive_partition(ids.numpy(), probs.numpy(), **options)
    assert [s["id"] for s in segments] == sorted(set(result.unique().tolist()) - {0})


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), names=st.permutations(range(1, 12)))
def test_names_of_segments_do_not_matter(seed, names):
    ids, probs, is_thing = random_map(seed)
    options = {"is_thing": is_thing, "min_area": 4}
    table = torch.tensor([0, *names], dtype=torch.int32)
    renamed = table[ids.long()]
    result, _ = split_segments(ids, segments_of(ids), probs, **options)
    other, _ = split_segments(renamed, segments_of(renamed), probs, **options)
    assert partition(result) == partition(other)
    # No pixel appears or is lost, and no two ids are joined.
    assert torch.equal(result == 0, ids == 0)
    assert all(len(ids[result == i].unique()) == 1 for i in result.unique())


def test_splitting_twice_changes_nothing_where_the_classes_are_sure():
    ids, probs, is_thing = random_map(3)
    sure = torch.nn.functional.one_hot(probs.argmax(dim=0), 4).permute(2, 0, 1).float()
    options = {"is_thing": is_thing, "min_area": 1}
    once, segments = split_segments(ids, segments_of(ids), sure, **options)
    twice, _ = split_segments(once, segments, sure, **options)
    assert torch.equal(once, twice)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), min_area=st.integers(1, 12))
def test_splitting_things_is_splitting_by_sure_classes(seed, min_area):
    ids, _, is_thing = random_map(seed)
    classes = {2: 0, 3: 1, 9: 2}
    info = [
        {**s, "category_id": classes[s["id"]], "isthing": is_thing[classes[s["id"]]]}
        for s in segments_of(ids)
    ]
    sure = torch.zeros(4, *ids.shape)
    for segment in info:
        sure[segment["category_id"] + 1][ids == segment["id"]] = 1
    result, segments = split_things(ids, info, min_area=min_area)
    expected = split_segments(ids, info, sure, is_thing=is_thing, min_area=min_area)
    assert torch.equal(result, expected[0]) and segments == expected[1]
    with pytest.raises(ValueError, match="min_area"):
        split_things(ids, info, min_area=0)
