"""Which evaluators are chosen, and that Detectron2's own runs on our data with perfect results."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import _get_builtin_metadata
from detectron2.data.datasets.coco_panoptic import load_coco_panoptic_json
from detectron2.evaluation import COCOPanopticEvaluator
from PIL import Image

from ldmseg_d2.config import add_ldmseg_config
from ldmseg_d2.data.annotations import read_id_png
from ldmseg_d2.evaluation import (
    ClassAgnosticPanopticEvaluator,
    DepthEvaluator,
    InstanceAPEvaluator,
    PanopticEvaluator,
    ReconstructionEvaluator,
    SemanticEvaluator,
    build_evaluator,
)
from ldmseg_d2.panoptic import panoptic_to_semantic

from .conftest import as_instances, as_output, run_evaluator

COCO = Path(__file__).parents[3] / "shared" / "datasets" / "coco"


def config(meta_arch, **ldmseg):
    """Configs of other models have none of LDMSeg's keys."""
    cfg = get_cfg()
    if meta_arch.startswith("LDMSeg"):
        add_ldmseg_config(cfg)
        cfg.MODEL.LDMSEG.merge_from_other_cfg(CfgNode(ldmseg))
    cfg.MODEL.META_ARCHITECTURE = meta_arch
    return cfg


def kinds(evaluators):
    return [type(e) for e in evaluators._evaluators]


@pytest.fixture
def tiny(register):
    """Two images with things, stuff and void; returns (name, perfect outputs)."""
    first = np.array([[1, 1, 2], [1, 1, 2], [300, 300, 0]]).repeat(4, 0).repeat(4, 1)
    second = np.array([[70000, 70000], [5, 5]]).repeat(6, 0).repeat(6, 1)
    classes = {1: 7, 2: 11, 300: 23, 70000: 7, 5: 23}
    infos = [
        [{"id": i, "category_id": c} for i, c in classes.items() if i in ids]
        for ids in (first, second)
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


def with_all_kinds(outputs, num_classes):
    """Adds semantic maps and instances to outputs with `panoptic_seg`."""
    for output in outputs:
        ids, info = output["panoptic_seg"]
        output["sem_seg"] = panoptic_to_semantic(ids, info, num_classes)
        things = [s for s in info if s["isthing"]]
        masks = [(ids == s["id"]).numpy() for s in things]
        classes = [s["category_id"] for s in things]
        output.update(as_instances(masks, classes, [1.0] * len(things)))
    return outputs


INSTANCE = {ClassAgnosticPanopticEvaluator}
WITH_CLASSES = {ClassAgnosticPanopticEvaluator, PanopticEvaluator, InstanceAPEvaluator}
SEMANTIC, DEPTH = {SemanticEvaluator}, {DepthEvaluator}
# meta-architecture, its tasks and classifier, what is measured on a data set that has everything.
CHOICES = [
    ("LDMSegAutoencoder", None, {ReconstructionEvaluator}),
    ("LDMSegDepthAutoencoder", None, DEPTH),
    ("LDMSeg", None, INSTANCE),
    ("LDMSeg", (["instance"], "none"), INSTANCE),
    ("LDMSeg", (["semantic"], "none"), SEMANTIC),
    ("LDMSeg", (["depth"], "none"), DEPTH),
    ("LDMSeg", (["instance", "semantic"], "none"), INSTANCE | SEMANTIC),
    ("LDMSeg", (["instance"], "mask_pooling"), WITH_CLASSES | SEMANTIC),
    (
        "LDMSeg",
        (["instance", "semantic", "depth"], "semantic_task"),
        WITH_CLASSES | SEMANTIC | DEPTH,
    ),
    ("PanopticFPN", None, WITH_CLASSES | SEMANTIC),
]


@pytest.fixture
def rich(register, tmp_path):
    """A data set with segments, classes, things and depth."""
    path = tmp_path / "depth.png"
    Image.fromarray(np.full((2, 2), 512, np.uint16)).save(path)
    return register(
        [np.ones((2, 2), np.int64)],
        [[{"id": 1, "category_id": 7}]],
        extra=[{"depth_file_name": str(path)}],
        depth_scale=256.0,
    )


@pytest.mark.parametrize(("meta_arch", "ldmseg", "expected"), CHOICES)
def test_models_choose_their_evaluators(rich, meta_arch, ldmseg, expected):
    keys = dict(zip(("TASKS", "CLASSIFIER"), ldmseg or ()))
    chosen = kinds(build_evaluator(config(meta_arch, **keys), rich))
    assert set(chosen) == expected and len(chosen) == len(expected)


def test_data_sets_choose_their_evaluators(tiny, register, tmp_path):
    name, _ = tiny
    everything = config(
        "LDMSeg", TASKS=["instance", "semantic", "depth"], CLASSIFIER="mask_pooling"
    )
    assert set(kinds(build_evaluator(everything, name))) == WITH_CLASSES | SEMANTIC  # no depth
    ids = np.ones((2, 2), np.int64)
    bare = register([ids], evaluator_type="class_agnostic_panoptic")
    assert set(kinds(build_evaluator(everything, bare))) == INSTANCE
    stuff = register([ids], [[{"id": 1, "category_id": 23}]], thing_dataset_id_to_contiguous_id={})
    expected = {ClassAgnosticPanopticEvaluator, PanopticEvaluator, SemanticEvaluator}
    assert set(kinds(build_evaluator(everything, stuff))) == expected
    path = tmp_path / "semantic.png"
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)
    semantic = register(
        [ids],
        extra=[{"sem_seg_file_name": str(path)}],
        evaluator_type="sem_seg",
        stuff_classes=["a", "b"],
    )
    for cfg in (everything, config("PanopticFPN")):
        assert set(kinds(build_evaluator(cfg, semantic))) == SEMANTIC
    with pytest.raises(ValueError, match=r"nothing to measure: LDMSeg gives \['depth'\]"):
        build_evaluator(config("LDMSeg", TASKS=["depth"]), name)
    with pytest.raises(ValueError, match="nothing to measure: LDMSegAutoencoder"):
        build_evaluator(config("LDMSegAutoencoder"), semantic)


def test_relative_depth_is_aligned_and_metric_depth_is_not(rich):
    def abs_rel(kind):
        cfg = config("LDMSeg", TASKS=["depth"], DEPTH=CfgNode({"NORMALIZATION": kind}))
        outputs = [{"depth": torch.full((2, 2), 3.0)}]  # the truth is 2 m
        return run_evaluator(build_evaluator(cfg, rich), rich, outputs)["depth"]["AbsRel"]

    assert abs_rel("relative") == pytest.approx(0) and abs_rel("metric") == 0.5


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
    for written in ("predictions.json", "predictions/photo_1.png"):
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
        result = run_evaluator(evaluator, name, with_all_kinds(perfect_outputs(name), 133))
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    assert result["panoptic_seg"]["PQ"] == 100
    agnostic = result["panoptic_class_agnostic"]
    # 18 and 32 segments are annotated, of which 1 and 2 are crowds.
    assert agnostic["PQ"] == 100 and (agnostic["TP"], agnostic["FP"], agnostic["FN"]) == (47, 0, 0)
    assert agnostic["segments_per_image"] == 25 and agnostic["gt_segments_per_image"] == 23.5
    # The ground truth of semantic maps and instances comes from the panoptic PNGs.
    assert result["sem_seg"]["mIoU"] == pytest.approx(100)
    assert result["segm"]["AP"] == pytest.approx(100)
