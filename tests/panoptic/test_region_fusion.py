"""Regions of the semantic map, told apart by ids: by hand, against a naive reading, invariances."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ldmseg_d2.panoptic import fuse_regions, merge_classes

CAR, PERSON, ROAD, SKY = range(1, 5)
IS_THING = (True, True, False, False)


def certain(classes, sure=1.0):
    """(5, H, W) probabilities of a map of classes + 1; the rest goes to void."""
    probs = torch.nn.functional.one_hot(classes.long(), 5).permute(2, 0, 1).float() * sure
    probs[0] += 1 - sure
    return probs


def fuse(ids, probs, **options):
    info = [{"id": i, "score": 0.5} for i in ids.unique().tolist() if i]
    options = {"is_thing": IS_THING, "region_area": 4, "part_area": 4, **options}
    return fuse_regions(ids, info, probs, **options)


def described(segments):
    return {s["id"]: (s["category_id"] + 1, s["area"]) for s in segments}


def test_a_person_inside_the_roads_segment_is_found():
    ids = torch.full((12, 12), 7, dtype=torch.int32)
    classes = torch.full((12, 12), ROAD)
    classes[3:6, 3:5] = PERSON
    classes[9, 9] = PERSON  # a speckle
    result, segments = fuse(ids, certain(classes, 0.8))
    assert result.dtype == torch.int32 and described(segments) == {1: (PERSON, 6), 7: (ROAD, 138)}
    assert (result[3:6, 3:5] == 1).all() and result[9, 9] == 7
    # The speckle counts against the road's score: 0.8 of its 137 pixels and 0 of one; id's 0.5.
    person, road = segments
    assert person["score"] == pytest.approx(0.4) and person["isthing"]
    assert road["score"] == pytest.approx(0.5 * 0.8 * 137 / 138) and not road["isthing"]
    # The paper's vote loses the person.
    _, voted = merge_classes(ids, [{"id": 7, "score": 0.5}], certain(classes), is_thing=IS_THING)
    assert [s["category_id"] + 1 for s in voted] == [ROAD]


def test_ids_cut_a_region_where_they_are_large_enough():
    classes = torch.full((10, 20), ROAD)
    classes[2:8, 2:18] = CAR
    ids = torch.full((10, 20), 3, dtype=torch.int32)
    ids[2:8, 2:9] = 5  # 42 px of the region's 96
    ids[2:8, 9:17] = 9  # 48 px
    ids[2:8, 17] = 6  # 6 px: goes to the part beside it
    result, segments = fuse(ids, certain(classes))
    assert described(segments) == {3: (ROAD, 104), 5: (CAR, 42), 9: (CAR, 54)}
    assert (result[2:8, 17] == 9).all()
    # One of the two is too small, in pixels or in its share: one car, of the larger part's id.
    for options in ({"part_area": 43}, {"part_share": 0.45}):
        _, segments = fuse(ids, certain(classes), **options)
        assert described(segments) == {3: (ROAD, 104), 9: (CAR, 96)}


@pytest.mark.parametrize("split, cars", [(1, 2), (12, 2), (13, 1)])
def test_regions_of_one_id_are_one_thing_unless_they_are_large(split, cars):
    """A car behind a pole, or two cars that share an id."""
    classes = torch.full((8, 20), SKY)
    classes[2:6, 2:8] = CAR
    classes[2:6, 10:13] = CAR  # 12 px
    ids = torch.where(classes == CAR, 4, 8).int()
    result, segments = fuse(ids, certain(classes), split_area=split)
    things = [s for s in segments if s["isthing"]]
    assert len(things) == cars and sum(s["area"] for s in things) == 36
    # The largest keeps the id.
    assert (result[2:6, 2:8] == 4).all() and (result[2:6, 10:13] == (4 if cars == 1 else 1)).all()


def test_stuff_is_one_segment_and_regions_without_an_id_are_apart():
    classes = torch.full((8, 9), SKY)
    classes[4:] = ROAD
    classes[:4, 4] = PERSON
    classes[5:7, 1:3] = classes[5:7, 6:8] = CAR
    ids = torch.zeros(8, 9, dtype=torch.int32)
    _, segments = fuse(ids, certain(classes), split_area=100)
    kinds = sorted((s["category_id"] + 1, s["area"]) for s in segments)
    assert kinds == [(CAR, 4), (CAR, 4), (PERSON, 4), (ROAD, 28), (SKY, 32)]
    assert sorted(s["id"] for s in segments) == [1, 2, 3, 4, 5]
    assert {s["score"] for s in segments} == {1.0}


def test_void_stays_where_it_is_most_probable_and_wanted():
    classes = torch.full((6, 10), ROAD)
    classes[:3, 4:] = 0
    classes[0, 9] = PERSON  # too small: the nearest segment's, although void is all around it
    probs = certain(classes, 0.8)
    probs[CAR, :3, 4:9] = 0.1  # the most probable class there; void has 0.9 or more
    ids = torch.full((6, 10), 3, dtype=torch.int32)
    result, segments = fuse(ids, probs, keep_void=True)
    assert described(segments) == {3: (ROAD, 43)}
    assert torch.equal(result == 0, classes == 0)
    # A pixel of the speckle's has 0 of the road, the id's score is 0.5.
    assert segments[0]["score"] == pytest.approx(0.5 * 0.8 * 42 / 43)
    _, segments = fuse(ids, probs)
    assert described(segments) == {1: (CAR, 18), 3: (ROAD, 42)}


def test_where_nothing_claims_pixels_segments_vote():
    ids = torch.tensor([[1, 1, 2], [1, 1, 2]], dtype=torch.int32)
    classes = torch.tensor([[CAR, CAR, SKY], [CAR, CAR, SKY]])
    expected = merge_classes(
        ids, [{"id": i, "score": 0.5} for i in (1, 2)], certain(classes), is_thing=IS_THING
    )
    result, segments = fuse(ids, certain(classes), region_area=5)
    assert torch.equal(result, expected[0]) and segments == expected[1]


@pytest.mark.parametrize(
    "options", [{"region_area": 0}, {"part_area": 0}, {"part_share": 1.5}, {"part_share": -0.1}]
)
def test_values_without_sense(options):
    ids = torch.ones(4, 4, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"at least 1 pixel and part_share in \[0, 1\]"):
        fuse(ids, certain(torch.full((4, 4), CAR)), **options)


def test_shapes_and_ids_must_fit():
    ids = torch.ones(4, 4, dtype=torch.int32)
    with pytest.raises(ValueError, match="expected 4 classes and void"):
        fuse(ids, certain(torch.full((4, 5), CAR)))
    with pytest.raises(ValueError, match=r"segment ids \[1\]"):
        fuse_regions(ids, [], certain(torch.full((4, 4), CAR)), is_thing=IS_THING, region_area=1)


def flood(mask):
    """8-connected regions by a stack: sets of pixels."""
    left, regions = {tuple(p) for p in np.argwhere(mask)}, []
    while left:
        stack = [left.pop()]
        region = set(stack)
        while stack:
            y, x = stack.pop()
            for other in ((y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
                if other in left:
                    left.remove(other)
                    region.add(other)
                    stack.append(other)
        regions.append(region)
    return regions


def naive_groups(ids, classes, *, region_area, part_area, part_share, split_area):
    """Sets of claimed pixels by class, read off the docstring; parts' remainders left out."""
    groups = []
    for class_ in np.unique(classes[classes > 0]):
        regions = [r for r in flood(classes == class_) if len(r) >= region_area]
        if not regions:
            continue
        if not IS_THING[class_ - 1]:
            groups.append((class_, set().union(*regions)))
            continue
        pieces = []
        for region in regions:
            by_id = {}
            for p in region:
                by_id.setdefault(int(ids[p]), set()).add(p)
            by_id.pop(0, None)
            least = max(part_area, part_share * len(region))
            parts = {i: pixels for i, pixels in by_id.items() if len(pixels) >= least}
            if len(parts) >= 2:
                # A part also gets what is nearest to it of the rest: its size is known up to that.
                rest = len(region) - sum(len(pixels) for pixels in parts.values())
                pieces += [(i, pixels, rest) for i, pixels in parts.items()]
            else:
                first = {i: min(p) for i, p in by_id.items()}
                most = min(by_id, key=lambda i: (-len(by_id[i]), first[i]), default=0)
                pieces.append((most, region, 0))
        groups += [(class_, pixels) for pixels in naive_join(pieces, split_area)]
    return groups


def naive_join(pieces, split_area):
    alone = []
    for number in {i for i, _, _ in pieces}:
        same = [pixels for i, pixels, _ in pieces if i == number]
        biggest = max(same, key=lambda pixels: (len(pixels), [-c for c in min(pixels)]))
        # Which piece joins which is open where a rest may decide it.
        for i, pixels, rest in pieces:
            if i == number and pixels is not biggest and rest and split_area > 1:
                most = len(pixels) + rest
                assume(most < len(biggest) and (most < split_area or len(pixels) >= split_area))
        small = [p for p in same if p is not biggest and len(p) < split_area and number]
        alone.append(biggest.union(*small))
        alone += [p for p in same if p is not biggest and not any(p is q for q in small)]
    return alone


MAPS = st.integers(0, 2**32 - 1)
OPTIONS = st.fixed_dictionaries(
    {
        "region_area": st.integers(1, 8),
        "part_area": st.integers(1, 8),
        "part_share": st.sampled_from([0.0, 0.1, 0.3]),
        "split_area": st.sampled_from([-1, 4, 8, 100]),
    }
)


def blobs(seed, numbers, side=12):
    """A map of rectangles, so that regions are larger than a pixel."""
    rng = np.random.default_rng(seed)
    result = np.full((side, side), rng.choice(numbers))
    for _ in range(8):
        y, x = rng.integers(0, side - 2, 2)
        h, w = rng.integers(1, 7, 2)
        result[y : y + h, x : x + w] = rng.choice(numbers)
    return result


@settings(max_examples=150, deadline=None)
@given(MAPS, OPTIONS, st.booleans())
def test_groups_are_those_of_a_naive_reading(seed, options, keep_void):
    ids, classes = blobs(seed, range(5)), blobs(seed + 1, range(0 if keep_void else 1, 5))
    void = classes == 0
    result, segments = fuse(
        torch.from_numpy(ids).int(),
        certain(torch.from_numpy(classes)),
        keep_void=keep_void,
        **options,
    )
    result, of_id = result.numpy(), {s["id"]: s["category_id"] + 1 for s in segments}
    groups = naive_groups(ids, classes, **options)
    if not groups:
        return
    assert len(groups) == len(segments)
    # Every group lies in one segment of its class, each in another one.
    found = [{int(result[p]) for p in pixels} for _, pixels in groups]
    assert all(len(one) == 1 for one in found) and len(set().union(*found)) == len(groups)
    assert all(of_id[min(one)] == class_ for one, (class_, _) in zip(found, groups, strict=True))
    assert set(np.unique(result[~void])) == set(of_id)  # all that is not void
    assert (result[void] == 0).all()
    assert sum(s["area"] for s in segments) == np.count_nonzero(~void)


@settings(max_examples=100, deadline=None)
@given(MAPS, OPTIONS)
def test_the_partition_does_not_depend_on_what_the_ids_are(seed, options):
    ids, classes = blobs(seed, range(5)), blobs(seed + 1, range(1, 5))
    probs = certain(torch.from_numpy(classes), 0.75)
    first, of_first = fuse(torch.from_numpy(ids).int(), probs, **options)
    order = np.random.default_rng(seed).permutation(np.arange(1, 30))[:4]
    renamed = np.array([0, *order])[ids]
    second, of_second = fuse(torch.from_numpy(renamed).int(), probs, **options)
    pairs = set(zip(first.flatten().tolist(), second.flatten().tolist()))
    assert len(pairs) == len(of_first) == len(of_second)
    classes_of = [{s["id"]: s["category_id"] for s in of} for of in (of_first, of_second)]
    assert all(classes_of[0][a] == classes_of[1][b] for a, b in pairs)


@settings(max_examples=50, deadline=None)
@given(MAPS, st.sampled_from([0.3, 0.99]))
def test_void_takes_no_pixel(seed, sure):
    """Channel 0 is left out, however large it is."""
    ids, classes = torch.from_numpy(blobs(seed, range(5))).int(), blobs(seed + 1, range(1, 5))
    expected, _ = fuse(ids, certain(torch.from_numpy(classes)))
    result, _ = fuse(ids, certain(torch.from_numpy(classes), sure))
    assert torch.equal(result, expected)
