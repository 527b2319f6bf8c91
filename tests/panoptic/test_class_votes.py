"""Classes by majority vote: a scene by hand, a naive loop, and what must not change the result."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ldmseg_d2.evaluation.panoptic_quality import average_quality, compute_stat, encode_id_map
from ldmseg_d2.panoptic import merge_classes, panoptic_to_semantic, semantic_probabilities

CAR, PERSON, ROAD, SKY = range(4)
IS_THING = (True, True, False, False)


def probabilities(void, **classes):
    """Column of void, car, person, road, sky."""
    names = ("car", "person", "road", "sky")
    return torch.tensor([void, *(classes.get(name, 0.0) for name in names)])[:, None, None]


@pytest.fixture
def scene():
    """(ground truth, its segments, class-agnostic map, its segments, class probabilities).

    Ground truth, 60 x 80, by rows: 0-19 sky (1600 px); 20-54 road, with two cars of 20 x 20 on it:
    rows 30-49, columns 10-29 and 40-59 (400 px each; road 2800 - 800 = 2000 px); 55-59 void.
    """
    gt = torch.zeros(60, 80, dtype=torch.int32)
    gt[:20], gt[20:55], gt[30:50, 10:30], gt[30:50, 40:60] = 1, 2, 3, 4
    classes = {1: SKY, 2: ROAD, 3: CAR, 4: CAR}
    gt_info = [{"id": i, "category_id": c, "iscrowd": 0} for i, c in classes.items()]
    for segment in gt_info:
        segment["area"] = int((gt == segment["id"]).sum())

    # What was found: the sky in halves, 5 (left, without a corner of 5 x 10) and 2; the corner, 6;
    # the road above the cars, 7, and the rest of it, 3, down to the last row; the first car, 9, and
    # the second without its last 5 columns, 4. Those columns (100 px) are void.
    ids = torch.zeros(60, 80, dtype=torch.int32)
    ids[:20, :40], ids[:20, 40:], ids[:5, :10] = 5, 2, 6
    ids[20:30], ids[30:], ids[30:50, 10:30], ids[30:50, 40:55], ids[30:50, 55:60] = 7, 3, 9, 4, 0
    areas = {9: 400, 2: 800, 7: 800, 3: 1600, 5: 750, 4: 300, 6: 50}
    confidence = {2: 0.5}
    info = [{"id": i, "score": confidence.get(i, 1.0), "area": a} for i, a in areas.items()]

    probs = torch.zeros(5, 60, 80)
    probs[:, :20] = probabilities(0.1, sky=0.8, road=0.1)
    probs[:, :5, :10] = probabilities(0.6, sky=0.4)
    probs[:, 20:] = probabilities(0.1, road=0.7, car=0.2)
    probs[:, 30:50, 10:30] = probabilities(0.1, car=0.9)
    # The second car's lower half looks like road: counted in pixels, the vote would be a tie.
    probs[:, 30:40, 40:60] = probabilities(0.2, car=0.5, road=0.3)
    probs[:, 40:50, 40:60] = probabilities(0.1, car=0.4, road=0.5)
    return gt, gt_info, ids, info, probs


def quality(folder, gt, gt_info, panoptic, info):
    """PQ, SQ and RQ in percent, by panopticapi, and IoUs of the classes from the semantic map."""
    (folder / "gt.png").write_bytes(encode_id_map(gt.numpy().astype(np.int64)))
    (folder / "pred.png").write_bytes(encode_id_map(panoptic.numpy().astype(np.int64)))
    categories = {c: {"id": c, "isthing": int(t)} for c, t in enumerate(IS_THING)}
    pair = (
        {"image_id": 0, "file_name": "gt.png", "segments_info": gt_info},
        {"image_id": 0, "file_name": "pred.png", "segments_info": [dict(s) for s in info]},
    )
    stat = compute_stat(
        [pair],
        gt_folder=str(folder),
        pred_folder=str(folder),
        categories=categories,
        num_pixels=gt.numel(),
    )
    pred = panoptic_to_semantic(panoptic, info, 4).argmax(dim=0)
    semantic = torch.full_like(pred, 255)
    for segment in gt_info:
        semantic[gt == segment["id"]] = segment["category_id"]
    confusion = torch.zeros(4, 4, dtype=torch.int64)  # rows: ground truth
    for row, column in itertools.product(range(4), range(4)):
        confusion[row, column] = ((semantic == row) & (pred == column)).sum()
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    return average_quality(stat, categories), confusion.diagonal() / union


def test_hand_drawn_scene(scene, tmp_path):
    gt, gt_info, ids, info, probs = scene
    panoptic, segments = merge_classes(ids, info, probs, is_thing=IS_THING)
    # The second car's votes: car 150 x 0.5 + 150 x 0.4 = 135, road 150 x 0.3 + 150 x 0.5 = 120.
    # Sky: shares 0.8 and 0.8, confidences 0.5 (800 px) and 1 (750 px): (320 + 600) / 1550.
    # The corner votes void: dropped. Road: 2400 px of share 0.7.
    expected = [
        {"id": 2, "category_id": SKY, "isthing": False, "score": 920 / 1550, "area": 1550},
        {"id": 3, "category_id": ROAD, "isthing": False, "score": 0.7, "area": 2400},
        {"id": 4, "category_id": CAR, "isthing": True, "score": 135 / 300, "area": 300},
        {"id": 9, "category_id": CAR, "isthing": True, "score": 0.9, "area": 400},
    ]
    assert [{**s, "score": pytest.approx(s["score"])} for s in expected] == segments
    assert panoptic.dtype == torch.int32 and set(panoptic.unique().tolist()) == {0, 2, 3, 4, 9}
    assert (panoptic[:5, :10] == 0).all() and (panoptic == 0).sum() == 150

    # PQ: sky 1550 / 1600; road 1 (what lies on void does not count); cars (1 + 300 / 400) / 2.
    # mIoU: where the map is void, argmax says class 0, car: the corner's 50 px of sky, and the
    # second car's last 100 px. Car 800 / 850, road 1, sky 1550 / 1600; no person.
    panoptic_quality, ious = quality(tmp_path, gt, gt_info, panoptic, segments)
    assert panoptic_quality["PQ"] == pytest.approx(100 * (31 / 32 + 1 + 0.875) / 3)
    torch.testing.assert_close(ious[[CAR, ROAD, SKY]], torch.tensor([16 / 17, 1, 31 / 32]))

    # Filled: of the void pixels, the last columns of the second car's lower half (50 px) are road;
    # its upper half is car, a thing; the corner stays void. Road: 2000 / 2050.
    panoptic, filled = merge_classes(ids, info, probs, is_thing=IS_THING, fill_void=True)
    road = {**expected[1], "area": 2450, "score": pytest.approx((2400 * 0.7 + 50 * 0.5) / 2450)}
    assert filled[1] == road and (panoptic[40:50, 55:60] == 3).all()
    assert [s["area"] for s in filled] == [1550, 2450, 300, 400]
    panoptic_quality, _ = quality(tmp_path, gt, gt_info, panoptic, filled)
    assert panoptic_quality["PQ"] == pytest.approx(100 * (31 / 32 + 2000 / 2050 + 0.875) / 3)


def naive_merge(ids, info, probs, *, is_thing, fill_void, min_stuff_area):
    """The same with masks and loops, from the definition; ids are kept as the docstring says."""
    segments, stuff = {}, {}
    for segment in info:
        mask = ids == segment["id"]
        votes = [float(p[mask].double().sum()) for p in probs]
        winner = max(range(len(votes)), key=lambda c: votes[c])
        if winner == 0 or not mask.any():
            continue
        score = votes[winner] / int(mask.sum()) * segment["score"]
        if is_thing[winner - 1]:
            segments[segment["id"]] = (winner - 1, mask, score)
        else:
            stuff.setdefault(winner - 1, []).append((segment["id"], mask, score))
    named = {}
    for class_, members in stuff.items():
        areas = [int(mask.sum()) for _, mask, _ in members]
        id_ = min(m[0] for m, a in zip(members, areas) if a == max(areas))
        score = sum(m[2] * a for m, a in zip(members, areas)) / sum(areas)
        named[class_] = (id_, torch.stack([m[1] for m in members]).any(0), score)
    void = torch.ones_like(ids, dtype=torch.bool)
    for _, mask, _ in (*segments.values(), *named.values()):
        void &= ~mask
    used = {s["id"] for s in info}
    for class_ in range(len(is_thing) if fill_void else 0):
        new = void & (probs.argmax(0) == class_ + 1)
        id_, old, score = named.get(class_, (None, torch.zeros_like(void), 0.0))
        if is_thing[class_] or not new.any() or (new | old).sum() < min_stuff_area:
            continue
        if id_ is None:
            id_ = next(i for i in itertools.count(1) if i not in used)
            used.add(id_)
        total = score * old.sum() + probs[class_ + 1][new].sum()
        named[class_] = (id_, new | old, float(total / (new | old).sum()))
    for class_, (id_, mask, score) in named.items():
        segments[id_] = (class_, mask, score)
    return segments


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


def check_against_naive(ids, info, probs, **options):
    panoptic, segments = merge_classes(ids, info, probs, **options)
    expected = naive_merge(ids, info, probs, **options)
    assert [s["id"] for s in segments] == sorted(expected)
    for segment in segments:
        class_, mask, score = expected[segment["id"]]
        assert torch.equal(panoptic == segment["id"], mask)
        assert segment["category_id"] == class_ and segment["area"] == int(mask.sum())
        assert segment["isthing"] is bool(options["is_thing"][class_])
        assert segment["score"] == pytest.approx(score)
    assert int((panoptic != 0).sum()) == sum(s["area"] for s in segments)
    return segments


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.integers(0, 12))
def test_equals_a_naive_loop(seed, fill_void, min_stuff_area):
    ids, info, probs, is_thing = random_case(seed)
    check_against_naive(
        ids, info, probs, is_thing=is_thing, fill_void=fill_void, min_stuff_area=min_stuff_area
    )


def test_255_classes():
    # 8 bits: 255 ids for segments, and as many classes.
    ids, info, probs, is_thing = random_case(3, num_classes=255, num_segments=255, size=(64, 64))
    segments = check_against_naive(
        ids, info, probs, is_thing=is_thing, fill_void=True, min_stuff_area=0
    )
    assert max(s["category_id"] for s in segments) > 200 and len(segments) > 100


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.permutations(range(1, 41)), st.randoms())
def test_names_and_order_of_segments_do_not_matter(seed, fill_void, names, random):
    ids, info, probs, is_thing = random_case(seed)
    options = {"is_thing": is_thing, "fill_void": fill_void, "min_stuff_area": 4}
    panoptic, segments = merge_classes(ids, info, probs, **options)
    table = torch.tensor([0, *names], dtype=torch.int32)
    renamed_info = [{**s, "id": int(table[s["id"]])} for s in info]
    random.shuffle(renamed_info)
    other, other_segments = merge_classes(table[ids.long()], renamed_info, probs, **options)

    def regions(panoptic, segments):
        described = [
            ((panoptic == s["id"]).numpy().tobytes(), s["category_id"], s["isthing"], s["area"])
            for s in segments
        ]
        return dict(zip(described, [s["score"] for s in segments]))

    first, second = regions(panoptic, segments), regions(other, other_segments)
    assert first.keys() == second.keys()
    assert all(second[key] == pytest.approx(score) for key, score in first.items())
    # A thing keeps the id that it came with.
    things = {int(table[s["id"]]) for s in segments if s["isthing"]}
    assert things == {s["id"] for s in other_segments if s["isthing"]}


def test_only_void():
    probs = torch.full((5, 3, 4), 0.1)
    probs[0] = 0.6
    empty = torch.zeros(3, 4, dtype=torch.int32)
    for fill_void in (False, True):
        panoptic, segments = merge_classes(empty, [], probs, is_thing=IS_THING, fill_void=fill_void)
        assert segments == [] and not panoptic.any()
    full = torch.ones_like(empty)
    panoptic, segments = merge_classes(full, [{"id": 1, "score": 1.0}], probs, is_thing=IS_THING)
    assert segments == [] and not panoptic.any()
    assert not panoptic_to_semantic(panoptic, segments, 4).any()


def test_an_image_without_things_and_one_pixel_of_a_class():
    ids = torch.zeros(4, 6, dtype=torch.int32)
    ids[:, :3], ids[0, 5], ids[3, 5] = 4, 8, 2
    probs = torch.zeros(5, 4, 6)
    probs[ROAD + 1] = 0.9
    probs[:, 0, 5] = torch.tensor([0.2, 0.0, 0.0, 0.2, 0.6])  # one pixel of sky
    probs[:, 3, 4] = torch.tensor([0.2, 0.0, 0.6, 0.2, 0.0])  # void that looks like a person
    info = [{"id": i, "score": 1.0} for i in (8, 4, 2, 77)]  # 77 has no pixel
    panoptic, segments = merge_classes(ids, info, probs, is_thing=IS_THING)
    assert [(s["id"], s["category_id"], s["area"]) for s in segments] == [
        (4, ROAD, 13),
        (8, SKY, 1),
    ]
    assert segments[1]["score"] == pytest.approx(0.6)
    panoptic, segments = merge_classes(ids, info, probs, is_thing=IS_THING, fill_void=True)
    assert [s["area"] for s in segments] == [22, 1] and panoptic[3, 4] == 0


def test_void_founds_a_segment_with_a_free_id_if_it_is_large_enough():
    ids = torch.zeros(2, 5, dtype=torch.int32)
    ids[:, :2] = 1
    probs = probabilities(0.2, sky=0.8).repeat(1, 2, 5)
    probs[:, :, :2] = probabilities(0.0, car=1.0)
    info = [{"id": 1, "score": 0.5}, {"id": 2, "score": 0.5}]
    options = {"is_thing": IS_THING, "fill_void": True}
    panoptic, segments = merge_classes(ids, info, probs, min_stuff_area=6, **options)
    assert panoptic.tolist() == [[1, 1, 3, 3, 3]] * 2  # 2 was an incoming id
    assert segments[1]["score"] == pytest.approx(0.8) and segments[0]["score"] == 0.5
    panoptic, segments = merge_classes(ids, info, probs, min_stuff_area=7, **options)
    assert panoptic.tolist() == [[1, 1, 0, 0, 0]] * 2 and len(segments) == 1


def test_panoptic_to_semantic_equals_a_loop():
    ids, info, probs, is_thing = random_case(11)
    panoptic, segments = merge_classes(ids, info, probs, is_thing=is_thing)
    semantic = panoptic_to_semantic(panoptic, segments, 5)
    expected = torch.zeros(5, *ids.shape)
    for segment in segments:
        expected[segment["category_id"]][panoptic == segment["id"]] = segment["score"]
    torch.testing.assert_close(semantic, expected)


def test_semantic_probabilities_by_hand():
    # 3 ids and void at 1 x 2; classes have the ids 3 and 1; id 2 takes no part, however likely.
    logits = torch.tensor([[0.0, 0.0], [1.0, 5.0], [99.0, 99.0], [2.0, -2.0]])[:, None]
    result = semantic_probabilities(logits, class_ids=torch.tensor([3, 1]), size=(1, 4))
    # Bilinear, corners not aligned: columns are at 0, 1/4, 3/4 and 1 of the way.
    way = torch.tensor([0.0, 0.25, 0.75, 1.0])
    expected = torch.stack([0 * way, 2 - 4 * way, 1 + 4 * way]).softmax(0)[:, None]
    torch.testing.assert_close(result, expected)


def test_errors_say_what_is_wrong():
    ids = torch.tensor([[1, 6]], dtype=torch.int32)
    probs = torch.full((5, 1, 2), 0.2)
    one = [{"id": 1, "score": 1.0}]
    with pytest.raises(ValueError, match=r"segment ids \[6\], which segments_info does not list"):
        merge_classes(ids, one, probs, is_thing=IS_THING)
    with pytest.raises(ValueError, match=r"\(5, 1, 2\), expected 3 classes.*\(4, 1, 2\)"):
        merge_classes(ids, one, probs, is_thing=IS_THING[:3])
    with pytest.raises(ValueError, match=r"distinct ids above 0, got \[1, 1\]"):
        merge_classes(ids, one * 2, probs, is_thing=IS_THING)
    with pytest.raises(ValueError, match=r"segment 1 has category_id 4.*0\.\.3"):
        panoptic_to_semantic(ids, [{**one[0], "category_id": 4}], 4)


def test_given_segments_stay_apart_and_are_never_dropped():
    """Columns: given 7 and 8, new 1 and 2, all of them sky; given 9, which votes void."""
    ids = torch.tensor([7, 7, 7, 8, 8, 1, 2, 2, 2, 2, 9, 0], dtype=torch.int32).expand(4, 12)
    info = [{"id": i, "score": 1.0} for i in (7, 8, 1, 2, 9)]
    probs = probabilities(0.1, sky=0.9).expand(5, 4, 12).clone()
    probs[:, :, 10] = probabilities(0.8, car=0.05, road=0.15)[:, 0]
    result, segments = merge_classes(ids, info, probs, is_thing=IS_THING, given_ids={7, 8, 9})
    # The new sky and the larger given one are one segment, named by its largest member.
    assert result[0].tolist() == [2, 2, 2, 8, 8, 2, 2, 2, 2, 2, 9, 0]
    assert {s["id"]: (s["category_id"], s["area"]) for s in segments} == {
        2: (SKY, 32), 8: (SKY, 8), 9: (ROAD, 4)
    }  # fmt: skip
    # Without the user's word they are one, and what votes void is dropped.
    result, _ = merge_classes(ids, info, probs, is_thing=IS_THING)
    assert result[0].tolist() == [2] * 10 + [0, 0]
