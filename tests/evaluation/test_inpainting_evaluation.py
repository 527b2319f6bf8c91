"""Numbers of inpainting's evaluation against a slow PQ and all distances, with a tiny model."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ldmseg_d2.evaluation.inpainting_evaluation import (
    Hints,
    Picture,
    completions,
    draw_hints,
    evaluate_completion,
    evaluate_draws,
    nearest_fill,
    random_walker_fill,
)

from .conftest import naive_pq


def picture(index=0, size=24, crowd=False):
    rng = np.random.default_rng(index)
    truth = np.kron(rng.integers(0, 6, (3, 3)), np.ones((8, 8), dtype=int))[:size, :size]
    truth = np.unique(truth, return_inverse=True)[1].reshape(truth.shape)
    truth += int(truth.min() == 1)
    photo = (truth[..., None] * 40 + rng.integers(0, 9, (size, size, 3))).astype(np.uint8)
    inputs = {"image_id": index, "height": size, "width": size}
    return Picture(inputs, photo, truth, int(truth.max()) - crowd)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), crowd=st.booleans())
def test_numbers_against_the_definition(seed, crowd):
    rng = np.random.default_rng(seed)
    pictures, hints, predictions, whole, part = [], [], [], [], []
    right = asked = 0
    for index in range(3):
        one = picture(10 * seed + index, crowd=crowd)
        labels = np.minimum(one.truth, one.num_segments)
        names = np.concatenate([[0], np.arange(one.num_segments) + 100])
        known = (rng.random(labels.shape) < 0.3) & (one.truth <= one.num_segments)
        ids = np.where(
            rng.random(known.shape) < 0.8, names[labels], rng.integers(0, 3, known.shape)
        )
        whole.append((one.truth, ids, {one.num_segments + 1}))
        part.append((one.truth * ~known, ids * ~known, {one.num_segments + 1}))
        for label in range(1, one.num_segments + 1):
            mask = one.truth == label
            if (mask & known).any():
                asked += (mask & ~known).sum()
                right += (ids[mask & ~known] == names[label]).sum()
        pictures.append(one)
        hints.append(Hints(known, np.where(known, names[labels], 0), names))
        predictions.append(ids)
    found = evaluate_completion(pictures, hints, predictions)
    assert found["PQ"] == pytest.approx(100 * naive_pq(whole)[0])
    assert found["RQ"] == pytest.approx(100 * naive_pq(whole)[2])
    assert found["dropped_PQ"] == pytest.approx(100 * naive_pq(part)[0])
    assert found["given_ids"] == pytest.approx(100 * right / max(asked, 1))


def test_hints_keep_their_names_and_leave_out_crowds():
    one = picture(3, crowd=True)
    few, many = (draw_hints(one, "points", drop, 5) for drop in (0.9, 0.2))
    assert np.array_equal(few.names, many.names) and len(set(few.names)) == one.num_segments + 1
    assert not many.known[one.truth > one.num_segments].any()
    assert np.array_equal(many.ids[many.known], many.names[one.truth[many.known]])
    assert not many.ids[~many.known].any()


def model(batched_inputs):
    """Completes with the nearest id; without hints, two halves and noise, the same in two of three
    draws."""
    outputs = []
    for entry in batched_inputs:
        ids = torch.ones(entry["height"], entry["width"], dtype=torch.int64)
        ids[:, entry["width"] // 2 :] = 2
        if "known_ids" in entry:
            filled = nearest_fill(entry["known_ids"].numpy(), entry["known_mask"].numpy())
            ids = torch.from_numpy(filled)
        other = ids.clone()
        other[:4] = 0
        samples = [(ids, []), (ids, []), (other, [])]
        uncertainty = (other != ids) / 3
        outputs.append({"panoptic_seg": (ids, []), "samples": samples, "uncertainty": uncertainty})
    return outputs


def test_every_method_completes_every_combination():
    pictures = [picture(i) for i in range(4)]
    found = list(
        completions(pictures, model, patterns=["points", "clicks"], drops=[0, 0.4], seed=0)
    )
    methods = ["no_hints", "nearest", "random_walker", "model"]
    assert [f[2] for f in found] == methods * 4
    numbers = [evaluate_completion(pictures, hints, ids) for *_, hints, ids in found]
    assert [n["PQ"] for n in numbers[1:4]] == [100] * 3  # all is known
    assert numbers[5] == numbers[7] and numbers[5]["PQ"] < 100  # the model fills as "nearest"
    with pytest.raises(ValueError, match="share to drop is 50"):
        next(completions(pictures, model, patterns=["points"], drops=[0.4, 50], seed=0))


def test_disagreement_of_the_draws_by_hand():
    truth = np.repeat([[1, 2]], 12, axis=1).repeat(24, axis=0)
    truth[:2, :6] = 0  # void counts nowhere
    truth[:4, 12:] = 3
    halves = picture()._replace(truth=truth, num_segments=3)
    summary = evaluate_draws([halves], model, num_samples=3)
    # The draws disagree in the first 4 rows: 96 pixels less 12 of void, of which the 48 of segment
    # 3 are wrong, since segment 2 has their prediction. Below, all 480 are right.
    assert summary["bins"] == [
        {"disagreement": 0.0, "pixels": pytest.approx(480 / 564), "error": 0.0},
        {"disagreement": pytest.approx(1 / 3, abs=1e-4), "pixels": pytest.approx(84 / 564),
         "error": pytest.approx(48 / 84)},
    ]  # fmt: skip
    assert summary["num_samples"] == 3 and summary["consensus"] > 50
    with pytest.raises(ValueError, match="at least 2"):
        evaluate_draws([halves], model, num_samples=1)


def test_the_walker_stops_at_the_photos_edge_and_keeps_what_is_known():
    truth = np.full((24, 24), 40)
    truth[:, 9:], truth[:6] = 7, 0
    photo = np.random.default_rng(0).integers(0, 8, (24, 24, 3)).astype(np.uint8)
    photo[truth == 7] += 120
    photo[truth == 0] += 240
    mask = np.zeros((24, 24), dtype=bool)
    mask[20, 2] = mask[20, 20] = mask[2, 10] = True
    walked = random_walker_fill(photo, truth, mask)
    assert (walked == truth).mean() > 0.98 > 0.9 > (nearest_fill(truth, mask) == truth).mean()
    assert np.array_equal(walked[mask], truth[mask])
