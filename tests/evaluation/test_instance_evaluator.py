"""Mask AP: worked out by hand, against Detectron2's evaluator, and on odd data sets."""

import json
import math

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import BitMasks, Instances

from ldmseg_d2.data.panoptic_annotations import read_id_png
from ldmseg_d2.evaluation import InstanceAPEvaluator

from .conftest import CLASSES, THINGS, as_instances, run_evaluator

BALL, BOX, GRASS = 7, 11, 23


def no_instances(size):
    instances = Instances(size)
    instances.pred_masks = torch.zeros(0, *size, dtype=torch.bool)
    instances.pred_boxes = BitMasks(instances.pred_masks).get_bounding_boxes()
    instances.pred_classes = torch.zeros(0, dtype=torch.int64)
    instances.scores = torch.zeros(0)
    return {"instances": instances}


def boxes_scene(rng, size=(130, 150), most=6):
    """An id map of random boxes over grass, and its segments; the last id is a crowd."""
    ids = np.full(size, 300, np.int64)
    for value in range(1, most + 1):
        y, x = rng.integers(0, size[0] // 2), rng.integers(0, size[1] // 2)
        ids[y : y + rng.integers(8, 120), x : x + rng.integers(8, 140)] = value
    ids[0] = 0
    info = [{"id": 300, "category_id": GRASS}] if (ids == 300).any() else []
    for value in np.unique(ids[(ids > 0) & (ids < 300)]).tolist():
        category = int(rng.choice([BALL, BOX]))
        info.append({"id": value, "category_id": category, "iscrowd": int(value == most)})
    return ids, info


def noisy_output(rng, ids, info):
    """Shifted masks of three of four things, some of a wrong class."""
    masks, classes, scores = [], [], []
    for segment in info:
        if segment["category_id"] == GRASS:
            continue
        for _ in range(int(rng.integers(0, 4) > 0)):
            shift = tuple(rng.integers(-5, 6, 2))
            mask = np.roll(ids == segment["id"], shift, axis=(0, 1))
            masks.append(mask)
            right = CLASSES[segment["category_id"]]
            classes.append(right if rng.random() < 0.8 else 1 - right)
            scores.append(float(rng.random()))
    return as_instances(masks, classes, scores) if masks else no_instances(ids.shape)


def write_instances_json(path, name):
    """The things as Detectron2 wants them; written with loops, apart from the code under test."""
    images, annotations = [], []
    dataset_ids = {c: d for d, c in THINGS.items()}
    for record in DatasetCatalog.get(name):
        ids = read_id_png(record["pan_seg_file_name"])
        images.append({"id": record["image_id"], "height": ids.shape[0], "width": ids.shape[1]})
        for segment in record["segments_info"]:
            if segment["category_id"] not in dataset_ids:
                continue
            ys, xs = np.nonzero(ids == segment["id"])
            rle = mask_util.encode(np.asfortranarray((ids == segment["id"]).astype(np.uint8)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": record["image_id"],
                    "category_id": dataset_ids[segment["category_id"]],
                    "iscrowd": segment["iscrowd"],
                    "area": len(ys),
                    "bbox": [
                        int(xs.min()),
                        int(ys.min()),
                        int(np.ptp(xs)) + 1,
                        int(np.ptp(ys)) + 1,
                    ],
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                }
            )
    categories = [{"id": BALL, "name": "ball"}, {"id": BOX, "name": "box"}]
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))


def test_by_hand(register):
    # Two balls of 100 px. Found: the first exactly, score 0.9; of the second 62 px, score 0.8: IoU
    # 0.62; nothing at all with score 0.1, which comes after full recall. So at the thresholds 0.5,
    # 0.55 and 0.6 AP is 1; at the other seven the second is missed and recall ends at 1/2: of the
    # recalls 0, 0.01, ..., 1, the 51 up to 0.5 have precision 1: AP 51 / 101.
    ids = np.zeros((20, 40), np.int64)
    ids[0:10, 0:10], ids[0:10, 20:30], ids[12:] = 1, 2, 3
    infos = [
        [
            {"id": 1, "category_id": BALL},
            {"id": 2, "category_id": BALL},
            {"id": 3, "category_id": GRASS},
        ]
    ]
    name = register([ids], infos)
    second = ids == 2
    second[9], second[:, 28:30], second[3:5, 21:26] = False, False, False
    assert second.sum() == 62
    nothing = np.zeros(ids.shape, bool)
    nothing[15:18, 30:35] = True
    output = as_instances([ids == 1, second, nothing], [0, 0, 0], [0.9, 0.8, 0.1])
    results = run_evaluator(InstanceAPEvaluator(name), name, [output])
    assert list(results) == ["segm"]
    assert results["segm"]["AP"] == pytest.approx(100 * (3 + 7 * 51 / 101) / 10)
    assert results["segm"]["AP50"] == pytest.approx(100)
    assert results["segm"]["AP75"] == pytest.approx(100 * 51 / 101)
    assert results["segm"]["AP-ball"] == results["segm"]["AP"] == results["segm"]["APs"]
    assert math.isnan(results["segm"]["AP-box"]) and math.isnan(results["segm"]["APl"])


def test_equals_detectron2s_evaluator(register, tmp_path):
    rng = np.random.default_rng(0)
    scenes = [boxes_scene(rng) for _ in range(12)]
    ids, infos = [list(part) for part in zip(*scenes)]
    name, with_json = register(ids, infos), register(ids, infos)
    write_instances_json(tmp_path / "instances.json", name)
    MetadataCatalog.get(with_json).set(json_file=str(tmp_path / "instances.json"))
    outputs = [noisy_output(rng, *scene) for scene in scenes]
    theirs = COCOEvaluator(
        with_json, output_dir=str(tmp_path / "theirs"), use_fast_impl=False, distributed=False
    )
    # Theirs knows all three classes; pycocotools only those of the JSON.
    MetadataCatalog.get(with_json).thing_classes.pop()
    expected = run_evaluator(theirs, with_json, outputs)
    for other in (name, with_json):
        evaluator = InstanceAPEvaluator(other, str(tmp_path / other))
        ours = run_evaluator(evaluator, other, outputs)
        assert ours["segm"] == pytest.approx(expected["segm"], nan_ok=True, abs=1e-6)
    assert 10 < expected["segm"]["AP"] < 90 and expected["segm"]["APl"] > 0
    theirs, ours = (
        json.loads((tmp_path / folder / "coco_instances_results.json").read_text())
        for folder in ("theirs", name)
    )
    assert [{**one, "bbox": None} for one in ours] == [{**one, "bbox": None} for one in theirs]


def test_only_processed_images_count(register):
    rng = np.random.default_rng(1)
    scenes = [boxes_scene(rng) for _ in range(6)]
    ids, infos = [list(part) for part in zip(*scenes)]
    outputs = [noisy_output(rng, *scene) for scene in scenes]
    whole, part = register(ids, infos), register(ids[:2], infos[:2])
    ours = run_evaluator(InstanceAPEvaluator(whole), whole, outputs[:2])
    expected = run_evaluator(InstanceAPEvaluator(part), part, outputs[:2])
    assert ours["segm"] == pytest.approx(expected["segm"], nan_ok=True)
    everything = run_evaluator(InstanceAPEvaluator(whole), whole, outputs)
    assert everything["segm"]["AP"] != ours["segm"]["AP"]


def test_a_crowd_counts_neither_for_nor_against(register):
    ids = np.zeros((10, 30), np.int64)
    ids[:, :10], ids[:, 10:] = 1, 2
    infos = [[{"id": 1, "category_id": BALL}, {"id": 2, "category_id": BALL, "iscrowd": 1}]]
    name = register([ids], infos)
    inside = ids == 2
    inside[:, 20:] = False
    output = as_instances([inside, ids == 1], [0, 0], [0.9, 0.8])
    assert run_evaluator(InstanceAPEvaluator(name), name, [output])["segm"]["AP"] == pytest.approx(
        100
    )
    # The same, were it no crowd: half of the ball 2 was found, with IoU 0.5.
    name = register([ids], [[{**s, "iscrowd": 0} for s in infos[0]]])
    assert run_evaluator(InstanceAPEvaluator(name), name, [output])["segm"]["AP"] < 60


def test_things_last_among_the_classes_and_image_ids_that_are_names(register):
    ids = np.array([[1, 2], [3, 3]]).repeat(6, 0).repeat(6, 1)
    infos = [[{"id": i, "category_id": c} for i, c in ((1, BALL), (2, BOX), (3, GRASS))]]
    # Only box (class 1) and grass (class 2) are things.
    things = {BOX: 1, GRASS: 2}
    name = register(
        [ids], infos, extra=[{"image_id": "town_1"}], thing_dataset_id_to_contiguous_id=things
    )
    output = as_instances([ids == 2, ids == 3], [1, 2], [0.5, 0.6])
    result = run_evaluator(InstanceAPEvaluator(name), name, [output])["segm"]
    assert result["AP"] == pytest.approx(100) and {"AP-box", "AP-grass"} < result.keys()
    assert "AP-ball" not in result
    wrong = as_instances([ids == 1], [0], [0.5])
    with pytest.raises(ValueError, match=r"'town_1' has class 0, which is no thing.*\[1, 2\]"):
        run_evaluator(InstanceAPEvaluator(name), name, [wrong])


def test_nothing_found_is_zero_and_no_key_is_no_result(register):
    ids = np.ones((4, 4), np.int64)
    name = register([ids, ids], [[{"id": 1, "category_id": BALL}]] * 2)
    evaluator = InstanceAPEvaluator(name)
    empty = run_evaluator(evaluator, name, [no_instances((4, 4)), {}])
    assert empty["segm"]["AP"] == 0
    assert run_evaluator(evaluator, name, [{}, {}]) == {}
    # An image without things: whatever is found there is wrong.
    name = register([ids], [[{"id": 1, "category_id": GRASS}]])
    output = as_instances([ids == 1], [0], [0.5])
    assert math.isnan(run_evaluator(InstanceAPEvaluator(name), name, [output])["segm"]["AP"])


def test_a_json_of_other_categories_is_not_used(register, tmp_path, caplog):
    ids = np.ones((4, 4), np.int64)
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": [{"id": 1}]}))
    name = register([ids], [[{"id": 1, "category_id": BALL}]], json_file=str(path))
    output = as_instances([ids == 1], [0], [0.5])
    assert run_evaluator(InstanceAPEvaluator(name), name, [output])["segm"]["AP"] == pytest.approx(
        100
    )
    assert "other categories" in caplog.text
