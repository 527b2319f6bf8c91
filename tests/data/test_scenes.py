"""The generated scenes: labels against naive loops and a z-buffer, bytes against pins."""

import hashlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldmseg_d2.data.datasets import scenes_render
from ldmseg_d2.data.datasets.scenes import SCENES_CATEGORIES, generate_scene
from ldmseg_d2.data.datasets.scenes_layout import sample_layout
from ldmseg_d2.data.datasets.scenes_shapes import Draws

SEED = 5


def same(a, b) -> bool:
    arrays = ("image", "segment_ids", "sem_seg", "depth")
    return a.segments_info == b.segments_info and all(
        np.array_equal(getattr(a, k), getattr(b, k)) for k in arrays
    )


def digest(size: int, count: int) -> str:
    value = hashlib.sha256()
    for index in range(count):
        scene = generate_scene(seed=0, index=index, size=size)
        for array in (scene.image, scene.segment_ids, scene.sem_seg, scene.depth):
            value.update(array.tobytes())
    return value.hexdigest()[:16]


OPENCV = tuple(int(part) for part in cv2.__version__.split(".")[:2])


@pytest.mark.skipif(OPENCV < (4, 11), reason="cv2.fillPoly rounds otherwise before OpenCV 4.11")
@pytest.mark.parametrize(
    "size, count, expected", [(64, 40, "3a5e9ef54e3fe0ad"), (97, 10, "d3ce951a8f013b45")]
)
def test_bytes_are_pinned(size, count, expected):
    """A changed hash is a changed data set: raise GENERATOR_VERSION with it."""
    assert digest(size, count) == expected


def whole_shape(layer, size: int) -> np.ndarray:
    """(size, size) bool: the object without what hides it."""
    fine = np.zeros((2 * size, 2 * size), bool)
    height, width = layer.patch.shape[:2]
    fine[layer.top : layer.top + height, layer.left : layer.left + width] = layer.patch[..., 3] > 0
    return fine[1::2, 1::2]


@pytest.mark.parametrize("size", [64, 90])
def test_the_label_of_a_pixel_is_the_nearest_object_drawn_there(size):
    """A z-buffer, filled in an order unrelated to depth, gives the same labels and depth."""
    hidden = 0
    for index in range(60):
        draws = Draws([SEED, index])
        rendered = scenes_render.render(sample_layout(draws), draws, size)
        sky = rendered.stuff == scenes_render.STUFF.index("sky")
        z_buffer = np.where(sky, 1 << 30, rendered.stuff_depth)
        nearest = np.full((size, size), -1)
        for i in np.random.default_rng(index).permutation(len(rendered.layers)):
            layer = rendered.layers[i]
            # An object stands on the ground: what is in front of it there lies below its foot.
            closer = whole_shape(layer, size) & (layer.depth <= z_buffer)
            z_buffer[closer] = layer.depth
            nearest[closer] = i
        for i, layer in enumerate(rendered.layers):
            assert np.array_equal(nearest == i, layer.visible)
            hidden += np.count_nonzero(whole_shape(layer, size) & ~layer.visible)
        scene = generate_scene(seed=SEED, index=index, size=size)
        expected = np.where(z_buffer == 1 << 30, 0, z_buffer) / 256
        assert np.array_equal(scene.depth, expected.astype(np.float32))
    assert hidden > 1000  # the scenes do occlude


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**63), index=st.integers(0, 2**31), size=st.integers(64, 160))
def test_invariants_of_any_scene(seed, index, size):
    scene = generate_scene(seed=seed, index=index, size=size)
    assert same(scene, generate_scene(seed=seed, index=index, size=size))
    assert scene.image.shape == (size, size, 3) and scene.image.dtype == np.uint8
    assert scene.segment_ids.dtype == np.int32 and scene.depth.dtype == np.float32
    assert scene.sem_seg.dtype == np.uint8
    count = len(scene.segments_info)
    assert set(np.unique(scene.segment_ids)) - {0} == set(range(1, count + 1))
    for segment in scene.segments_info:
        mask = scene.segment_ids == segment["id"]
        assert segment["area"] == mask.sum() >= 24 * (size / 64) ** 2
        assert (scene.sem_seg[mask] == segment["category_id"] - 1).all()
        depth = np.unique(scene.depth[mask])
        if segment["isthing"]:
            assert len(depth) == 1 and 0 < depth[0] < 150
        assert SCENES_CATEGORIES[segment["category_id"] - 1]["isthing"] == segment["isthing"]
    assert ((scene.sem_seg == 255) == (scene.segment_ids == 0)).all()
    assert 0 <= scene.depth.min() and scene.depth.max() <= 240
    assert np.array_equal(scene.depth * 256, np.round(scene.depth * 256))  # exact in 16 bits
