"""Depth: numbers by hand, a loop over pixels, closed forms of the alignments, and bad input."""

import json
import logging
import math
import statistics

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ldmseg_d2.evaluation import DepthEvaluator
from ldmseg_d2.evaluation.depth import METRICS, align_depth, depth_metrics

from .conftest import run_evaluator

SCALE = 256.0


@pytest.fixture
def register_depth(register, tmp_path):
    """Returns a function that registers images with depth (metres; None: without) in order."""

    def _register(depths, **metadata):
        extra = []
        for index, depth in enumerate(depths):
            record = {}
            if depth is not None:
                path = tmp_path / f"depth_{index}.png"
                Image.fromarray(np.rint(depth * SCALE).astype(np.uint16)).save(path)
                record = {"depth_file_name": str(path)}
            extra.append(record)
        maps = [np.ones((2, 2), np.int64)] * len(depths)
        return register(maps, extra=extra, **{"depth_scale": SCALE, **metadata})

    return _register


def as_outputs(predictions):
    return [{"depth": torch.as_tensor(p, dtype=torch.float32)} for p in predictions]


def random_depths(seed, num=4):
    """Ground truth in steps of the PNG with a tenth invalid, and predictions beside it."""
    rng = np.random.default_rng(seed)
    depths = np.rint(rng.uniform(0.5, 30, (num, 6, 9)) * SCALE) / SCALE
    depths[rng.random(depths.shape) < 0.1] = 0
    return depths, np.maximum(depths * rng.uniform(0.6, 1.5, depths.shape), 0.3)


def naive_metrics(prediction, depth):
    """The measures of one image with a loop over pixels, from the definitions."""
    pairs = [
        (float(p), float(d)) for p, d in zip(prediction.flat, depth.flat, strict=True) if d > 0
    ]
    logs = [math.log(p) - math.log(d) for p, d in pairs]
    mean_log = sum(logs) / len(logs)
    deltas = [sum(max(p / d, d / p) < 1.25**n for p, d in pairs) / len(pairs) for n in (1, 2, 3)]
    return [
        sum(abs(p - d) / d for p, d in pairs) / len(pairs),
        math.sqrt(sum((p - d) ** 2 for p, d in pairs) / len(pairs)),
        *deltas,
        100 * math.sqrt(sum(x * x for x in logs) / len(logs) - mean_log**2),
    ]


def test_by_hand(register_depth):
    # Image 0, valid: 1, 2 and 4 m against 1.1, 3 and 4 m (the fourth pixel has no ground truth).
    #   AbsRel (0.1 + 0.5 + 0) / 3 = 0.2; RMSE sqrt((0.01 + 1 + 0) / 3);
    #   ratios 1.1, 1.5 and 1: two of them below 1.25, all below 1.5625.
    # Image 1: 10 m against 20 m everywhere: AbsRel 1, RMSE 10, ratio 2: above 1.25^3 = 1.953.
    #   log error log 2 everywhere: SILog 0.
    name = register_depth([np.array([[1.0, 2.0, 4.0, 0.0]]), np.full((1, 4), 10.0)])
    predictions = [[[1.1, 3.0, 4.0, 9.0]], [[20.0] * 4]]
    result = run_evaluator(DepthEvaluator(name), name, as_outputs(predictions))["depth"]
    logs = np.log([1.1, 1.5, 1.0])
    expected = {
        "AbsRel": (0.2 + 1) / 2,
        "RMSE": (math.sqrt(1.01 / 3) + 10) / 2,
        "delta1": (2 / 3 + 0) / 2,
        "delta2": 0.5,
        "delta3": 0.5,
        "SILog": 100 * np.sqrt(np.mean(logs**2) - np.mean(logs) ** 2) / 2,
        "images": 2,
        "non_finite_images": 0,
    }
    assert result == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("alignment", ["none", "scale_and_shift", "median"])
def test_equals_a_loop_over_pixels(register_depth, alignment):
    depths, predictions = random_depths(0)
    predictions = predictions.astype(np.float32)
    name = register_depth(depths)
    evaluator = DepthEvaluator(name, alignment=alignment)
    result = run_evaluator(evaluator, name, as_outputs(predictions))["depth"]
    expected = []
    for prediction, depth in zip(predictions.astype(float), depths):
        seen, truth = prediction[depth > 0].tolist(), depth[depth > 0].tolist()
        if alignment == "median":
            prediction = prediction * statistics.median(truth) / statistics.median(seen)
        elif alignment == "scale_and_shift":
            scale, shift = statistics.linear_regression(seen, truth)
            prediction = np.maximum(scale * prediction + shift, 1e-3)
        expected.append(naive_metrics(prediction, depth))
    np.testing.assert_allclose([result[k] for k in METRICS], np.mean(expected, axis=0), rtol=1e-6)
    assert result["images"] == 4 and 0 < result["delta1"] < 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 50), st.floats(-20, 20))
def test_alignment_undoes_scale_and_shift(seed, scale, shift):
    depths, predictions = random_depths(seed, num=1)
    depth, prediction = depths[0], predictions[0]
    valid = depth > 0
    for alignment, other in (
        ("scale_and_shift", scale * prediction + shift),
        ("median", scale * prediction),
    ):
        expected = align_depth(prediction, depth, valid, alignment)
        np.testing.assert_allclose(
            align_depth(other, depth, valid, alignment), expected, rtol=1e-6, atol=1e-6
        )
    exact = align_depth(scale * depth + shift, depth, valid, "scale_and_shift")
    np.testing.assert_allclose(exact[valid], depth[valid], rtol=1e-6)


def test_a_constant_prediction_becomes_the_mean():
    depth = np.array([[1.0, 3.0, 0.0]])
    aligned = align_depth(np.full((1, 3), 0.5), depth, depth > 0, "scale_and_shift")
    np.testing.assert_allclose(aligned, 2.0)


def test_files_that_are_written(register_depth, tmp_path):
    depths, _ = random_depths(1, num=2)
    name = register_depth(depths)
    folder = tmp_path / "out"
    evaluator = DepthEvaluator(name, str(folder), alignment="scale_and_shift")
    relative = depths / 40 + 0.1  # exactly the ground truth, but for scale and shift
    result = run_evaluator(evaluator, name, as_outputs(relative))["depth"]
    assert result["AbsRel"] < 1e-5 and result["delta1"] == 1
    written = json.loads((folder / "depth.json").read_text())
    assert written["metrics"] == pytest.approx(result) and written["valid_range"] == [1e-3, None]
    for index, image in enumerate(written["images"]):
        assert image["image_id"] == index and image["AbsRel"] < 1e-5
        pixels = np.asarray(Image.open(folder / image["file_name"]))
        valid = depths[index] > 0
        assert pixels.dtype == np.uint16
        np.testing.assert_array_equal(pixels[valid], (depths[index] * SCALE)[valid])


def test_the_range_leaves_ground_truth_out_and_clips_predictions(register_depth):
    name = register_depth([np.array([[1.0, 10.0, 90.0]])])
    evaluator = DepthEvaluator(name, valid_range=(0.5, 20.0))
    result = run_evaluator(evaluator, name, as_outputs([[[-3.0, 99.0, 7.0]]]))["depth"]
    # Of the two valid pixels, -3 counts as 0.5 and 99 as 20.
    expected = depth_metrics(np.array([0.5, 20.0]), np.array([1.0, 10.0]))
    assert result == pytest.approx({**expected, "images": 1, "non_finite_images": 0})
    assert result["AbsRel"] == pytest.approx(0.75)


def test_images_without_depth_are_skipped(register_depth, caplog):
    depth = np.full((2, 2), 4.0)
    name = register_depth([None, depth, 0 * depth])
    outputs = [{}, *as_outputs([depth, depth])]
    result = run_evaluator(DepthEvaluator(name), name, outputs)["depth"]
    assert result["images"] == 1 and result["AbsRel"] == 0
    with caplog.at_level(logging.WARNING):
        result = run_evaluator(DepthEvaluator(name), name, outputs[:1])["depth"]
    assert result["images"] == 0 and math.isnan(result["RMSE"])
    assert "no processed image" in caplog.text


@pytest.mark.parametrize("alignment", ["none", "scale_and_shift", "median"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_predictions_that_are_not_finite_show(register_depth, tmp_path, caplog, alignment, value):
    depth = np.array([[2.0, 3.0, 0.0]])
    name = register_depth([depth, depth])
    outputs = as_outputs([[[2.0, 3.0, value]], [[2.0, value, 1.0]]])  # the first: where invalid
    evaluator = DepthEvaluator(name, str(tmp_path / "out"), alignment=alignment)
    with caplog.at_level(logging.WARNING):
        result = run_evaluator(evaluator, name, outputs)["depth"]
    assert math.isnan(result["AbsRel"]) and result["non_finite_images"] == 1
    assert "image_id 1" in caplog.text
    images = json.loads((tmp_path / "out" / "depth.json").read_text())["images"]
    assert images[0]["AbsRel"] == pytest.approx(0, abs=1e-6) and images[1]["AbsRel"] is None
    assert np.asarray(Image.open(tmp_path / "out" / images[0]["file_name"]))[0, 2] == 0


def test_errors_say_what_is_wrong(register, register_depth):
    depth = np.full((2, 3), 4.0)
    name = register_depth([depth])
    with pytest.raises(ValueError, match=r"'affine'; allowed: none, scale_and_shift, median"):
        DepthEvaluator(name, alignment="affine")
    with pytest.raises(ValueError, match=r"valid_range is \(0, 10\)"):
        DepthEvaluator(name, valid_range=(0, 10))
    without = register([np.ones((2, 2), np.int64)])
    with pytest.raises(ValueError, match="none of the 1 images.*depth_file_name"):
        DepthEvaluator(without)
    with pytest.raises(ValueError, match=r"depth of \(3, 2\) for image_id 0, expected \(2, 3\)"):
        run_evaluator(DepthEvaluator(name), name, as_outputs([depth.T]))
    with pytest.raises(ValueError, match="gave no depth for image_id 0"):
        run_evaluator(DepthEvaluator(name), name, [{}])
    with pytest.raises(ValueError, match="no image_id 'x'"):
        DepthEvaluator(name).process([{"image_id": "x"}], as_outputs([depth]))
    records = [{k: v for k, v in DatasetCatalog.get(name)[0].items() if k != "depth_scale"}]
    with pytest.raises(ValueError, match="has no depth_scale"):
        DepthEvaluator(name, dataset_dicts=records).process(records, as_outputs([depth]))
