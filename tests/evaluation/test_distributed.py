"""All evaluators with the images shared out between two processes: the numbers of one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluators
from detectron2.utils import comm
from PIL import Image

from ldmseg_d2.engine import launch
from ldmseg_d2.evaluation import (
    ClassAgnosticPanopticEvaluator,
    DepthEvaluator,
    InstanceAPEvaluator,
    PanopticEvaluator,
    SemanticEvaluator,
)
from ldmseg_d2.panoptic import panoptic_to_semantic

from .conftest import as_instances, as_output

NUM_IMAGES = 5


def evaluate_part(records, metadata, indices, folder):
    """Register, evaluate some images and write what this process gets."""
    DatasetCatalog.register("two_ranks", lambda: records)
    MetadataCatalog.get("two_ranks").set(**metadata)
    kinds = (PanopticEvaluator, InstanceAPEvaluator, SemanticEvaluator)
    evaluators = [kind("two_ranks", str(folder)) for kind in kinds]
    evaluators.append(ClassAgnosticPanopticEvaluator("two_ranks"))
    evaluators.append(DepthEvaluator("two_ranks", alignment="scale_and_shift"))
    evaluator = DatasetEvaluators(evaluators)
    evaluator.reset()
    for index in indices:
        evaluator.process([records[index]], [predict(index)])
    result = evaluator.evaluate()
    DatasetCatalog.remove("two_ranks")
    MetadataCatalog.remove("two_ranks")
    return result


def predict(index):
    """Some output of an image: two segments that shift with the index."""
    ids = np.ones((12, 16), np.int64)
    ids[2 : 8 + index % 3, 3 + index : 9] = 2
    info = [
        {"id": 1, "category_id": 2, "isthing": False, "score": 0.5, "area": 1},
        {"id": 2, "category_id": index % 2, "isthing": True, "score": 0.9, "area": 1},
    ]
    output = as_output(ids, info)
    instances = as_instances([ids == 2], [index % 2], [0.3 + 0.1 * index])
    semantic = panoptic_to_semantic(*output["panoptic_seg"], 3)
    return {**output, **instances, "sem_seg": semantic, "depth": torch.from_numpy(ids + 0.5)}


def run_rank(folder, records, metadata):
    rank = comm.get_rank()
    result = evaluate_part(records, metadata, range(rank, NUM_IMAGES, 2), Path(folder, "two"))
    Path(folder, f"result_{rank}.json").write_text(json.dumps(result))


def test_two_processes_equal_one(register, tmp_path):
    maps, infos, extra = [], [], []
    for index in range(NUM_IMAGES):
        ids = np.full((12, 16), 9, np.int64)
        ids[2:9, 4:10] = 70000
        ids[0, index] = 0
        maps.append(ids)
        infos.append([{"id": 9, "category_id": 23}, {"id": 70000, "category_id": 7}])
        path = tmp_path / f"depth_{index}.png"
        Image.fromarray((ids % 100 * 40).astype(np.uint16)).save(path)
        extra.append({"depth_file_name": str(path), "depth_scale": 256.0})
    name = register(maps, infos, extra=extra)
    records = DatasetCatalog.get(name)
    metadata = {k: v for k, v in MetadataCatalog.get(name).as_dict().items() if k != "name"}
    launch(run_rank, 2, device="cpu", args=(str(tmp_path), records, metadata))
    result, other = (json.loads((tmp_path / f"result_{r}.json").read_text()) for r in range(2))
    assert not other  # only the main process has results
    alone = evaluate_part(records, metadata, range(NUM_IMAGES), tmp_path / "one")
    assert result.keys() == alone.keys()
    for key, metrics in alone.items():
        assert result[key] == pytest.approx(metrics, nan_ok=True), key
    assert alone["depth"]["images"] == NUM_IMAGES and 0 < alone["sem_seg"]["mIoU"] < 100
    for written in ("sem_seg_predictions.json", "coco_instances_results.json"):
        one, two = (json.loads((tmp_path / f / written).read_text()) for f in ("one", "two"))
        assert len(one) == len(two)
    assert len(list((tmp_path / "two" / "predictions").glob("*.png"))) == NUM_IMAGES
