"""Mosaics hold exactly the segments that were asked for, and are not made twice."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from hypothesis import given, settings
from hypothesis import strategies as st

from ldmseg_d2.data.annotations import read_id_png
from ldmseg_d2.engine import load_config
from ldmseg_d2.experiments import mosaics
from ldmseg_d2.experiments.mosaics import COUNTS, CountsEvaluator, generate_mosaic


@settings(max_examples=15, deadline=None)
@given(num_segments=st.integers(1, 255), index=st.integers(0, 10**6), size=st.integers(48, 70))
def test_every_segment_is_there(num_segments, index, size):
    photo, ids = generate_mosaic(seed=1, index=index, num_segments=num_segments, size=size)
    assert np.unique(ids).tolist() == list(range(1, num_segments + 1))
    again, same_ids = generate_mosaic(seed=1, index=index, num_segments=num_segments, size=size)
    assert (again == photo).all() and (same_ids == ids).all()


def test_too_many_segments_raise():
    with pytest.raises(ValueError, match="do not fit a mosaic of 32x32.*IMAGE_SIZE"):
        generate_mosaic(seed=0, index=0, num_segments=200, size=32)


def test_bins_count_their_own_pictures(tmp_path, catalogs, monkeypatch):
    """The truth itself, but of pictures with many segments the half: PQ by hand."""
    monkeypatch.setitem(mosaics.MOSAICS, "mosaics_val", 9)
    keys = ["DATASETS.TEST", ("mosaics_val",), "INPUT.LDMSEG.IMAGE_SIZE"]
    for _ in range(2):
        mosaics.prepare_mosaics(load_config(opts=[*keys, 64]), tmp_path)
    with pytest.raises(ValueError, match="other mosaics"):
        mosaics.prepare_mosaics(load_config(opts=[*keys, 96]), tmp_path)
    records = DatasetCatalog.get("mosaics_val")
    truth = [
        torch.from_numpy(read_id_png(r["pan_seg_file_name"]).astype(np.int32)) for r in records
    ]
    # Log-uniform, both ends included.
    numbers = [int(ids.max()) for ids in truth]
    assert sorted(numbers) == [1, 2, 4, 8, 16, 32, 64, 128, 255] != numbers
    for ids, number in zip(truth, numbers, strict=True):
        if number > 127:
            ids[ids > number // 2] = 0
    evaluator = CountsEvaluator("mosaics_val")
    evaluator.process(
        [{"image_id": record["image_id"]} for record in records],
        [{"panoptic_seg": (ids, [])} for ids in truth],
    )
    found = evaluator.evaluate()["counts"]
    assert "65-127" not in found and set(found) == set(COUNTS) - {"65-127"}
    assert [found[label] for label in COUNTS[:5]] == [100.0] * 5
    kept, missed = 64 + 127, 64 + 128
    assert found["128-"] == pytest.approx(100 * kept / (kept + missed / 2))
