"""Numbers of the inpainting study against a slow PQ, and the study with a model of one line."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ldmseg_d2.evaluation.calibration import Calibration, calibration_table, wrong_pixels
from ldmseg_d2.evaluation.inpainting import (
    Hints,
    Picture,
    draw_hints,
    evaluate_completion,
    partition_quality,
)
from ldmseg_d2.evaluation.inpainting_baselines import nearest_fill
from ldmseg_d2.evaluation.inpainting_study import InpaintingStudy, split_method
from ldmseg_d2.meta_arch.inpainting import InpaintingOptions

from .conftest import naive_pq


def picture(index=0, size=24, crowd=False):
    rng = np.random.default_rng(index)
    truth = np.kron(rng.integers(0, 6, (3, 3)), np.ones((8, 8), dtype=int))[:size, :size]
    truth = np.unique(truth, return_inverse=True)[1].reshape(truth.shape)
    truth += int(truth.min() == 1)
    photo = (truth[..., None] * 40 + rng.integers(0, 9, (size, size, 3))).astype(np.uint8)
    image = torch.from_numpy(photo).permute(2, 0, 1)
    inputs = {"image": image, "image_id": index, "height": size, "width": size}
    return Picture(inputs, photo, truth, int(truth.max()) - crowd)


def hints_of(one, known):
    names = np.concatenate([[0], np.arange(one.num_segments) + 100])
    return Hints(known, np.where(known, names[np.minimum(one.truth, one.num_segments)], 0), names)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), crowd=st.booleans())
def test_numbers_against_the_definition(seed, crowd):
    rng = np.random.default_rng(seed)
    pictures, hints, predictions, whole, part = [], [], [], [], []
    right = asked = 0
    for index in range(3):
        one = picture(10 * seed + index, crowd=crowd)
        known = rng.random(one.truth.shape) < 0.3
        known[:, :6] = True
        hint = hints_of(one, known & (one.truth <= one.num_segments))
        ids = np.where(rng.random(known.shape) < 0.8, hint.names[
            np.minimum(one.truth, one.num_segments)], rng.integers(0, 3, known.shape))  # fmt: skip
        crowds = {one.num_segments + 1}
        whole.append((one.truth, ids, crowds))
        dropped = ~hint.known
        part.append((one.truth * dropped, ids * dropped, crowds))
        for label in range(1, one.num_segments + 1):
            mask = one.truth == label
            if (mask & hint.known).any():
                asked += (mask & dropped).sum()
                right += (ids[mask & dropped] == hint.names[label]).sum()
        pictures.append(one), hints.append(hint), predictions.append(ids)
    found = evaluate_completion(pictures, hints, predictions)
    assert found["PQ"] == pytest.approx(100 * naive_pq(whole)[0])
    assert found["RQ"] == pytest.approx(100 * naive_pq(whole)[2])
    assert found["dropped_PQ"] == pytest.approx(100 * naive_pq(part)[0])
    assert found["given_ids"] == pytest.approx(100 * right / max(asked, 1))


def test_a_perfect_completion_has_100_everywhere():
    pictures = [picture(i) for i in range(3)]
    hints = [draw_hints(one, "block", 0.5, 0, block_size=8) for one in pictures]
    perfect = [hint.names[one.truth] for one, hint in zip(pictures, hints)]
    numbers = evaluate_completion(pictures, hints, perfect)
    dropped = numbers.pop("dropped")
    assert set(numbers.values()) == {100.0}
    assert dropped == pytest.approx(100 * 4 / 9)  # round(4.5) of 9 blocks
    assert partition_quality([]) == {"PQ": 0, "SQ": 0, "RQ": 0, "mIoU": 0}


def test_hints_keep_their_names_and_leave_out_crowds():
    one = picture(3, crowd=True)
    few, many = (draw_hints(one, "points", drop, 5) for drop in (0.9, 0.2))
    assert np.array_equal(few.names, many.names) and len(set(few.names)) == one.num_segments + 1
    assert not many.known[one.truth > one.num_segments].any()
    assert np.array_equal(many.ids[many.known], many.names[one.truth[many.known]])
    assert not many.ids[~many.known].any()
    other = draw_hints(one, "points", 0.2, 6)
    assert not np.array_equal(other.names, many.names)


class HalfNearest(nn.Module):
    """Completes with the nearest id; without hints, two halves and noise that the seed draws."""

    def __init__(self):
        super().__init__()
        self.inpainting = InpaintingOptions()
        self.calls = 0

    def forward(self, batched_inputs):
        outputs = []
        for entry in batched_inputs:
            self.calls += 1
            ids = torch.ones(entry["height"], entry["width"], dtype=torch.int64)
            ids[:, entry["width"] // 2 :] = 2
            generator = torch.Generator().manual_seed(entry.get("seed", 0))
            ids[torch.rand(ids.shape, generator=generator) < 0.2] = 0
            if "known_ids" in entry and self.inpainting.method == "fixed":
                filled = nearest_fill(entry["known_ids"].numpy(), entry["known_mask"].numpy())
                ids = torch.from_numpy(filled)
            outputs.append({"panoptic_seg": (ids.int(), [])})
        return outputs


RUN = {
    "config_file": "c.yaml", "weights": "w", "dataset": "d", "pictures": 4, "seed": 0,
    "model_seed": 0, "block_size": 8, "opts": [], "thresholds": {"COUNT_THRESHOLD": 4},
    "sampler": {"NAME": "DDPM", "NUM_INFERENCE_STEPS": 2}, "device": "cpu",
    "versions": {"torch": "2"}, "command": "evaluate",
}  # fmt: skip


def study(tmp_path, run=RUN, **kwargs):
    pictures = [picture(i) for i in range(4)]
    return InpaintingStudy(
        HalfNearest(), pictures, output=str(tmp_path), run=run, block_size=8, batch_size=3, **kwargs
    )


def test_study_writes_a_table_and_goes_on_where_it_stopped(tmp_path):
    first = study(tmp_path)
    arguments = {"patterns": ["block", "points"], "drops": [0.4], "baselines": ["nearest"]}
    first.evaluate(methods=["fixed"], **arguments)
    assert [r["method"] for r in first.results] == ["nearest", "fixed"] * 2
    for baseline, model in (first.results[:2], first.results[2:]):
        for key in ("PQ", "dropped_PQ", "dropped_mIoU", "given_ids"):
            assert baseline[key] == pytest.approx(model[key])
    second = study(tmp_path, resume=True)
    second.evaluate(methods=["fixed", "x0"], **arguments)
    assert second.model.calls == 8  # x0 alone, of two patterns
    assert second.results[:4] == first.results
    text = second.report(panel_method="fixed", panel_drop=0.4)
    assert text == (tmp_path / "results.md").read_text()
    assert "| model, x0 |" in text and "| nearest neighbour |" in text and "4 pictures of d" in text
    for name in ("results.png", "panel_block.png", "panel_points.png"):
        assert (tmp_path / name).stat().st_size > 1000
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["run"] == RUN and saved["results"] == second.results
    with pytest.raises(ValueError, match="results.json was made with weights 'w'.*'other'"):
        study(tmp_path, run={**RUN, "weights": "other"}, resume=True)


def test_study_calibrates(tmp_path):
    text = study(tmp_path).calibrate(5)
    summary = json.loads((tmp_path / "calibration.json").read_text())["calibration"]
    assert sum(b["pixels"] for b in summary["bins"]) == pytest.approx(1)
    assert text.startswith("5 masks a picture: PQ ")
    assert (tmp_path / "calibration.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="at least 2"):
        study(tmp_path).calibrate(1)


def test_study_refuses_models_that_complete_nothing(tmp_path):
    with pytest.raises(ValueError, match="Linear completes no masks"):
        InpaintingStudy(nn.Linear(1, 1), [], output=str(tmp_path), run={})


def test_methods_name_the_rule_for_cells():
    assert split_method("fixed") == ("fixed", "all")
    assert split_method("repaint:any") == ("repaint", "any")
    for method in ("paste", "fixed:some", ""):
        with pytest.raises(ValueError, match="unknown method.*repaint, and each followed by :all"):
            split_method(method)


def test_wrong_pixels_by_hand():
    truth = np.array([[1, 1, 1, 2, 2, 0, 3, 4]])
    ids = np.array([[9, 9, 5, 5, 5, 5, 0, 9]])  # 4 is a crowd
    assert wrong_pixels(truth, 3, ids).tolist() == [False, False, True, False, False, True]


def test_calibration_of_a_model_that_knows():
    """Errors at exactly the rate of the disagreement."""
    calibration = Calibration(4)
    rng = np.random.default_rng(0)
    truth = np.ones((200, 200), dtype=int)
    truth[:, 100:] = 2
    disagreement = rng.integers(0, 3, truth.shape) / 4
    ids = np.where(rng.random(truth.shape) < disagreement, 3 - truth, truth)
    calibration.add(truth, 2, ids, disagreement)
    summary = calibration.summary()
    assert summary["expected_calibration_error"] < 0.01
    assert summary["error"] == pytest.approx(0.25, abs=0.01)
    wrong = (ids != truth).reshape(-1)
    values = disagreement.reshape(-1)
    pairs = [(values[wrong] > v).mean() + (values[wrong] == v).mean() / 2 for v in (0, 0.25, 0.5)]
    weights = [(values[~wrong] == v).mean() for v in (0, 0.25, 0.5)]
    assert summary["auroc"] == pytest.approx(np.dot(pairs, weights))
    assert calibration_table(summary).count("\n") == 4
    nothing = Calibration(2).summary()
    assert nothing["auroc"] is None and nothing["bins"] == []
