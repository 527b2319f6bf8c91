"""Registered names, and COCO under Detectron2's own name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import MetadataCatalog

from ldmseg_d2.data import load_dataset_dicts, register_all

from .helpers import id2rgb, tiny_photo, write_png
from .test_dataset_mapper import plain_mapper

REPO = Path(__file__).parents[2]
SHARED = REPO.parent / "shared" / "datasets"
NAMES = [
    "scenes_train",
    "scenes_val",
    "scenes128_train",
    "scenes128_val",
    "camvid_panoptic_train",
    "camvid_panoptic_val",
    "ade20k_panoptic_train",
    "ade20k_panoptic_val",
    "cityscapes_panoptic_train",
    "cityscapes_panoptic_val",
    "coco_class_agnostic_sample",
]


def test_registering_again_moves_the_root(catalogs):
    register_all("/first")
    register_all("/second")
    for name in NAMES:
        assert MetadataCatalog.get(name).image_root.startswith("/second/")
        assert MetadataCatalog.get(name).evaluator_type
    assert MetadataCatalog.get("scenes128_val").panoptic_json.startswith("/second/scenes128/")
    for name, evaluator_type, classes, things in (
        ("camvid_panoptic_val", "coco_panoptic_seg", 11, 5),
        ("scenes_val", "scenes_panoptic", 11, 6),
        ("ade20k_panoptic_val", "ade20k_panoptic_seg", 150, 100),
        ("cityscapes_panoptic_val", "cityscapes_panoptic_seg", 19, 8),
    ):
        metadata = MetadataCatalog.get(name)
        assert metadata.evaluator_type == evaluator_type
        assert len(metadata.stuff_classes) == len(metadata.thing_classes) == classes
        assert len(metadata.thing_dataset_id_to_contiguous_id) == things
        assert set(metadata.stuff_dataset_id_to_contiguous_id.values()) == set(range(classes))


def test_class_agnostic_folders(tmp_path, catalogs):
    folder = tmp_path / "coco" / "class_agnostic"
    ids = np.zeros((6, 8), int)
    ids[:3], ids[4:] = 70000, 9
    for stem in ("000000000012", "b"):
        write_png(folder / "images" / f"{stem}.png", tiny_photo(ids, 0))
        write_png(folder / "panoptic" / f"{stem}.png", id2rgb(ids))
    register_all(str(tmp_path))
    dicts = load_dataset_dicts(["coco_class_agnostic_sample"])
    assert [d["image_id"] for d in dicts] == [12, "b"]
    record = plain_mapper()(dicts[0])
    assert [s["area"] for s in record["segments_info"]] == [16, 24]
    assert MetadataCatalog.get("coco_class_agnostic_sample").thing_classes == ["segment"]
    (folder / "images" / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match="b.png has no partner"):
        load_dataset_dicts(["coco_class_agnostic_sample"])


COCO_SCRIPT = """
import json, torch
import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOPanopticEvaluator
from panopticapi.utils import rgb2id
from PIL import Image
from ldmseg_d2.data import PanopticDatasetMapper, load_dataset_dicts
name = "coco_2017_val_panoptic"
mapper = PanopticDatasetMapper(augmentations=[], with_annotations=True)
evaluator = COCOPanopticEvaluator(name, None)
evaluator.reset()
counts = []
metadata = MetadataCatalog.get(name)
content = json.load(open(metadata.panoptic_json))
assert metadata.stuff_classes == [c["name"] for c in content["categories"]]
# COCO's 133 categories, in the order of their ids, are the contiguous classes.
contiguous = {i: k for k, i in enumerate(sorted(c["id"] for c in content["categories"]))}
isthing = {contiguous[c["id"]]: bool(c["isthing"]) for c in content["categories"]}
assert sum(isthing.values()) == 80 and len(isthing) == 133
annotations = {a["image_id"]: a for a in content["annotations"]}
for dataset_dict in load_dataset_dicts([name]):
    record = mapper(dataset_dict)
    # Every crowd is void in the ground truth that the mapper gives.
    crowds = sum(s["iscrowd"] for s in dataset_dict["segments_info"])
    assert len(record["segments_info"]) + crowds == len(dataset_dict["segments_info"])
    assert all(s["isthing"] is isthing[s["category_id"]] for s in record["segments_info"])
    annotation = annotations[record["image_id"]]
    ids = rgb2id(np.array(Image.open(metadata.panoptic_root + "/" + annotation["file_name"])))
    classes = np.full(ids.shape, 255)
    for segment in annotation["segments_info"]:
        classes[ids == segment["id"]] = contiguous[segment["category_id"]]
    assert np.array_equal(record["sem_seg"].numpy(), classes)
    seg = record["segment_ids"].to(torch.int32)
    evaluator.process([record], [{"panoptic_seg": (seg, record["segments_info"])}])
    counts.append(len(record["segments_info"]))
print(json.dumps({"counts": counts, **evaluator.evaluate()["panoptic_seg"]}))
"""


def test_coco_maps_and_evaluates_under_detectron2s_name():
    """In a process of its own: Detectron2 reads DETECTRON2_DATASETS when it is imported."""
    if not (SHARED / "coco").is_dir():
        pytest.skip(f"no COCO photos at {SHARED / 'coco'}")
    result = subprocess.run(
        [sys.executable, "-c", COCO_SCRIPT],
        env={**os.environ, "DETECTRON2_DATASETS": str(SHARED), "PYTHONPATH": str(REPO)},
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert result.returncode == 0, result.stderr
    metrics = json.loads(result.stdout.strip().splitlines()[-1])
    assert len(metrics["counts"]) == 2 and min(metrics["counts"]) > 5
    # The ground truth against itself, through the mapper, panopticapi and the JSON.
    assert metrics["PQ"] == pytest.approx(100.0) and metrics["PQ_st"] == pytest.approx(100.0)
