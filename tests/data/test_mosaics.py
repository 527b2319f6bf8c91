"""Mosaics hold exactly the segments that were asked for, and are not made twice."""

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ldmseg_d2.data.dataset_mapper import build_dataset_mapper
from ldmseg_d2.data.datasets.mosaics import (
    generate_mosaic,
    log_uniform_counts,
    register_mosaics,
    write_mosaics,
)

from .helpers import tiny_config


@settings(max_examples=25, deadline=None)
@given(num_segments=st.integers(1, 255), index=st.integers(0, 10**6), size=st.integers(48, 70))
def test_every_segment_is_there(num_segments, index, size):
    photo, ids = generate_mosaic(seed=1, index=index, num_segments=num_segments, size=size)
    assert np.unique(ids).tolist() == list(range(1, num_segments + 1))
    assert photo.shape == (size, size, 3) and photo.dtype == np.uint8
    again, same_ids = generate_mosaic(seed=1, index=index, num_segments=num_segments, size=size)
    assert (again == photo).all() and (same_ids == ids).all()


def test_segments_can_be_told_apart_by_their_colours():
    photo, ids = generate_mosaic(seed=0, index=0, num_segments=60, size=96)
    means = np.array([photo[ids == k].mean(axis=0) for k in range(1, 61)])
    distance = np.linalg.norm(means[:, None] - means[None], axis=-1)
    assert distance[~np.eye(60, dtype=bool)].min() > 12  # twice the noise
    one, other = (generate_mosaic(seed=s, index=0, num_segments=60, size=96)[1] for s in (0, 1))
    assert (one != other).any()


def test_too_many_segments_raise():
    with pytest.raises(ValueError, match="do not fit a mosaic of 32x32"):
        generate_mosaic(seed=0, index=0, num_segments=200, size=32)


def test_counts_are_uniform_in_their_logarithm():
    counts = np.array(log_uniform_counts(4000, 1, 255, seed=0))
    assert counts.min() == 1 and counts.max() > 240
    # As many from 4 to 15 as from 16 to 63: a factor of 4 each.
    low, high = (((counts >= a) & (counts < 4 * a)).sum() for a in (4, 16))
    assert 0.85 < low / high < 1.18


def test_files_go_through_the_mapper(tmp_path, catalogs):
    root = write_mosaics(tmp_path / "m", [3, 130], size=48, seed=5)
    before = (root / "photos" / "000000.png").stat().st_mtime_ns
    write_mosaics(root, [3, 130], size=48, seed=5)
    assert (root / "photos" / "000000.png").stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match="another size, seed"):
        write_mosaics(root, [3, 131], size=48, seed=5)
    register_mosaics("mosaics_test", root)
    cfg = tiny_config(train="mosaics_test", size=48, flip="none")
    mapper = build_dataset_mapper(cfg, is_train=True)
    for record, count in zip(DatasetCatalog.get("mosaics_test"), (3, 130), strict=True):
        sample = mapper(record)
        assert int(sample["segment_ids"].max()) == count
        photo = np.asarray(Image.open(record["file_name"]))
        assert (sample["image"].permute(1, 2, 0).numpy() == photo).all()


def test_an_interrupted_folder_is_made_anew(tmp_path):
    root = write_mosaics(tmp_path / "m", [3, 4], size=48, seed=5)
    (root / "mosaics.json").unlink()
    write_mosaics(root, [3], size=48, seed=5)
    assert len(list((root / "photos").iterdir())) == 1
    assert json.loads((root / "mosaics.json").read_text())["counts"] == [3]
