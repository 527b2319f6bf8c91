"""CamVid: segments against a naive flood fill, and the whole conversion read back."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ldmseg_d2.data import load_dataset_dicts, register_all
from ldmseg_d2.data.datasets.camvid import CAMVID_CATEGORIES, convert_camvid, label_segments

from .helpers import run_tool, write_png
from .test_dataset_mapper import plain_mapper

THINGS = {2, 6, 8, 9, 10}


def naive_segments(labels, min_area):
    """Sets of pixels, each with its label, by flood fill over the 8 neighbours."""
    height, width = labels.shape
    seen = set()
    segments = set()
    for start in np.ndindex(height, width):
        label = int(labels[start])
        if label == 11 or start in seen:
            continue
        if label in THINGS:
            component, todo = {start}, [start]
            while todo:
                y, x = todo.pop()
                for near in np.ndindex(3, 3):
                    p = (y + near[0] - 1, x + near[1] - 1)
                    inside = 0 <= p[0] < height and 0 <= p[1] < width
                    if inside and p not in component and labels[p] == label:
                        component.add(p)
                        todo.append(p)
        else:
            component = {p for p in np.ndindex(height, width) if labels[p] == label}
        seen |= component
        if label not in THINGS or len(component) >= min_area:
            segments.add((label, frozenset(component)))
    return segments


def as_sets(ids, segments):
    return {
        (s["category_id"] - 1, frozenset(map(tuple, np.argwhere(ids == s["id"]).tolist())))
        for s in segments
    }


@given(
    labels=st.integers(1, 8).flatmap(
        lambda w: st.lists(
            st.lists(st.sampled_from([0, 3, 8, 9, 11]), min_size=w, max_size=w),
            min_size=1,
            max_size=8,
        )
    ),
    min_area=st.integers(1, 4),
)
def test_segments_match_a_flood_fill(labels, min_area):
    labels = np.array(labels)
    ids, segments = label_segments(labels, min_area)
    assert as_sets(ids, segments) == naive_segments(labels, min_area)
    assert [s["id"] for s in segments] == list(range(1, len(segments) + 1))
    for segment in segments:
        ys, xs = np.nonzero(ids == segment["id"])
        x, y, width, height = segment["bbox"]
        assert segment["area"] == len(ys)
        assert (x, y, x + width - 1, y + height - 1) == (xs.min(), ys.min(), xs.max(), ys.max())


def write_segnet(folder, splits=("train", "val")):
    """Two pictures a split: sky over road, two cars, a pedestrian of 32 pixels, some void."""
    for split in splits:
        for index in range(2):
            labels = np.zeros((12, 16), np.uint8)
            labels[6:] = 3
            labels[5:8, 1:4] = 8
            labels[5:8, 8 + index : 12 + index] = 8
            labels[9:11, 14] = 9
            labels[11] = 11
            labels = labels.repeat(4, 0).repeat(4, 1)
            photo = np.repeat(labels[..., None] * 20, 3, axis=2)
            write_png(folder / split / f"a_{index}.png", photo)
            write_png(folder / f"{split}annot" / f"a_{index}.png", labels)
    return folder


def test_conversion_round_trip(tmp_path, catalogs):
    source = write_segnet(tmp_path / "in", splits=("train", "val", "test"))
    root = tmp_path / "root"
    convert_camvid(str(source), str(root))
    register_all(str(root))
    for split in ("train", "val", "test"):
        dicts = load_dataset_dicts([f"camvid_panoptic_{split}"])
        assert [d["image_id"] for d in dicts] == [1, 2]
        for dataset_dict in dicts:
            record = plain_mapper()(dataset_dict)
            name = Path(dataset_dict["file_name"]).name
            labels = np.asarray(Image.open(source / f"{split}annot" / name))
            # What is too small for a segment keeps its class.
            expected = np.where(labels == 11, 255, labels)
            assert np.array_equal(record["sem_seg"].numpy(), expected)
            assert (record["segment_ids"].numpy()[labels == 9] == 0).all()
            names = [CAMVID_CATEGORIES[s["category_id"]]["name"] for s in record["segments_info"]]
            assert names == ["sky", "road", "car", "car"]
            assert [s["isthing"] for s in record["segments_info"]] == [False, False, True, True]
    assert not list(root.rglob("*.partial"))


def break_missing_folder(source):
    (source / "valannot").rename(source / "elsewhere")


def break_photo_missing(source):
    (source / "train" / "a_1.png").unlink()


def break_label_value(source):
    write_png(source / "valannot" / "a_0.png", np.full((48, 64), 12, np.uint8))


def break_size(source):
    write_png(source / "valannot" / "a_0.png", np.zeros((12, 15), np.uint8))


@pytest.mark.parametrize(
    "damage, words",
    [
        (break_missing_folder, ["valannot", "does not exist", "--input"]),
        (break_photo_missing, ["trainannot", "a_1.png", "no partner"]),
        (break_label_value, ["valannot", "a_0.png", "holds 12"]),
        (break_size, ["a_0.png", "15x12", "64x48"]),
    ],
)
def test_bad_input_is_named_and_leaves_no_json(tmp_path, capsys, damage, words):
    source, root = write_segnet(tmp_path / "in"), tmp_path / "root"
    assert run_tool("camvid", "--input", source, "--root", root) == 0
    damage(source)
    assert run_tool("camvid", "--input", source, "--root", root) == 1
    message = capsys.readouterr().err
    for word in words:
        assert word in message
    if damage in (break_label_value, break_size):
        assert not (root / "camvid" / "panoptic_val.json").exists()
