"""Depth from a folder beside a data set: which PNG is whose, and what the loaders make of it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ldmseg_d2.data import (
    attach_depth,
    build_dataset_mapper,
    build_test_loader,
    build_train_loader,
    dataset_dicts_with_depth,
    load_dataset_dicts,
)
from ldmseg_d2.data.datasets.register_panoptic import register_panoptic_dataset

from .helpers import tiny_config, write_png, write_tiny


def dicts(*photos):
    return [{"file_name": photo, "image_id": i} for i, photo in enumerate(photos)]


def write_depths(folder, *names):
    for name in names:
        write_png(folder / name, np.ones((2, 2), np.uint16))
    return str(folder)


@pytest.mark.parametrize(
    "photo, png",
    [
        ("/data/a/train/x.jpg", "x.png"),
        ("/data/a/train/x.jpg", "train/x.png"),
        ("/data/a/train/x.1.jpeg", "a/train/x.1.png"),  # the longest match
        ("photos/x.png", "photos/x.png"),
    ],
)
def test_flat_and_mirrored_folders(tmp_path, photo, png):
    folder = write_depths(tmp_path / "depth", "x.1.png", png, "other/y.png")
    given = dicts(photo)
    (record,) = attach_depth(given, folder, 1000)
    assert record["depth_file_name"] == str(tmp_path / "depth" / png)
    assert record["depth_scale"] == 1000.0 and record["image_id"] == 0
    assert given == dicts(photo)


def test_photos_without_depth_stay_and_are_counted(tmp_path, caplog):
    folder = write_depths(tmp_path, "a.png")
    given = dicts("/d/a.jpg", "/d/b.jpg")
    given[1].update(depth_file_name="old.png", depth_scale=1.0)
    first, second = attach_depth(given, folder, 256.0)
    assert "depth_file_name" in first
    assert not {"depth_file_name", "depth_scale"} & set(second)
    assert "1 of 2 photos have no depth PNG" in caplog.text and "/d/b.jpg" in caplog.text


def test_wrong_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none of the 0 PNGs in .*nowhere"):
        attach_depth(dicts("/d/a.jpg"), str(tmp_path / "nowhere"), 1.0)
    folder = write_depths(tmp_path, "a_depth.png")
    with pytest.raises(FileNotFoundError, match="none of the 1 PNGs.*d/a.jpg"):
        attach_depth(dicts("/d/a.jpg"), folder, 1.0)
    with pytest.raises(ValueError, match="a_depth.png belongs to /d/a_depth.*and to /e/a_depth"):
        attach_depth(dicts("/d/a_depth.jpg", "/e/a_depth.jpg"), folder, 1.0)


@pytest.fixture
def millimetres(tiny):
    """Depth of pictures 1 and 3 beside "tiny": 1000 x (row + 1), column 0 invalid."""
    depth = np.repeat(np.arange(1, 25)[:, None] * 1000, 32, axis=1)
    depth[:, 0] = 0
    for index in (1, 3):
        write_png(tiny / "other_depth" / f"{index:03d}.png", depth.astype(np.uint16))
    return tiny / "other_depth"


def test_loaders_take_it_from_the_config(millimetres):
    cfg = tiny_config(flip="none", batch=5, resize="longest_side", size=32)
    cfg.INPUT.LDMSEG.DEPTH_ROOTS = [["tiny", str(millimetres), 1000.0]]
    cfg.INPUT.LDMSEG.ANNOTATIONS_AT_TEST = True
    expected = np.repeat(np.arange(1, 25, dtype=np.float32)[:, None], 32, axis=1)
    expected[:, 0] = 0
    for records in (
        next(iter(build_train_loader(cfg))),
        [r for batch in build_test_loader(cfg, "tiny") for r in batch],
    ):
        assert sorted(r["image_id"] for r in records) == [0, 1, 2, 3, 4]
        for record in records:
            assert ("depth" in record) == (record["image_id"] in (1, 3))
            assert "segment_ids" in record
            if "depth" in record:
                assert np.allclose(record["depth"].numpy(), expected)
    dataset_dicts = dataset_dicts_with_depth(cfg, "tiny")
    assert ["depth_scale" in d for d in dataset_dicts] == [False, True, False, True, False]
    # Without the key, the data set's own depth.
    cfg.INPUT.LDMSEG.DEPTH_ROOTS = []
    assert dataset_dicts_with_depth(cfg, ["tiny"]) == load_dataset_dicts(["tiny"])


@pytest.mark.parametrize(
    "entries, words",
    [
        ([["tiny", "depth"]], "data set, folder, PNG value"),
        ([["tiny", "depth", 0.0]], "data set, folder, PNG value"),
        (["tiny"], "data set, folder, PNG value"),
        ([["tinny", "depth", 1.0]], "'tinny' but no such data set"),
        ([["tiny", "depth", 1.0], ["tiny", "depth", 1.0]], "twice"),
    ],
)
def test_bad_entries(tiny, entries, words):
    cfg = tiny_config()
    cfg.INPUT.LDMSEG.DEPTH_ROOTS = entries
    with pytest.raises(ValueError, match=f"INPUT.LDMSEG.DEPTH_ROOTS.*{words}"):
        build_train_loader(cfg)


@pytest.mark.parametrize("size", [9, 24, 50])
def test_resizing_invents_no_depth(tiny, size):
    """Neither a mean of neighbours nor one of a valid and an invalid depth, up to 65535."""
    values = np.array([0, 1, 300, 65535], np.uint16)
    depth = np.random.default_rng(0).choice(values, (24, 32))
    write_png(tiny / "depth" / "000.png", depth)
    record = build_dataset_mapper(tiny_config(size=size), is_train=True)(
        load_dataset_dicts(["tiny"])[0]
    )
    assert record["depth"].shape == (size, size)
    assert set((record["depth"] * 256).unique().tolist()) == set(values.tolist())
    # PIL's own nearest neighbour on the 16-bit picture, flipped or not.
    plain = np.array(Image.fromarray(depth.astype(np.int32)).resize((size, size), Image.NEAREST))
    plain = torch.from_numpy(plain).float() / 256
    assert any(torch.equal(record["depth"], p) for p in (plain, plain.flip(1)))


@pytest.fixture
def joined(tiny, tmp_path, catalogs):
    """A config that trains on "tiny" and on a data set of one other class."""
    root = write_tiny(tmp_path / "other", num_images=3)
    content = json.loads((root / "panoptic.json").read_text())
    for annotation in content["annotations"]:
        for segment in annotation["segments_info"]:
            segment["category_id"] = 1
    (root / "panoptic.json").write_text(json.dumps(content))
    register_panoptic_dataset(
        "other",
        categories=[{"id": 1, "name": "cell", "isthing": 1, "color": [1, 2, 3]}],
        image_root=str(root / "photos"),
        panoptic_root=str(root / "panoptic"),
        panoptic_json=str(root / "panoptic.json"),
        evaluator_type="coco_panoptic_seg",
        how_to_make="",
    )
    cfg = tiny_config(batch=8)
    cfg.DATASETS.TRAIN = ("tiny", "other")
    cfg.MODEL.META_ARCHITECTURE = "LDMSeg"
    return cfg


@pytest.mark.parametrize("meta_arch", ["LDMSeg", "LDMSegAutoencoder"])
def test_a_model_without_classes_joins_data_sets_of_different_classes(joined, meta_arch):
    joined.MODEL.META_ARCHITECTURE = meta_arch
    records = next(iter(build_train_loader(joined)))
    photos = sorted(r["file_name"].split("/")[-3] for r in records)
    assert photos == ["other"] * 3 + ["tiny"] * 5
    for record in records:
        assert {s["category_id"] for s in record["segments_info"]} == {0}
        # What is a thing stays; crowds are void as ever.
        stuff = [s for s in record["segments_info"] if not s["isthing"]]
        assert len(record["segments_info"]) == 4
        assert len(stuff) == ("/tiny/" in record["file_name"])


@pytest.mark.parametrize(
    "key, value",
    [
        ("MODEL.LDMSEG.CLASSIFIER", "mask_pooling"),
        ("MODEL.LDMSEG.TASKS", ["instance", "semantic"]),
        ("MODEL.META_ARCHITECTURE", "HFMask2Former"),
    ],
)
def test_a_model_with_classes_refuses_them(joined, key, value):
    joined.merge_from_list([key, value])
    with pytest.raises(
        ValueError, match="same classes.*tiny: 3 classes.*other: 1 classes.*CLASSIF"
    ):
        build_train_loader(joined)
