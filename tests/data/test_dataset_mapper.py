"""PanopticDatasetMapper: geometry, relabelling, and what ends up as void."""

import itertools

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ldmseg_d2.data import PanopticDatasetMapper, build_dataset_mapper, load_dataset_dicts
from ldmseg_d2.data.annotations import read_id_png
from ldmseg_d2.data.augmentations import build_augmentations

from .helpers import (
    BOX,
    DOT,
    GROUND,
    IDS,
    id2rgb,
    same_partition,
    tiny_config,
    tiny_ids,
    tiny_photo,
    write_png,
)
from .test_annotations import ID_MAPS


def plain_mapper(**kwargs):
    """No augmentation, so that every pixel can be compared with the files."""
    return PanopticDatasetMapper(**{"augmentations": [], "with_annotations": True, **kwargs})


def test_plain_record(tiny):
    record = plain_mapper()(load_dataset_dicts(["tiny"])[1])
    ids = tiny_ids(1)
    assert record["image"].dtype == torch.uint8 and record["image"].shape == (3, 24, 32)
    assert np.array_equal(record["image"].permute(1, 2, 0).numpy(), tiny_photo(ids, 1))
    assert (record["height"], record["width"], record["image_id"]) == (24, 32, 1)
    assert record["file_name"] == str(tiny / "photos" / "001.png")

    got = record["segment_ids"]
    assert got.dtype == torch.int64 and got.shape == (24, 32)
    assert same_partition(got, np.where(ids == IDS["crowd"], 0, ids))
    assert (got[ids == IDS["crowd"]] == 0).all() and (got[:4] == 0).all()
    # JSON order; areas counted by hand: 20 rows of 32 less two 8x6 boxes, a 2x2 dot, a 6x6 crowd.
    assert record["segments_info"] == [
        {"id": 1, "category_id": GROUND, "isthing": False, "area": 640 - 96 - 4 - 36},
        {"id": 2, "category_id": BOX, "isthing": True, "area": 48},
        {"id": 3, "category_id": BOX, "isthing": True, "area": 48},
        {"id": 4, "category_id": DOT, "isthing": True, "area": 4},
    ]
    expected = np.full(ids.shape, 255)
    for name, category in zip(IDS, (GROUND, BOX, BOX, DOT, BOX)):
        expected[ids == IDS[name]] = category
    assert np.array_equal(record["sem_seg"].numpy(), expected)
    rows = np.arange(24)[:, None] + 1 / 256
    depth = np.where(np.arange(32) > 0, rows, 0)
    assert record["depth"].dtype == torch.float32
    assert np.allclose(record["depth"].numpy(), depth, rtol=1e-6)


def test_small_segments_become_void_in_training_only(tiny):
    cfg = tiny_config(resize="longest_side", size=32)
    cfg.INPUT.LDMSEG.MIN_SEGMENT_AREA = 5
    cfg.INPUT.LDMSEG.ANNOTATIONS_AT_TEST = True
    dataset_dict = load_dataset_dicts(["tiny"])[0]
    train = build_dataset_mapper(cfg, is_train=True)(dataset_dict)
    test = build_dataset_mapper(cfg, is_train=False)(dataset_dict)
    assert [s["category_id"] for s in train["segments_info"]] == [GROUND, BOX, BOX]
    assert [s["category_id"] for s in test["segments_info"]] == [GROUND, BOX, BOX, DOT]
    assert set(train["segment_ids"].unique().tolist()) == {0, 1, 2, 3}
    # The class of a dropped segment stays known.
    assert (train["sem_seg"] == DOT).sum() == 4


def test_large_scale_jitter_crops_at_random_and_never_pads(tiny):
    cfg = tiny_config(resize="large_scale_jitter", size=24)
    mapper = build_dataset_mapper(cfg, is_train=True)
    np.random.seed(0)
    dicts = load_dataset_dicts(["tiny"])
    shapes = set()
    for dataset_dict in itertools.islice(itertools.cycle(dicts), 60):
        record = mapper(dataset_dict)
        shape = tuple(record["image"].shape[1:])
        shapes.add(shape)
        assert max(shape) <= 24 and min(shape) >= 1
        ids = record["segment_ids"]
        assert ids.shape == shape
        assert ids.max() == len(record["segments_info"])
        for segment in record["segments_info"]:
            assert segment["area"] == int((ids == segment["id"]).sum()) > 0
    assert (24, 24) in shapes and len(shapes) > 20
    record = build_dataset_mapper(cfg, is_train=False)(dicts[0])
    assert record["image"].shape == (3, 18, 24)


@pytest.mark.parametrize("resize", ["square", "longest_side", "large_scale_jitter"])
@pytest.mark.parametrize("flip", ["horizontal", "vertical", "none"])
@pytest.mark.parametrize("size", [40, 96])
def test_photo_and_annotations_stay_aligned(tmp_path, resize, flip, size):
    """Photo and depth both hold their pixel's x and y, and still agree after any augmentation."""
    y, x = np.mgrid[:48, :64]
    write_png(tmp_path / "photo.png", np.stack([3 * x, 3 * y, 0 * x], -1).astype(np.uint8))
    write_png(tmp_path / "depth.png", (64 * y + x).astype(np.uint16))
    write_png(tmp_path / "pan.png", id2rgb(64 * y + x))
    dataset_dict = {
        "file_name": str(tmp_path / "photo.png"),
        "depth_file_name": str(tmp_path / "depth.png"),
        "pan_seg_file_name": str(tmp_path / "pan.png"),
        "depth_scale": 1.0,
    }
    cfg = tiny_config(size=size, resize=resize, flip=flip)
    cfg.INPUT.LDMSEG.JITTER_SCALE = (0.5, 2.0)
    mapper = build_dataset_mapper(cfg, is_train=True)
    for seed in range(6):
        np.random.seed(seed)
        record = mapper(dataset_dict)
        values = record["depth"].numpy()
        off_x = record["image"][0].numpy() / 3 - values % 64
        off_y = record["image"][1].numpy() / 3 - values // 64
        for off in (off_x, off_y):
            assert np.abs(off).max() <= 1.0
            # Rounding down instead of to the nearest would shift by half a source pixel.
            assert abs(off.mean()) < 0.15
        assert same_partition(record["segment_ids"], values)


@pytest.mark.parametrize("resize, size", [("square", (40, 40)), ("longest_side", (40, 30))])
@pytest.mark.parametrize("name, filter_", [("bilinear", 2), ("bicubic", 3)])
def test_photos_are_resized_as_pillow_does(tmp_path, resize, size, name, filter_):
    photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    write_png(tmp_path / "photo.png", photo)
    cfg = tiny_config(size=40, resize=resize, flip="none")
    cfg.INPUT.LDMSEG.INTERPOLATION = name
    mapper = build_dataset_mapper(cfg, is_train=False)
    image = mapper({"file_name": str(tmp_path / "photo.png")})["image"]
    expected = np.asarray(Image.fromarray(photo).resize(size, filter_))
    assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_many_and_large_ids_survive(tmp_path):
    """300 segments need more than a byte; ids spread up to 2^24 - 1."""
    ids = (np.arange(300, dtype=np.int64) * 56109 + 1).reshape(15, 20)
    assert ids.max() < 2**24
    write_png(tmp_path / "pan.png", id2rgb(ids))
    write_png(tmp_path / "photo.png", tiny_photo(ids, 0))
    record = plain_mapper(augmentations=[T.Resize((30, 40))])(
        {"file_name": str(tmp_path / "photo.png"), "pan_seg_file_name": str(tmp_path / "pan.png")}
    )
    # Class-agnostic: no segments_info, so every id is a thing of category 0, and no sem_seg.
    assert len(record["segments_info"]) == 300 and "sem_seg" not in record
    assert {s["category_id"] for s in record["segments_info"]} == {0}
    assert all(s["area"] == 4 and s["isthing"] for s in record["segments_info"])
    assert same_partition(record["segment_ids"], np.kron(ids, np.ones((2, 2), int)))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"resize": "squared"}, "large_scale_jitter"),
        ({"random_flip": "both"}, "horizontal"),
        ({"interpolation": "cubic"}, "INTERPOLATION is 'cubic', allowed are .*'bicubic'"),
        ({"train_size": 4}, "TRAIN_SIZE 4 .* 'square'"),
        ({"train_size": 16, "resize": "large_scale_jitter"}, "at most .*IMAGE_SIZE 8"),
    ],
)
def test_unknown_options_raise(change, message):
    options = {
        "image_size": 8,
        "resize": "square",
        "jitter_scale": (1.0, 1.0),
        "random_flip": "none",
        "is_train": True,
    }
    with pytest.raises(ValueError, match=message):
        build_augmentations(**{**options, **change})


@settings(deadline=None)
@given(ids=ID_MAPS, vertical=st.booleans(), factor=st.integers(1, 4))
def test_flip_twice_is_the_identity_and_resize_keeps_the_partition(
    tmp_path_factory, ids, vertical, factor
):
    folder = tmp_path_factory.mktemp("map")
    write_png(folder / "photo.png", tiny_photo(ids, 0))
    write_png(folder / "pan.png", id2rgb(ids))
    dataset_dict = {
        "file_name": str(folder / "photo.png"),
        "pan_seg_file_name": str(folder / "pan.png"),
    }
    assert np.array_equal(read_id_png(str(folder / "pan.png")), ids)
    plain = plain_mapper()(dataset_dict)
    flip = T.RandomFlip(1.0, horizontal=not vertical, vertical=vertical)
    twice = plain_mapper(augmentations=[flip, flip])(dataset_dict)
    once = plain_mapper(augmentations=[flip])(dataset_dict)
    for key in ("image", "segment_ids"):
        assert torch.equal(twice[key], plain[key])
        assert torch.equal(once[key], plain[key].flip(-2 if vertical else -1))
    height, width = ids.shape
    large = plain_mapper(augmentations=[T.Resize((factor * height, factor * width))])(dataset_dict)
    expected = plain["segment_ids"].repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    assert torch.equal(large["segment_ids"], expected)
