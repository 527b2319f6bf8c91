"""Colours, alignment of ids, and what is painted where."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ldmseg_d2.visualization import align_ids, draw_panoptic, segment_colors

MAPS = hnp.arrays(np.int64, (8, 9), elements=st.integers(0, 6))


def test_colors_are_distinct_and_independent_of_the_others():
    colors = segment_colors(range(256))
    assert len(np.unique(colors, axis=0)) == 256
    np.testing.assert_array_equal(segment_colors([7, 200]), colors[[7, 200]])
    # Eight consecutive ids: no two of them near each other.
    gaps = np.abs(colors[1:9, None].astype(int) - colors[None, 1:9]).max(axis=2)
    assert (gaps + 1000 * np.eye(8)).min() > 40


@given(ids=MAPS, seed=st.integers(0, 2**31))
def test_aligned_ids_keep_the_partition_and_undo_a_permutation(ids, seed):
    new_ids = np.random.default_rng(seed).permutation(1000)[:7] + 1
    new_ids[0] = 0
    np.testing.assert_array_equal(align_ids(new_ids[ids], ids), ids)
    aligned = align_ids(ids, np.roll(ids, 2, axis=1))
    pairs = np.unique(np.stack([ids.ravel(), aligned.ravel()]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    assert ((aligned == 0) == (ids == 0)).all()


def test_pixels_of_a_segment_have_one_color_and_outlines_are_white():
    ids = np.zeros((20, 30), np.int64)
    ids[:, 10:20], ids[:, 20:] = 3, 4
    image = np.full((20, 30, 3), 100, np.uint8)
    picture = draw_panoptic(image, torch.from_numpy(ids).int())
    assert picture.shape == image.shape and picture.dtype == np.uint8
    assert (picture[:, [10, 20]] == 255).all()  # the first column of each new segment
    expected = np.round(40 + segment_colors([3, 4]) * 0.6)
    assert (np.abs(picture[:, 11:20] - expected[0]) <= 1).all()
    assert (np.abs(picture[:, 21:] - expected[1]) <= 1).all()
    assert picture[:, :10].max() < 90  # void is darker than the photo
    large = draw_panoptic(image, ids, scale=5)  # enlarged without blur
    assert large.shape == (100, 150, 3) and (large[:, 51:100] == picture[0, 11]).all()
    with pytest.raises(ValueError, match=r"\(20, 30, 3\).*\(30, 20\)"):
        draw_panoptic(image, ids.T)


def test_like_gives_the_same_colors_to_what_overlaps():
    truth = np.repeat([[900, 900, 41], [6, 6, 41]], 10, axis=0).repeat(10, axis=1)
    image = np.zeros((*truth.shape, 3), np.uint8)
    renamed = np.select([truth == 900, truth == 41], [1, 2], 3)
    renamed[:3, :3] = 77  # a segment that the truth lacks
    ours = draw_panoptic(image, renamed, like=torch.from_numpy(truth))
    theirs = draw_panoptic(image, truth)
    same = renamed != 77
    same[:4, :4] = False  # its outline
    np.testing.assert_array_equal(ours[same], theirs[same])
    assert (ours[:3, :3] == ours[0, 0]).all() and (ours[0, 0] != theirs[0, 0]).any()
    # Ids as data sets have them are numbered; others keep their own colours.
    numbered, own = np.round(0.6 * segment_colors([3, 77]))
    assert (theirs[0, 0] == numbered).all()
    assert (draw_panoptic(image, renamed)[0, 0] == own).all()


def test_names_are_written_where_there_is_room():
    ids = np.ones((240, 320), np.int64)
    ids[:4, :4] = 2
    image = np.zeros((240, 320, 3), np.uint8)
    info = [{"id": 1, "category_id": 1}, {"id": 2, "category_id": 0}]
    without = draw_panoptic(image, ids, info)
    named = draw_panoptic(image, ids, info, class_names=["dot", "field"])
    changed = (named != without).any(axis=2)
    assert named.shape == without.shape and 200 < changed.sum() < 6000
    assert not changed[:20, :20].any()  # the dot has no room for its name
    small = draw_panoptic(image[:50, :50], ids[:50, :50], info, class_names=["dot", "field"])
    np.testing.assert_array_equal(small, draw_panoptic(image[:50, :50], ids[:50, :50]))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 2)])
@pytest.mark.parametrize("value", [0, 5])
def test_odd_sizes_and_single_segments(shape, value):
    ids, image = np.full(shape, value), np.zeros((*shape, 3), np.uint8)
    assert draw_panoptic(image, ids, like=ids, scale=3).shape == (3 * shape[0], 3 * shape[1], 3)
