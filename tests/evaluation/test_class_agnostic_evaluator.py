"""Class-agnostic panoptic quality: by hand, against a slow PQ and against panopticapi."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ldmseg_d2.evaluation import ClassAgnosticPanopticEvaluator, ReconstructionEvaluator
from ldmseg_d2.evaluation.class_agnostic_evaluator import match_segments

from .conftest import as_output, naive_pq, run_evaluator

KEY = "panoptic_class_agnostic"
SMALL_MAPS = hnp.arrays(np.int64, (9, 11), elements=st.integers(0, 5))


def blocks(rng, size=(24, 32), most=8):
    """A map of random rectangles over void."""
    ids = np.zeros(size, np.int64)
    for value in range(1, rng.integers(1, most) + 1):
        y, x = rng.integers(0, size[0] - 4), rng.integers(0, size[1] - 4)
        ids[y : y + rng.integers(4, 16), x : x + rng.integers(4, 20)] = value
    return ids


def evaluate_maps(register, pairs, crowds=None):
    infos = None
    if crowds is not None:
        infos = [
            [
                {"id": int(i), "category_id": 7 + 4 * int(i % 2), "iscrowd": int(i in crowd)}
                for i in np.unique(gt[gt != 0])
            ]
            for (gt, _), crowd in zip(pairs, crowds)
        ]
    name = register([gt for gt, _ in pairs], infos)
    evaluator = ClassAgnosticPanopticEvaluator(name)
    return run_evaluator(evaluator, name, [as_output(pred) for _, pred in pairs])[KEY]


def test_hand_drawn_scene(register):
    # 10 x 10, columns 0-3: segment 1 (40 px); columns 4-6: 2 (30 px); column 7: 3 (10 px);
    #   columns 8-9: void (20 px).
    gt = np.zeros((10, 10), np.int64)
    gt[:, 0:4], gt[:, 4:7], gt[:, 7] = 1, 2, 3
    # Prediction: A is columns 0-2 (30 px): IoU with 1 is 30 / 40 = 0.75, a match.
    #   B is columns 3-7 without the lower half of column 7, and column 8 (void, 10 px):
    #     10 px of 1, 30 px of 2, 5 px of 3, 10 px of void. Void does not count:
    #     IoU with 2 is 30 / (45 + 30 - 30) = 0.667, a match.
    #   C is the lower half of column 7 (5 px): IoU with 3 is 5 / 10 = 0.5, not above 0.5: C is a
    #     false positive and 3 a miss.
    #   D is column 9: all void, ignored.
    pred = np.zeros((10, 10), np.int64)
    pred[:, 0:3], pred[:, 3:9], pred[5:, 7], pred[:, 9] = 70000, 5, 9, 4
    result = evaluate_maps(register, [(gt, pred)])
    assert (result["TP"], result["FP"], result["FN"]) == (2, 1, 1)
    assert result["SQ"] == pytest.approx(100 * (0.75 + 2 / 3) / 2)
    assert result["RQ"] == pytest.approx(100 * 2 / (2 + 0.5 + 0.5))
    assert result["PQ"] == pytest.approx(100 * (0.75 + 2 / 3) / 3)
    # mIoU takes the best matching at any IoU: 3 with C counts 0.5.
    assert result["mIoU"] == pytest.approx(100 * (0.75 + 2 / 3 + 0.5) / 3)
    assert result["segments_per_image"] == 4 and result["gt_segments_per_image"] == 3


def test_equals_a_naive_pq_with_crowds(register, monkeypatch):
    rng = np.random.default_rng(0)
    pairs, crowds = [], []
    for _ in range(40):
        gt = blocks(rng)
        pred = np.where(rng.random(gt.shape) < 0.1, 0, np.roll(gt, rng.integers(0, 5), axis=1))
        pairs.append((gt, pred * 1000 + (pred != 0)))
        crowds.append({int(i) for i in np.unique(gt[gt != 0]) if rng.random() < 0.3})
    result = evaluate_maps(register, pairs, crowds)
    pq, sq, rq, counts = naive_pq([(*pair, crowd) for pair, crowd in zip(pairs, crowds)])
    assert sum(len(c) > 1 for c in crowds) > 3  # several crowds in one image do occur
    assert (result["TP"], result["FP"], result["FN"]) == counts and min(counts) > 5
    found = [result[k] for k in ("PQ", "SQ", "RQ")]
    np.testing.assert_allclose(found, [100 * pq, 100 * sq, 100 * rq])
    # The pool of processes for large data sets counts the same.
    monkeypatch.setattr("ldmseg_d2.evaluation.panoptic_quality._POOL_FROM_PIXELS", 0)
    assert evaluate_maps(register, pairs, crowds) == pytest.approx(result)


def test_only_processed_images_count_and_empty_ones_are_misses(register):
    maps = [np.repeat([[1, 2]], 4, axis=0).repeat(4, axis=1) for _ in range(5)]
    name = register(maps)
    outputs = [as_output(maps[0]), as_output(np.zeros_like(maps[0])), {}]
    result = run_evaluator(ReconstructionEvaluator(name), name, outputs)["reconstruction"]
    assert (result["TP"], result["FP"], result["FN"]) == (2, 0, 4)
    assert result["PQ"] == pytest.approx(100 * 2 / (2 + 0.5 * 4))
    assert result["mIoU"] == pytest.approx(100 * 2 / 6)


def test_no_segments_at_all_gives_zeros(register):
    empty = np.zeros((6, 5), np.int64)
    assert set(evaluate_maps(register, [(empty, empty), (empty, empty)]).values()) == {0}
    name = register([empty])
    assert run_evaluator(ClassAgnosticPanopticEvaluator(name), name, [])[KEY]["PQ"] == 0


def test_detectron2s_maps_without_segments_info(register):
    name = register([np.array([[5, 5, 0], [6, 6, 0]])])
    ids = torch.tensor([[0, 0, -1], [1000, 1000, -1]])  # void is -1
    evaluator = ClassAgnosticPanopticEvaluator(name)
    result = run_evaluator(evaluator, name, [{"panoptic_seg": (ids, None)}])
    assert result[KEY]["PQ"] == 100 and ids[0, 0] == 0


def test_errors_say_what_is_wrong(register):
    gt = np.ones((4, 6), np.int64)
    with pytest.raises(ValueError, match=r"\(6, 4\).*\(4, 6\)"):
        evaluate_maps(register, [(gt, gt.T)])
    with pytest.raises(ValueError, match="16777216"):
        evaluate_maps(register, [(gt, gt * 2**24)])
    DatasetCatalog.register("no_panoptic", lambda: [{"image_id": 3}])
    try:
        with pytest.raises(ValueError, match="pan_seg_file_name"):
            ClassAgnosticPanopticEvaluator("no_panoptic")
    finally:
        DatasetCatalog.remove("no_panoptic")


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(gt=SMALL_MAPS, pred=SMALL_MAPS, seed=st.integers(0, 2**31))
def test_predicted_ids_do_not_matter(register, gt, pred, seed):
    new_ids = np.random.default_rng(seed).choice(2**24 - 1, size=6, replace=False) + 1
    new_ids[0] = 0
    result = evaluate_maps(register, [(gt, pred)])
    assert evaluate_maps(register, [(gt, new_ids[pred])]) == pytest.approx(result)


def test_matching_is_one_to_one():
    # Both segments overlap prediction 9 most; the better sum gives 9 to the left segment.
    gt, pred = np.array([[1, 1, 1, 2]]), np.array([[9, 9, 9, 9]])
    ious, matches = match_segments(gt, pred, 2)
    assert ious.tolist() == [0.75, 0] and matches.tolist() == [9, -1]
    assert match_segments(gt, pred * 0, 2)[1].tolist() == [-1, -1]
    assert match_segments(gt * 0, pred, 0)[0].shape == (0,)
