"""Which evaluators are chosen, and that Detectron2's own runs on our data with perfect results."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import _get_builtin_metadata
from detectron2.data.datasets.coco_panoptic import load_coco_panoptic_json
from detectron2.evaluation import COCOPanopticEvaluator, SemSegEvaluator
from PIL import Image

from ldmseg_d2.data.panoptic_annotations import read_id_png
from ldmseg_d2.evaluation import (
    ClassAgnosticPanopticEvaluator,
    PanopticEvaluator,
    ReconstructionEvaluator,
    build_evaluator,
    predicts_classes,
)

from .conftest import as_output, run_evaluator

COCO = Path(__file__).parents[3] / "shared" / "datasets" / "coco"


def config(meta_arch):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = meta_arch
    return cfg


def kinds(evaluators):
    return [type(e) for e in evaluators._evaluators]


@pytest.fixture
def tiny(register):
    """Two images with things, stuff and void; returns (name, perfect outputs)."""
    first = np.array([[1, 1, 2], [1, 1, 2], [300, 300, 0]]).repeat(4, 0).repeat(4, 1)
    second = np.array([[70000, 70000], [5, 5]]).repeat(6, 0).repeat(6, 1)
    infos = [
        [
            {"id": 1, "category_id": 7},
            {"id": 2, "category_id": 11},
            {"id": 300, "category_id": 23},
        ],
        [{"id": 70000, "category_id": 7}, {"id": 5, "category_id": 23}],
    ]
    name = register([first, second], infos)
    return name, perfect_outputs(name)


def perfect_outputs(name):
    outputs = []
    for record in DatasetCatalog.get(name):
        ids = read_id_png(record["pan_seg_file_name"])
        things = MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id.values()
        info = [
            {
                "id": s["id"],
                "category_id": s["category_id"],
                "isthing": s.get("isthing", s["category_id"] in things),
                "score": 1.0,
                "area": int((ids == s["id"]).sum()),
            }
            for s in record["segments_info"]
        ]
        outputs.append(as_output(ids, info))
    return outputs


def test_models_and_data_sets_choose_their_evaluators(tiny, register):
    name, _ = tiny
    bare = register([np.ones((2, 2), np.int64)], evaluator_type="class_agnostic_panoptic")
    assert kinds(build_evaluator(config("LDMSegAutoencoder"), name)) == [ReconstructionEvaluator]
    assert kinds(build_evaluator(config("LDMSeg"), name)) == [ClassAgnosticPanopticEvaluator]
    both = [PanopticEvaluator, ClassAgnosticPanopticEvaluator]
    assert kinds(build_evaluator(config("PanopticFPN"), name)) == both
    assert kinds(build_evaluator(config("PanopticFPN"), bare)) == both[1:]
    assert [predicts_classes(config(m)) for m in ("LDMSeg", "LDMSegAutoencoder", "X")] == [
        False,
        False,
        True,
    ]


def test_unknown_evaluator_type_names_the_allowed_ones(register):
    name = register([np.ones((2, 2), np.int64)], evaluator_type="lvis")
    with pytest.raises(ValueError, match="'lvis'.*scenes_panoptic, coco_panoptic_seg"):
        build_evaluator(config("LDMSeg"), name)


def test_perfect_predictions_with_and_without_classes(tiny, tmp_path):
    name, outputs = tiny
    before = copy.deepcopy([o["panoptic_seg"][1] for o in outputs])
    evaluator = build_evaluator(config("PanopticFPN"), name, str(tmp_path / "out"))
    result = run_evaluator(evaluator, name, outputs)
    assert result["panoptic_class_agnostic"]["PQ"] == 100
    assert all(value == 100 for value in result["panoptic_seg"].values())
    assert [o["panoptic_seg"][1] for o in outputs] == before
    for written in ("predictions.json", "predictions/photo_1.png", "panoptic_class_agnostic/1.png"):
        assert (tmp_path / "out" / written).is_file()


def test_equals_detectron2s_evaluator(tiny):
    name, outputs = tiny
    outputs[0]["panoptic_seg"][0][0:5, 0:3] = 2  # takes a bite out of segment 1
    outputs[1]["panoptic_seg"][1][0]["category_id"] = 1  # a wrong class
    ours = run_evaluator(PanopticEvaluator(name), name, copy.deepcopy(outputs))["panoptic_seg"]
    theirs = run_evaluator(COCOPanopticEvaluator(name), name, outputs)["panoptic_seg"]
    assert ours == pytest.approx(theirs) and 0 < ours["PQ"] < 100


def test_a_part_of_the_data_set_without_things(register):
    ids = np.ones((4, 4), np.int64)
    name = register([ids, ids], [[{"id": 1, "category_id": 23}]] * 2)
    result = run_evaluator(PanopticEvaluator(name), name, perfect_outputs(name)[:1])
    assert result["panoptic_seg"]["PQ"] == 100 and result["panoptic_seg"]["PQ_th"] == 0
    missing = run_evaluator(PanopticEvaluator(name), name, [{}])
    assert missing["panoptic_seg"]["PQ"] == 0


def test_semantic_maps_are_evaluated_where_there_are_some(register, tmp_path):
    ids = np.array([[1, 1], [2, 2]]).repeat(8, 0).repeat(8, 1)
    infos = [[{"id": 1, "category_id": 7}, {"id": 2, "category_id": 23}]]
    name = register([ids], infos, sem_seg_root=str(tmp_path))
    semantic = np.where(ids == 1, 0, 2).astype(np.uint8)
    Image.fromarray(semantic).save(tmp_path / "semantic.png")
    records = DatasetCatalog.get(name)
    records[0]["sem_seg_file_name"] = str(tmp_path / "semantic.png")
    DatasetCatalog.remove(name)
    DatasetCatalog.register(name, lambda: records)
    evaluator = build_evaluator(config("PanopticFPN"), name)
    assert kinds(evaluator)[-1] is SemSegEvaluator
    outputs = perfect_outputs(name)
    outputs[0]["sem_seg"] = torch.nn.functional.one_hot(torch.from_numpy(semantic).long(), 3)
    outputs[0]["sem_seg"] = outputs[0]["sem_seg"].permute(2, 0, 1).float()
    assert run_evaluator(evaluator, name, outputs)["sem_seg"]["pACC"] == 100


@pytest.mark.skipif(not COCO.is_dir(), reason=f"the COCO sample is not at {COCO}")
def test_coco_photos_against_themselves():
    name = "coco_two_photos_of_build_test"
    metadata = _get_builtin_metadata("coco_panoptic_standard")
    json_file = str(COCO / "annotations" / "panoptic_val2017.json")
    folders = (str(COCO / "val2017"), str(COCO / "panoptic_val2017"))
    DatasetCatalog.register(name, lambda: load_coco_panoptic_json(json_file, *folders, metadata))
    MetadataCatalog.get(name).set(
        panoptic_json=json_file,
        panoptic_root=folders[1],
        evaluator_type="coco_panoptic_seg",
        **metadata,
    )
    try:
        evaluator = build_evaluator(config("PanopticFPN"), name)
        result = run_evaluator(evaluator, name, perfect_outputs(name))
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    assert result["panoptic_seg"]["PQ"] == 100
    agnostic = result["panoptic_class_agnostic"]
    # 18 and 32 segments are annotated, of which 1 and 2 are crowds.
    assert agnostic["PQ"] == 100 and (agnostic["TP"], agnostic["FP"], agnostic["FN"]) == (47, 0, 0)
    assert agnostic["segments_per_image"] == 25 and agnostic["gt_segments_per_image"] == 23.5
