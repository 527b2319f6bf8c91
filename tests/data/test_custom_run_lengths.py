"""Run-length decoders and shapes against pycocotools and naive encoders."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from ldmseg_d2.data.custom.run_lengths import (
    decode_coco,
    decode_cvat,
    decode_label_studio,
    unpack_words,
)
from ldmseg_d2.data.custom.shapes import box_corners, ellipse_points, polygon_mask

from .custom_exports import brush, pack_words, row_runs

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))


@settings(deadline=None, max_examples=100)
@given(MASKS)
def test_coco_runs_round_trip(mask):
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert np.array_equal(decode_coco(encoded["counts"], mask.shape), mask)
    assert np.array_equal(decode_coco(encoded["counts"].decode(), mask.shape), mask)
    assert np.array_equal(decode_coco(row_runs(mask.T), mask.shape), mask)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_packed_words_round_trip(data):
    bits = data.draw(st.integers(1, 20))
    words = data.draw(st.lists(st.integers(0, 2**bits - 1) | st.just(1), max_size=200))
    # Long runs, too: every size of run lengths is used.
    words = [w for w in words for _ in range(data.draw(st.sampled_from([1, 1, 9, 300])))][:2000]
    sizes = data.draw(st.sampled_from([(3, 4, 8, 16), (1, 2, 3, 4), (8, 8, 8, 8)]))
    single = data.draw(st.integers(0, 2))
    packed = bytes(pack_words(words, bits, sizes, single))
    assert unpack_words(packed, len(words)).tolist() == words


@settings(deadline=None, max_examples=50)
@given(MASKS)
def test_brush_round_trip(mask):
    assert np.array_equal(decode_label_studio(brush(mask), mask.shape), mask)


def test_soft_brush_edges_count_from_one_half():
    rgba = np.zeros((1, 4, 4), int)
    rgba[0, :, 3] = [255, 128, 127, 0]
    rle = pack_words(rgba.ravel().tolist())
    assert decode_label_studio(rle, (1, 4)).tolist() == [[True, True, False, False]]


@settings(deadline=None, max_examples=100)
@given(MASKS, st.integers(0, 5), st.integers(0, 5))
def test_cvat_runs_round_trip(mask, left, top):
    height, width = mask.shape
    whole = np.zeros((height + 7, width + 6), bool)
    whole[top : top + height, left : left + width] = mask
    decoded = decode_cvat(row_runs(mask), (left, top, width, height), whole.shape)
    assert np.array_equal(decoded, whole)


@pytest.mark.parametrize(
    "decode, words",
    [
        (lambda: decode_coco([3, 4], (2, 2)), "sum to 7, expected 4"),
        (lambda: decode_coco([10, -6], (2, 2)), "sum"),
        (lambda: decode_coco("\x7f\x7f", (2, 2)), "not part of"),
        (lambda: decode_coco("P", (2, 2)), "middle of a number"),
        (lambda: decode_cvat([4], (0, 0, 9, 1), (4, 4)), "not inside"),
        (lambda: decode_label_studio(brush(np.ones((2, 2), bool)), (3, 3)), "16 values, expected"),
        (lambda: decode_label_studio(brush(np.ones((2, 2), bool))[:7], (2, 2)), "too early"),
        (lambda: decode_label_studio(10**12, (2, 2)), "no list"),
        (lambda: polygon_mask([[0, 0, 1, 1]], (4, 4)), "three points"),
        (lambda: polygon_mask([[0, 0, 1, 1, 2, float("nan")]], (4, 4)), "finite"),
        (lambda: polygon_mask([], (4, 4)), "no polygon"),
    ],
)
def test_damaged_codes(decode, words):
    with pytest.raises(ValueError, match=words):
        decode()


def test_polygons_have_cocos_pixels():
    rng = np.random.default_rng(0)
    for _ in range(20):
        polygons = [rng.uniform(-3, 40, 2 * n).tolist() for n in (3, 5)]
        runs = coco_mask.frPyObjects(polygons, 32, 36)
        expected = coco_mask.decode(coco_mask.merge(runs)).astype(bool)
        assert np.array_equal(polygon_mask(polygons, (32, 36)), expected)
    # Far outside, in time and memory that the picture decides.
    assert polygon_mask([[-1e9, -1e9, 1e9, -1e9, 1e9, 1e9, -1e9, 1e9]], (8, 8)).all()


def test_turned_boxes_and_ellipses():
    yy, xx = np.mgrid[:64, :80] + 0.5

    def differing(polygon, expected):
        return int((polygon_mask([polygon], (64, 80)) != expected).sum())

    # 20x10 at (40, 30), turned by 90 degrees about its centre: 10x20 about (50, 35).
    turned = (abs(xx - 50) < 5) & (abs(yy - 35) < 10)
    assert differing(box_corners(40, 30, 20, 10, 90, centre=True), turned) == 0
    # About its corner, clockwise in the picture: the width now goes down.
    turned = (xx > 30) & (xx < 40) & (yy > 30) & (yy < 50)
    assert differing(box_corners(40, 30, 20, 10, 90), turned) == 0
    ellipse = ((xx - 40) / 20) ** 2 + ((yy - 32) / 10) ** 2 < 1
    assert differing(ellipse_points(40, 32, 20, 10), ellipse) < 0.05 * ellipse.sum()
    assert differing(ellipse_points(40, 32, 10, 20, 90), ellipse) < 0.05 * ellipse.sum()
