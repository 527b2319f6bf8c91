"""What is wrong with the data is said at once: which file, what is wrong, how to mend it."""

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from ldmseg_d2.data import build_test_loader, build_train_loader, load_dataset_dicts, register_all

from .helpers import IDS, id2rgb, tiny_config, tiny_ids, write_png


def first_record(workers=0):
    """Maps all of "tiny" through the real loader."""
    cfg = tiny_config(workers=workers, flip="none")
    cfg.INPUT.LDMSEG.ANNOTATIONS_AT_TEST = True
    return list(build_test_loader(cfg, "tiny"))


def expect(error, *words, workers=0):
    with pytest.raises(error) as info:
        first_record(workers)
    for word in words:
        assert str(word) in str(info.value)


# One case with a worker: PyTorch takes 5 s to join a worker that has raised.
@pytest.mark.parametrize(
    "folder, workers", [("photos", 0), ("panoptic", 0), ("depth", 0), ("panoptic", 1)]
)
def test_missing_file(tiny, folder, workers):
    path = tiny / folder / "002.png"
    path.unlink()
    expect(FileNotFoundError, path, "does not exist", workers=workers)


@pytest.mark.parametrize("folder", ["photos", "panoptic", "depth"])
def test_damaged_file(tiny, folder):
    path = tiny / folder / "002.png"
    content = path.read_bytes()
    for keep in (0, 20, len(content) // 2):
        path.write_bytes(content[:keep])
        expect(ValueError, path, "cannot be read", "damaged")


def test_wrong_kind_and_size(tiny):
    path = tiny / "panoptic" / "002.png"
    write_png(path, np.ones((24, 32), np.uint8))
    expect(ValueError, path, "expected 'RGB'", "R + 256 G + 65536 B")
    write_png(path, id2rgb(tiny_ids(2, width=31)))
    expect(ValueError, path, "31x24", "32x24")


def test_id_in_json_but_not_in_png(tiny):
    ids = tiny_ids(2)
    ids[ids == IDS["dot"]] = 0
    write_png(tiny / "panoptic" / "002.png", id2rgb(ids))
    expect(ValueError, tiny / "panoptic" / "002.png", "[16777215] are in segments_info but not")


def test_json_of_another_data_set(tiny):
    content = json.loads((tiny / "panoptic.json").read_text())
    for segment in content["annotations"][0]["segments_info"]:
        segment["id"] += 1
    (tiny / "panoptic.json").write_text(json.dumps(content))
    message = ["does not match its segments_info", "[6, 301, 65537, 70001, 16777216]"]
    expect(ValueError, *message, "panopticapi")


def test_unknown_data_set_names_near_matches():
    with pytest.raises(ValueError, match="'scene_train' is not registered.*'scenes_train'"):
        build_train_loader(tiny_config(train="scene_train"))
    with pytest.raises(ValueError, match=r"one of \[.*'camvid_panoptic_val'.*\]\? Data"):
        load_dataset_dicts(["camvid"])
    with pytest.raises(ValueError, match=r"'###' is not registered\. DatasetCatalog.list"):
        load_dataset_dicts(["###"])
    with pytest.raises(ValueError, match="DATASETS.TRAIN"):
        load_dataset_dicts([])


def test_missing_data_sets_say_where_and_how(tmp_path, monkeypatch, catalogs):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    register_all(str(tmp_path))
    for name, words in {
        "scenes_train": ["prepare_dataset.py scenes"],
        "camvid_panoptic_val": ["prepare_dataset.py camvid", str(tmp_path / "camvid")],
        "coco_class_agnostic_sample": ["class_agnostic"],
    }.items():
        with pytest.raises(FileNotFoundError) as info:
            load_dataset_dicts([name])
        for word in [repr(name), f"DETECTRON2_DATASETS={tmp_path}", *words]:
            assert word in str(info.value)


@pytest.mark.parametrize("error", [AssertionError("coco/val2017/1.jpg"), FileNotFoundError("x")])
def test_detectron2s_own_loaders_are_explained(monkeypatch, catalogs, error):
    def load():
        raise error

    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    DatasetCatalog.pop("coco_2017_val_panoptic", None)
    DatasetCatalog.register("coco_2017_val_panoptic", load)
    with pytest.raises(FileNotFoundError) as info:
        load_dataset_dicts(["coco_2017_val_panoptic"])
    for word in (str(error), "coco_2017_val_panoptic", "./datasets", "docs/DATASETS.md"):
        assert word in str(info.value)
