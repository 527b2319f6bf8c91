"""Semantic maps: against Detectron2's own evaluator, from semantic and panoptic PNGs."""

import json

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.evaluation import SemSegEvaluator
from PIL import Image

from ldmseg_d2.evaluation import SemanticEvaluator

from .conftest import CLASSES, run_evaluator

IGNORED = 255


def one_hot(classes, num_classes=3):
    scores = torch.nn.functional.one_hot(torch.from_numpy(classes).long(), num_classes)
    return {"sem_seg": scores.permute(2, 0, 1).float()}


def load_for_detectron2(filename, copy=True, dtype=None):
    """Its own loader fails with numpy 2."""
    return np.array(Image.open(filename), dtype=dtype)


@pytest.fixture
def pictures(register, tmp_path):
    """Random maps of segments; returns (name with semantic PNGs, name without, predictions)."""
    rng = np.random.default_rng(0)
    maps, infos, outputs, extra = [], [], [], []
    for index in range(5):
        ids = rng.integers(0, 6, (4, 5)).repeat(3, 0).repeat(4, 1)
        categories = rng.choice(list(CLASSES), 6)
        present = [int(i) for i in np.unique(ids) if i]
        infos.append(
            [{"id": i, "category_id": int(categories[i]), "iscrowd": int(i == 5)} for i in present]
        )
        truth = np.array([IGNORED, *(CLASSES[c] for c in categories[1:])])[ids]
        maps.append(ids)
        path = tmp_path / f"semantic_{index}.png"
        Image.fromarray(truth.astype(np.uint8)).save(path)
        # Detectron2's evaluator finds the ground truth by the photo's name.
        extra.append({"sem_seg_file_name": str(path), "file_name": f"photo_{index}.jpg"})
        guess = (rng.random(truth.shape) < 0.4) | (truth == IGNORED)
        outputs.append(one_hot(np.where(guess, rng.integers(0, 3, truth.shape), truth)))
    return register(maps, infos, extra=extra), register(maps, infos), outputs


def test_equals_detectron2s_evaluator(pictures, tmp_path):
    with_png, without_png, outputs = pictures
    theirs = SemSegEvaluator(
        with_png, output_dir=str(tmp_path / "theirs"), sem_seg_loading_fn=load_for_detectron2
    )
    expected = run_evaluator(theirs, with_png, outputs)["sem_seg"]
    expected = {k: v for k, v in expected.items() if not k.startswith(("Boundary", "min("))}
    for name in (with_png, without_png):
        evaluator = SemanticEvaluator(name, str(tmp_path / name))
        assert run_evaluator(evaluator, name, outputs)["sem_seg"] == pytest.approx(expected)
    assert 20 < expected["mIoU"] < 80
    written = [
        json.loads((tmp_path / folder / "sem_seg_predictions.json").read_text())
        for folder in ("theirs", with_png)
    ]
    assert written[0] == written[1]


def test_things_may_be_missing_in_the_stuff_map(register, tmp_path):
    # As in Detectron2's own metadata of COCO panoptic.
    ids = np.ones((2, 2), np.int64)
    infos = [[{"id": 1, "category_id": 11}]]
    name = register([ids], infos, stuff_dataset_id_to_contiguous_id={23: 2})
    evaluator = SemanticEvaluator(name, str(tmp_path / "out"))
    assert run_evaluator(evaluator, name, [one_hot(ids)])["sem_seg"]["mIoU"] == 100
    written = json.loads((tmp_path / "out" / "sem_seg_predictions.json").read_text())
    assert [s["category_id"] for s in written] == [11]


def test_outputs_without_semantic_maps_are_left_out(pictures):
    _, name, outputs = pictures
    evaluator = SemanticEvaluator(name)
    result = run_evaluator(evaluator, name, [{}, *outputs[1:3]])
    assert run_evaluator(evaluator, name, [{}]) == {}
    evaluator.reset()
    evaluator.process(DatasetCatalog.get(name)[1:3], outputs[1:3])
    assert result["sem_seg"] == pytest.approx(evaluator.evaluate()["sem_seg"], nan_ok=True)


def test_errors_say_what_is_wrong(register, tmp_path):
    ids = np.ones((2, 2), np.int64)
    path = tmp_path / "wrong.png"
    Image.fromarray(np.full((2, 2), 3, np.uint8)).save(path)
    bare = register([ids], stuff_classes=["a"])
    with pytest.raises(ValueError, match="images of .*'sem_seg_file_name' nor"):
        SemanticEvaluator(bare)
    wrong = register([ids], [[]], extra=[{"sem_seg_file_name": str(path)}])
    with pytest.raises(ValueError, match="has 4 classes, .* has 3"):
        run_evaluator(SemanticEvaluator(wrong), wrong, [one_hot(ids, 4)])
    with pytest.raises(ValueError, match=r"wrong.png holds \[3\]; allowed are the classes 0..2"):
        run_evaluator(SemanticEvaluator(wrong), wrong, [one_hot(ids)])
