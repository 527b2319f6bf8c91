"""Classes by votes and shared ids taken apart, against naive loops and under other names."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maps import blocks, partition, segments_of
from scipy import ndimage

from ldmseg_d2.panoptic import merge_classes, panoptic_to_semantic, split_segments

VOID, CAR, PERSON, ROAD, SKY = range(5)  # channels; the classes are one less
IS_THING = (True, True, False, False)
SEEDS = st.integers(0, 10**6)


def certain(classes):
    """(5, H, W) probabilities of a map of channels."""
    return torch.nn.functional.one_hot(classes.long(), 5).permute(2, 0, 1).float()


def random_case(seed, num_classes=5, num_segments=6, size=(7, 9)):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, num_segments + 1, size, generator=generator, dtype=torch.int32)
    # Votes differ between segments, or one class would win all.
    favour = 2 * torch.randn(num_segments + 1, num_classes + 1, generator=generator)
    noise = 2 * torch.randn(num_classes + 1, *size, generator=generator)
    probs = (favour[ids.long()].permute(2, 0, 1) + noise).softmax(0)
    scores = torch.rand(num_segments, generator=generator).tolist()
    info = [{"id": i, "score": scores[i - 1]} for i in range(1, num_segments + 1)]
    is_thing = (torch.rand(num_classes, generator=generator) < 0.4).tolist()
    return ids, info, probs, is_thing


def naive_merge(ids, info, probs, is_thing, given_classes):
    """The same with masks and loops, from the definition: id to class, mask and score."""
    found, stuff = {}, {}
    for segment in info:
        id_, mask = segment["id"], ids == segment["id"]
        sums = [float(p[mask].double().sum()) for p in probs]
        if id_ in given_classes:
            sums[0] = -1.0
            if given_classes[id_] is not None:
                sums[given_classes[id_] + 1] = float(mask.sum())
        winner = max(range(len(sums)), key=lambda c: sums[c])  # noqa: B023
        if winner == 0 or not mask.any():
            continue
        member = (id_, mask, sums[winner] / int(mask.sum()) * segment["score"])
        if is_thing[winner - 1]:
            found[id_] = (winner - 1, *member[1:])
        else:
            stuff.setdefault(winner - 1, []).append(member)
    for class_, members in stuff.items():
        told = [m for m in members if m[0] in given_classes]
        head = min(told or members, key=lambda m: (-int(m[1].sum()), int(m[1].int().argmax())))
        joined = [head, *(m for m in members if m[0] not in given_classes and m is not head)]
        mask = torch.stack([m[1] for m in joined]).any(0)
        score = sum(m[2] * int(m[1].sum()) for m in joined) / int(mask.sum())
        found[head[0]] = (class_, mask, score)
        found |= {m[0]: (class_, *m[1:]) for m in told if m is not head}
    return found


@settings(max_examples=80)
@given(seed=SEEDS, chosen=st.sets(st.integers(1, 6)), say=st.booleans(),
       names=st.permutations(range(1, 20)), random=st.randoms())  # fmt: skip
def test_merging_equals_a_naive_loop_whatever_the_names(seed, chosen, say, names, random):
    """Also: given segments keep their ids, are never dropped, and new stuff joins them."""
    first, info, probs, is_thing = random_case(seed)
    table = torch.tensor([0, *names], dtype=torch.int32)
    ids, given_ids = table[first.long()], {int(table[i]) for i in chosen}
    named = [{**s, "id": int(table[s["id"]])} for s in info]
    random.shuffle(named)
    classes = {i: i % 5 if say and i % 2 else None for i in chosen}
    given_classes = {int(table[i]): class_ for i, class_ in classes.items()}
    options = {"is_thing": is_thing, "given_classes": given_classes}
    panoptic, segments = merge_classes(ids, named, probs, **options)
    other, _ = merge_classes(first, info, probs, is_thing=is_thing, given_classes=classes)
    assert partition(other) == partition(panoptic)
    expected = naive_merge(ids, named, probs, is_thing, given_classes)
    assert [s["id"] for s in segments] == sorted(expected) and given_ids <= expected.keys()
    for segment in segments:
        class_, mask, score = expected[segment["id"]]
        assert torch.equal(panoptic == segment["id"], mask)
        assert segment["category_id"] == class_ and segment["area"] == int(mask.sum())
        assert segment["isthing"] is bool(is_thing[class_])
        assert segment["score"] == pytest.approx(score)
    assert int((panoptic != 0).sum()) == sum(s["area"] for s in segments)
    semantic = torch.zeros(5, *ids.shape)
    for segment in segments:
        semantic[segment["category_id"]][panoptic == segment["id"]] = segment["score"]
    torch.testing.assert_close(panoptic_to_semantic(panoptic, segments, 5), semantic)


def test_errors_say_what_is_wrong():
    ids, probs = torch.tensor([[1, 6]], dtype=torch.int32), torch.full((5, 1, 2), 0.2)
    one = [{"id": 1, "score": 1.0}]
    with pytest.raises(ValueError, match="'known_classes' names class 4, but the model has .*0..3"):
        merge_classes(ids, one, probs, is_thing=[True] * 4, given_classes={1: 4})
    with pytest.raises(ValueError, match=r"segment ids \[6\], which segments_info does not list"):
        merge_classes(ids, one, probs, is_thing=IS_THING)
    with pytest.raises(ValueError, match=r"\(5, 1, 2\), expected 3 classes"):
        merge_classes(ids, [*one, {"id": 6, "score": 1.0}], probs, is_thing=IS_THING[:3])
    with pytest.raises(ValueError, match=r"distinct ids above 0, got \[1, 1\]"):
        merge_classes(ids, one * 2, probs, is_thing=IS_THING)
    with pytest.raises(ValueError, match="min_area must be at least 1 pixel, got 0"):
        split_segments(ids, one, probs, is_thing=IS_THING, min_area=0)


# Splitting


def naive_split(ids, probs, is_thing, min_area, given):
    """The partition that splitting should give, with scipy's regions."""
    likeliest, parts = probs.argmax(0).numpy(), set()

    def regions(mask):  # 8-connected, in raster order of their first pixel
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        return [labels == k for k in range(1, count + 1)]

    def leave(region):
        parts.add(frozenset(np.flatnonzero(region).tolist()))
        return ~region

    for id_ in set(ids.ravel().tolist()) - {0}:
        mask, held = ids == id_, given == id_
        class_ = int(np.argmax([p.numpy()[mask].astype(float).sum() for p in probs]))
        rest = mask.copy()
        for other in set(range(1, len(probs))) - {class_}:
            for region in regions(mask & (likeliest == other)):
                if region.sum() >= min_area and not (region & held).any():
                    rest &= leave(region)
        if class_ and is_thing[class_ - 1]:
            ordered = sorted(regions(rest), key=lambda r: -r.sum())
            stay = [r for r in ordered if (r & held).any()] or ordered[:1]
            for region in ordered:
                if region.sum() >= min_area and not any(region is one for one in stay):
                    rest &= leave(region)
        if rest.any():
            parts.add(frozenset(np.flatnonzero(rest).tolist()))
    return parts


@settings(max_examples=80)
@given(seed=SEEDS, min_area=st.integers(1, 12), share=st.sampled_from([0.0, 0.02, 0.2]),
       names=st.permutations(range(1, 12)))  # fmt: skip
def test_splitting_equals_scipys_regions_whatever_the_names(seed, min_area, share, names):
    rng, ids = np.random.default_rng(seed), blocks(seed)
    probs = np.kron(rng.random((4, 4, 5)), np.ones((1, 3, 2))) + 0.2 * rng.random((4, 12, 10))
    probs = torch.from_numpy((probs / probs.sum(axis=0)).astype(np.float32))
    is_thing = tuple(rng.random(3) < 0.6)
    given = torch.where(torch.from_numpy(rng.random((12, 10)) < share), ids, 0).long()
    expected = naive_split(ids.numpy(), probs, is_thing, min_area, given.numpy())
    for table in (torch.arange(12), torch.tensor([0, *names])):
        named, told = table[ids.long()].int(), table[given]
        options = {"is_thing": is_thing, "min_area": min_area, "given": told}
        result, segments = split_segments(named, segments_of(named), probs, **options)
        assert partition(result) == expected and segments == segments_of(result)
        assert torch.equal(result[told > 0], named[told > 0])  # what is given keeps its id


def test_new_segments_do_not_take_given_ids_and_stuff_is_not_cut():
    ids = torch.zeros(6, 12, dtype=torch.int32)
    ids[1:4, 1:4] = ids[1:4, 7:10] = 2
    given = torch.zeros(6, 12, dtype=torch.int64)
    given[0, 0], given[0, 1] = 1, 3  # given, and nothing of them in the map
    for channel, expected in ((CAR, [2, 4]), (SKY, [2])):
        probs = certain(torch.where(ids == 2, channel, VOID))
        options = {"is_thing": IS_THING, "min_area": 4, "given": given}
        assert [s["id"] for s in split_segments(ids, segments_of(ids), probs, **options)[1]] == (
            expected
        )
