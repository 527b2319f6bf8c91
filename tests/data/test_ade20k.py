"""ADE20K: the merge against a naive loop, the conversion read back, both registered names."""

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin import register_all_ade20k
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ldmseg_d2.data import load_dataset_dicts, register_all
from ldmseg_d2.data.datasets.ade20k import ADE20K_CATEGORIES, convert_ade20k, merge_annotations
from ldmseg_d2.evaluation import PanopticEvaluator

from .helpers import run_tool, write_png
from .test_dataset_mapper import plain_mapper

# Labels of some classes, and the number of those that have instances, from the challenge's lists.
WALL, SKY, BED, PERSON, CAR, FLAG = 1, 3, 8, 13, 21, 150
INSTANCE_CLASS = {BED: 1, PERSON: 4, CAR: 9, FLAG: 100}


def test_classes():
    names = [c["name"].strip() for c in ADE20K_CATEGORIES]
    things = [c["name"] for c in ADE20K_CATEGORIES if c["isthing"]]
    assert len(names) == len(set(names)) == 150 and len(things) == 100
    assert [c["id"] for c in ADE20K_CATEGORIES] == list(range(150))
    for label, name in {WALL: "wall", SKY: "sky", BED: "bed", FLAG: "flag"}.items():
        assert names[label - 1] == name
    # By instance class: the challenge's list begins and ends like this.
    assert things[:4] == ["bed", "window ", "cabinet", "person"]
    assert things[97:] == ["radiator", "glass, drinking glass", "clock", "flag"][1:]
    assert not {"wall", "sky", "road, route", "water"} & set(things)
    assert len({tuple(c["color"]) for c in ADE20K_CATEGORIES}) == 150


def instance_png(labels, numbers):
    """R from the label, G the instance's number; 0 where that is 0."""
    classes = np.zeros(labels.shape, np.uint8)
    for label, number in INSTANCE_CLASS.items():
        classes[(labels == label) & (numbers > 0)] = number
    return np.stack([classes, numbers * (classes > 0), 0 * classes], -1).astype(np.uint8)


MAPS = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda size: st.lists(
        st.tuples(st.sampled_from([0, WALL, SKY, BED, PERSON, FLAG]), st.integers(0, 3)),
        min_size=size[0] * size[1],
        max_size=size[0] * size[1],
    ).map(lambda values: np.array(values).reshape(*size, 2))
)


@given(maps=MAPS)
def test_merge_against_a_naive_loop(maps):
    labels, numbers = maps[..., 0], maps[..., 1]
    png = instance_png(labels, numbers)
    ids, segments = merge_annotations(labels, *np.moveaxis(png[..., :2].astype(int), -1, 0))
    expected = {}
    for p in np.ndindex(*labels.shape):
        label, number = int(labels[p]), int(numbers[p])
        if label in INSTANCE_CLASS:
            key = (label, number) if number else None
        else:
            key = (label, 0) if label else None
        assert (ids[p] == 0) == (key is None)
        if key is not None:
            expected.setdefault(key, set()).add(p)
    found = {frozenset(map(tuple, np.argwhere(ids == s["id"]).tolist())) for s in segments}
    assert found == {frozenset(pixels) for pixels in expected.values()}
    for segment in segments:
        pixels = np.argwhere(ids == segment["id"])
        assert {int(labels[tuple(p)]) for p in pixels} == {segment["category_id"] + 1}
        (top, left), (bottom, right) = pixels.min(0), pixels.max(0)
        assert segment["bbox"] == [left, top, right - left + 1, bottom - top + 1]
        assert segment["area"] == len(pixels) and segment["iscrowd"] == 0


def write_ade(root):
    """Two pictures a split: sky over wall, two people, a bed, a car without an instance, other."""
    folder = root / "ADEChallengeData2016"
    for split in ("training", "validation"):
        for index in range(2):
            labels = np.full((20, 24), SKY, np.uint8)
            labels[8:] = WALL
            numbers = np.zeros_like(labels)
            for number, (y, x, label) in enumerate(
                [(6, 1 + index, PERSON), (6, 10, PERSON), (12, 3, BED)], start=1
            ):
                labels[y : y + 4, x : x + 5] = label
                numbers[y : y + 4, x : x + 5] = number
            labels[15:18, 15:18] = CAR
            labels[19] = 0
            stem = f"ADE_{split[:3]}_{index:08d}"
            photo = np.repeat(labels[..., None], 3, 2)
            (folder / "images" / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(photo).save(folder / "images" / split / f"{stem}.jpg")
            write_png(folder / "annotations" / split / f"{stem}.png", labels)
            png = instance_png(labels, numbers)
            write_png(folder / "annotations_instance" / split / f"{stem}.png", png)
    return folder


def test_tool_and_panoptic_round_trip(tmp_path, catalogs):
    folder = write_ade(tmp_path)
    assert run_tool("ade20k", "--root", tmp_path, "--workers", 2) == 0
    register_all(str(tmp_path))
    for split, directory in (("train", "training"), ("val", "validation")):
        name = f"ade20k_panoptic_{split}"
        evaluator = PanopticEvaluator(name, None)
        evaluator.reset()
        for dataset_dict in load_dataset_dicts([name]):
            record = plain_mapper()(dataset_dict)
            labels = np.asarray(Image.open(folder / f"annotations/{directory}" / (
                record["image_id"] + ".png")))  # fmt: skip
            semantic = np.where(labels > 0, labels.astype(int) - 1, 255)
            assert np.array_equal(record["sem_seg"].numpy(), semantic)
            found = [(s["category_id"] + 1, s["isthing"]) for s in record["segments_info"]]
            assert sorted(found) == [
                (WALL, False), (SKY, False), (BED, True), (PERSON, True), (PERSON, True)
            ]  # fmt: skip
            # The car has no instance: void as a segment, a class as a pixel.
            ids = record["segment_ids"].numpy()
            assert np.array_equal(ids == 0, (labels == 0) | (labels == CAR))
            evaluator.process(
                [record], [{"panoptic_seg": (record["segment_ids"], record["segments_info"])}]
            )
        assert evaluator.evaluate()["panoptic_seg"]["PQ"] == pytest.approx(100.0)
        content = json.loads((folder / f"{name}.json").read_text())
        assert content["categories"] == ADE20K_CATEGORIES
        assert content["images"][0]["file_name"] == f"ADE_{directory[:3]}_00000000.jpg"
    assert not list(folder.glob("*.partial"))


def test_semantic_only_serves_detectron2s_name(tmp_path, catalogs):
    folder = write_ade(tmp_path)
    (folder / "annotations_instance").rename(tmp_path / "elsewhere")
    assert run_tool("ade20k", "--root", tmp_path, "--semantic-only") == 0
    assert not list(folder.glob("ade20k_panoptic*"))
    for split in ("train", "val"):
        DatasetCatalog.pop(f"ade20k_sem_seg_{split}")
        MetadataCatalog.pop(f"ade20k_sem_seg_{split}")
    register_all_ade20k(str(tmp_path))
    dicts = load_dataset_dicts(["ade20k_sem_seg_val"])
    assert [d["image_id"] for d in dicts] == ["ADE_val_00000000", "ADE_val_00000001"]
    record = plain_mapper()(dicts[1])
    labels = np.asarray(Image.open(folder / "annotations/validation/ADE_val_00000001.png"))
    assert np.array_equal(record["sem_seg"].numpy(), np.where(labels, labels.astype(int) - 1, 255))
    assert record["sem_seg"].dtype.is_signed and "segment_ids" not in record
    # One list of classes for both, so that a model may train on one and be tested on the other.
    panoptic = MetadataCatalog.get("ade20k_panoptic_val")
    assert panoptic.stuff_classes == MetadataCatalog.get("ade20k_sem_seg_val").stuff_classes
    (folder / "images").rename(tmp_path / "images")
    with pytest.raises(FileNotFoundError, match="docs/DATASETS.md"):
        load_dataset_dicts(["ade20k_sem_seg_train"])


def test_bad_labels_are_named_and_leave_no_json(tmp_path, capsys):
    folder = write_ade(tmp_path)
    convert_ade20k(str(tmp_path))
    path = folder / "annotations" / "validation" / "ADE_val_00000001.png"
    write_png(path, np.full((20, 24), 151, np.uint8))
    assert run_tool("ade20k", "--root", tmp_path, "--workers", 1) == 1
    assert f"{path} holds 151" in capsys.readouterr().err
    assert not (folder / "ade20k_panoptic_val.json").exists()
    (folder / "annotations_instance" / "validation").rename(folder / "elsewhere")
    with pytest.raises(FileNotFoundError, match="annotations_instance.tar.*--semantic-only"):
        convert_ade20k(str(tmp_path))
