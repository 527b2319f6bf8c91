"""Depth: numbers by hand, a loop over pixels, closed forms of the alignment, and bad input."""

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ldmseg_d2.evaluation import DepthEvaluator
from ldmseg_d2.evaluation.depth_evaluator import METRICS, align_depth

from .conftest import run_evaluator

SCALE = 256.0


@pytest.fixture
def register_depth(register, tmp_path):
    """Returns a function that registers images with depth (metres; None: without) in order."""

    def _register(depths):
        extra = []
        for index, depth in enumerate(depths):
            record = {}
            if depth is not None:
                path = tmp_path / f"depth_{index}.png"
                Image.fromarray(np.rint(depth * SCALE).astype(np.uint16)).save(path)
                record = {"depth_file_name": str(path)}
            extra.append(record)
        maps = [np.ones((2, 2), np.int64)] * len(depths)
        return register(maps, extra=extra, depth_scale=SCALE)

    return _register


def evaluate(name, predictions, **kwargs):
    outputs = [{"depth": torch.as_tensor(p, dtype=torch.float32)} for p in predictions]
    return run_evaluator(DepthEvaluator(name, **kwargs), name, outputs)["depth"]


def random_depths(seed, num=4):
    """Ground truth in steps of the PNG with a tenth invalid, and predictions beside it."""
    rng = np.random.default_rng(seed)
    depths = np.rint(rng.uniform(0.5, 30, (num, 6, 9)) * SCALE) / SCALE
    depths[rng.random(depths.shape) < 0.1] = 0
    return depths, np.maximum(depths * rng.uniform(0.6, 1.5, depths.shape), 0.3)


def naive_metrics(prediction, depth):
    """The measures of one image with a loop over pixels, from the definitions."""
    pairs = [(float(p), float(d)) for p, d in zip(prediction.flat, depth.flat) if d > 0]
    logs = [math.log(p) - math.log(d) for p, d in pairs]
    mean_log = sum(logs) / len(logs)
    deltas = [sum(max(p / d, d / p) < 1.25**n for p, d in pairs) / len(pairs) for n in (1, 2, 3)]
    return [
        sum(abs(p - d) / d for p, d in pairs) / len(pairs),
        math.sqrt(sum((p - d) ** 2 for p, d in pairs) / len(pairs)),
        *deltas,
        100 * math.sqrt(sum(x * x for x in logs) / len(logs) - mean_log**2),
    ]


@pytest.mark.parametrize("alignment", ["none", "scale_and_shift"])
def test_equals_a_loop_over_pixels(register_depth, alignment):
    depths, predictions = random_depths(0)
    predictions = predictions.astype(np.float32)
    name = register_depth(depths)
    result = evaluate(name, predictions, alignment=alignment)
    expected = []
    for prediction, depth in zip(predictions.astype(float), depths):
        if alignment == "scale_and_shift":
            seen, truth = prediction[depth > 0].tolist(), depth[depth > 0].tolist()
            scale, shift = statistics.linear_regression(seen, truth)
            prediction = np.maximum(scale * prediction + shift, 1e-3)
        expected.append(naive_metrics(prediction, depth))
    np.testing.assert_allclose([result[k] for k in METRICS], np.mean(expected, axis=0), rtol=1e-6)
    assert result["images"] == 4 and 0 < result["delta1"] < 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 50), st.floats(-20, 20))
def test_alignment_undoes_scale_and_shift(seed, scale, shift):
    (depth,), (prediction,) = random_depths(seed, num=1)
    valid = depth > 0
    expected = align_depth(prediction, depth, valid, "scale_and_shift")
    found = align_depth(scale * prediction + shift, depth, valid, "scale_and_shift")
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    exact = align_depth(scale * depth + shift, depth, valid, "scale_and_shift")
    np.testing.assert_allclose(exact[valid], depth[valid], rtol=1e-6)


def test_images_without_depth_are_skipped(register_depth):
    depth = np.full((2, 2), 4.0)
    name = register_depth([depth, 0 * depth, None])
    result = evaluate(name, [depth, depth, depth])
    assert result["images"] == 1 and result["AbsRel"] == 0
    result = run_evaluator(DepthEvaluator(name), name, [])["depth"]
    assert result["images"] == 0 and math.isnan(result["RMSE"])


@pytest.mark.parametrize("alignment", ["none", "scale_and_shift"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_predictions_that_are_not_finite_show(register_depth, alignment, value):
    depth = np.array([[2.0, 3.0, 0.0]])
    name = register_depth([depth, depth])
    # The first is so where there is no ground truth.
    result = evaluate(name, [[[2.0, 3.0, value]], [[2.0, value, 1.0]]], alignment=alignment)
    assert math.isnan(result["AbsRel"]) and result["non_finite_images"] == 1


def test_errors_say_what_is_wrong(register, register_depth):
    depth = np.full((2, 3), 4.0)
    name = register_depth([depth])
    with pytest.raises(ValueError, match=r"'affine'; allowed: none, scale_and_shift"):
        DepthEvaluator(name, alignment="affine")
    with pytest.raises(ValueError, match="no image of .* has depth.*depth_file_name"):
        DepthEvaluator(register([np.ones((2, 2), np.int64)]))
    with pytest.raises(ValueError, match=r"depth of \(3, 2\) for image_id 0, expected \(2, 3\)"):
        evaluate(name, [depth.T])
