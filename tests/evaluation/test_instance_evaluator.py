"""Mask AP: worked out by hand, against Detectron2's evaluator, and on odd data sets."""

import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator

from ldmseg_d2.data.annotations import read_id_png
from ldmseg_d2.evaluation import InstanceAPEvaluator

from .conftest import CLASSES, THINGS, as_instances, run_evaluator

BALL, BOX, GRASS = 7, 11, 23


def scene(rng, size=(130, 150), most=6):
    """Random boxes over grass, the last is a crowd; their segments; shifted masks as an output."""
    ids = np.full(size, 300, np.int64)
    for value in range(1, most + 1):
        y, x = rng.integers(0, size[0] // 2), rng.integers(0, size[1] // 2)
        ids[y : y + rng.integers(8, 120), x : x + rng.integers(8, 140)] = value
    info, found = [{"id": 300, "category_id": GRASS}], []
    for value in np.unique(ids[ids < 300]).tolist():
        category = int(rng.choice([BALL, BOX]))
        info.append({"id": value, "category_id": category, "iscrowd": int(value == most)})
        if rng.random() < 0.8:
            mask = np.roll(ids == value, tuple(rng.integers(-2, 3, 2)), axis=(0, 1))
            wrong = rng.random() < 0.2
            found.append((mask, CLASSES[category] ^ int(wrong), float(rng.random())))
    return ids, info, as_instances(*map(list, zip(*found)))


def write_instances_json(path, name):
    """The things as Detectron2 wants them; written apart from the code under test."""
    images, annotations = [], []
    for record in DatasetCatalog.get(name):
        ids = read_id_png(record["pan_seg_file_name"])
        images.append({"id": record["image_id"], "height": ids.shape[0], "width": ids.shape[1]})
        for segment in record["segments_info"]:
            if segment["category_id"] not in THINGS.values():
                continue
            ys, xs = np.nonzero(ids == segment["id"])
            rle = mask_util.encode(np.asfortranarray((ids == segment["id"]).astype(np.uint8)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": record["image_id"],
                    "category_id": {c: d for d, c in THINGS.items()}[segment["category_id"]],
                    "iscrowd": segment["iscrowd"],
                    "area": len(ys),
                    "bbox": [int(v) for v in (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)],
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                }
            )
    categories = [{"id": BALL, "name": "ball"}, {"id": BOX, "name": "box"}]
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))


def test_equals_detectron2s_evaluator_also_of_a_part(register, tmp_path):
    rng = np.random.default_rng(0)
    ids, infos, outputs = (list(part) for part in zip(*(scene(rng) for _ in range(12))))
    for number in (12, 5):
        part = register(ids[:number], infos[:number])
        write_instances_json(tmp_path / "instances.json", part)
        MetadataCatalog.get(part).set(json_file=str(tmp_path / "instances.json"))
        theirs = COCOEvaluator(part, output_dir=str(tmp_path / part), use_fast_impl=False)
        # Theirs knows all three classes; pycocotools only those of the JSON.
        MetadataCatalog.get(part).thing_classes.pop()
        expected = run_evaluator(theirs, part, outputs[:number])["segm"]
        name = register(ids, infos)  # all 12 images, without that JSON
        evaluator = InstanceAPEvaluator(name, str(tmp_path / name))
        ours = run_evaluator(evaluator, name, outputs[:number])["segm"]
        assert ours == pytest.approx(expected, nan_ok=True, abs=1e-6)
        assert (tmp_path / name / "coco_instances_results.json").is_file()
        assert 10 < expected["AP"] < 90


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
    nothing = {"instances": as_instances([ids == 1], [0], [0.5])["instances"][:0]}
    evaluator = InstanceAPEvaluator(name)
    assert run_evaluator(evaluator, name, [nothing, {}])["segm"]["AP"] == 0
    assert run_evaluator(evaluator, name, [{}, {}]) == {}
