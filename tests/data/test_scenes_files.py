"""The generated scenes as files: what is written, registered and evaluated."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOPanopticEvaluator
from PIL import Image

from ldmseg_d2.data.datasets import register_panoptic_dataset
from ldmseg_d2.data.datasets.scenes import (
    SCENES_CATEGORIES,
    generate_scene,
    panoptic_id,
    register_scenes,
    split_seed,
    write_scenes,
)

ROOT = Path(__file__).resolve().parents[2]
COUNT, SEED = 12, 5
NAME = "scenes_for_tests"  # importing the package registers "scenes" itself


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """The folder of data sets, with both splits of NAME written by one process."""
    root = tmp_path_factory.mktemp("datasets")
    for split in ("train", "val"):
        write_scenes(root / NAME, split, num_images=COUNT, seed=SEED)
    return root


@pytest.fixture(scope="module")
def registered(written) -> Iterator[str]:
    register_scenes(str(written), name=NAME)
    yield NAME
    for split in ("train", "val"):
        DatasetCatalog.remove(f"{NAME}_{split}")
        MetadataCatalog.remove(f"{NAME}_{split}")


def test_files_hold_what_generate_scene_returns(registered):
    for split in ("train", "val"):
        stream = split_seed(SEED, split)
        dicts = DatasetCatalog.get(f"{registered}_{split}")
        assert [d["image_id"] for d in dicts] == list(range(COUNT))
        for index, record in enumerate(dicts):
            scene = generate_scene(seed=stream, index=index)
            assert np.array_equal(np.array(Image.open(record["file_name"])), scene.image)
            assert np.array_equal(np.array(Image.open(record["sem_seg_file_name"])), scene.sem_seg)
            depth = np.array(Image.open(record["depth_file_name"])).astype(np.float32) / 256
            assert np.array_equal(depth, scene.depth)
            r, g, b = np.moveaxis(
                np.array(Image.open(record["pan_seg_file_name"]), np.int64), -1, 0
            )
            ids = np.array([panoptic_id(k) for k in range(len(scene.segments_info) + 1)])
            assert np.array_equal(r + 256 * g + 65536 * b, ids[scene.segment_ids])
            assert (record["height"], record["width"]) == (64, 64)
            for read, made in zip(record["segments_info"], scene.segments_info):
                assert read["id"] == panoptic_id(made["id"])
                assert read["category_id"] == made["category_id"] - 1
                assert read["isthing"] is bool(made["isthing"])
                for key in ("iscrowd", "area", "bbox"):
                    assert read[key] == made[key]


def test_the_number_of_processes_changes_no_byte(written, tmp_path):
    write_scenes(tmp_path / NAME, "train", num_images=COUNT, seed=SEED, num_workers=2)
    made = sorted(p for p in (tmp_path / NAME).rglob("*") if p.is_file())
    assert len(made) == 4 * COUNT + 1
    for path in made:
        assert path.read_bytes() == (written / path.relative_to(tmp_path)).read_bytes()


def test_a_finished_split_is_kept_and_another_one_refused(tmp_path, caplog):
    arguments = {"num_images": 3, "seed": 0}
    path = write_scenes(tmp_path, "val", **arguments)
    before = path.stat().st_mtime_ns
    with caplog.at_level("INFO"):
        assert write_scenes(tmp_path, "val", **arguments) == path
    assert "nothing to do" in caplog.text and path.stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_scenes(tmp_path, "val", num_images=2, seed=0)
    write_scenes(tmp_path, "val", num_images=2, seed=0, overwrite=True)
    assert len(list((tmp_path / "val").iterdir())) == 2
    assert json.loads(path.read_text())["info"]["num_images"] == 2
    with pytest.raises(ValueError, match="size is 63"):
        write_scenes(tmp_path, "val", num_images=1, size=63, seed=0)


def test_detectron2_evaluator_takes_contiguous_ids_back(registered, tmp_path):
    """The ground truth as a prediction through COCOPanopticEvaluator: PQ 100."""
    evaluator = COCOPanopticEvaluator(f"{registered}_val", str(tmp_path))
    evaluator.reset()
    for record in DatasetCatalog.get(f"{registered}_val"):
        r, g, b = np.moveaxis(np.array(Image.open(record["pan_seg_file_name"]), np.int64), -1, 0)
        keys = ("id", "category_id", "isthing")
        # A crowd is no prediction: panopticapi ignores it in the ground truth.
        segments = [{k: s[k] for k in keys} for s in record["segments_info"] if not s["iscrowd"]]
        ids = r + 256 * g + 65536 * b
        ids[~np.isin(ids, [s["id"] for s in segments])] = 0
        evaluator.process([record], [{"panoptic_seg": (torch.from_numpy(ids), segments)}])
    assert evaluator.evaluate()["panoptic_seg"]["PQ"] == pytest.approx(100.0)


def test_loader_errors_say_how_to_mend(tmp_path, catalogs):
    path = tmp_path / "panoptic.json"
    register_panoptic_dataset(
        "broken", categories=SCENES_CATEGORIES, evaluator_type="", how_to_make="make me",
        image_root="", panoptic_root=str(tmp_path), panoptic_json=str(path),
    )  # fmt: skip
    with pytest.raises(FileNotFoundError, match="panoptic.json.*make me"):
        DatasetCatalog.get("broken")
    image = {"id": 1, "file_name": "a.jpg", "height": 2, "width": 3}
    annotation = {"image_id": 1, "file_name": "a.png", "segments_info": []}
    unknown = {**annotation, "segments_info": [{"id": 1, "category_id": 99}]}
    for images, annotations, error, message in (
        ([], [annotation], ValueError, "a.png.*image_id 1"),
        ([image], [], ValueError, "no annotations"),
        ([image], [unknown], ValueError, "category_id 99"),
        ([image], [annotation], FileNotFoundError, "a.png does not exist.*make me"),
    ):
        path.write_text(json.dumps({"images": images, "annotations": annotations}))
        with pytest.raises(error, match=message):
            DatasetCatalog.get("broken")
    (tmp_path / "a.png").touch()
    (record,) = DatasetCatalog.get("broken")
    assert record["file_name"] == "a.jpg" and "depth_file_name" not in record
