"""Cityscapes, in the files that cityscapesscripts writes: our name and Detectron2's."""

import json

import numpy as np
import pytest
from detectron2.data import MetadataCatalog

from ldmseg_d2.data import load_dataset_dicts, register_all
from ldmseg_d2.evaluation import PanopticEvaluator

from .helpers import id2rgb, write_png
from .test_dataset_mapper import plain_mapper

# Label id: trainId, whether it has instances. 3 (out of roi) is not evaluated.
LABELS = {7: (0, 0), 11: (2, 0), 23: (10, 0), 24: (11, 1), 26: (13, 1)}


def instance_ids(index):
    """As in *_instanceIds.png: the label, or label x 1000 + n; a group of cars has no n."""
    ids = np.full((16, 32), 7)
    ids[:4] = 23
    ids[4:8] = 11
    ids[6:10, 2 + index : 6 + index] = 24000
    ids[6:10, 8:12] = 26000
    ids[6:10, 14:18] = 26001
    ids[6:10, 20:30] = 26
    ids[14:] = 3
    return ids


def write_cityscapes(root):
    folder, split = root / "cityscapes", "val"
    images, annotations = [], []
    for index, city in enumerate(["aachen", "bad-honnef"]):
        image_id = f"{city}_000000_00001{index}"
        ids = instance_ids(index)
        photo = np.repeat((ids % 251)[..., None], 3, -1).astype(np.uint8)
        write_png(folder / "leftImg8bit" / split / city / f"{image_id}_leftImg8bit.png", photo)
        segments = []
        for value in np.unique(ids).tolist():
            label = value // 1000 if value >= 1000 else value
            if label not in LABELS:
                ids[ids == value] = 0
                continue
            segments.append(
                {
                    "id": value,
                    "category_id": label,
                    "area": int((ids == value).sum()),
                    "iscrowd": int(LABELS[label][1] and value < 1000),
                }
            )
        name = f"{image_id}_gtFine_panoptic.png"
        write_png(folder / "gtFine" / f"cityscapes_panoptic_{split}" / name, id2rgb(ids))
        file_name = f"{image_id}_gtFine_leftImg8bit.png"  # of no file, as cityscapesscripts has it
        images.append({"id": image_id, "file_name": file_name, "height": 16, "width": 32})
        annotations.append({"image_id": image_id, "file_name": name, "segments_info": segments})
    categories = [{"id": i, "name": str(i), "isthing": t} for i, (_, t) in LABELS.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path = folder / "gtFine" / f"cityscapes_panoptic_{split}.json"
    path.write_text(json.dumps(content))
    return folder


def check(name):
    """Maps and evaluates the ground truth against itself."""
    evaluator = PanopticEvaluator(name, None)
    evaluator.reset()
    dicts = load_dataset_dicts([name])
    assert [d["image_id"] for d in dicts] == ["aachen_000000_000010", "bad-honnef_000000_000011"]
    for index, dataset_dict in enumerate(dicts):
        record = plain_mapper()(dataset_dict)
        ids = instance_ids(index)
        expected = np.full(ids.shape, 255)
        for label, (train_id, _) in LABELS.items():
            expected[(ids == label) | (ids // 1000 == label)] = train_id
        assert np.array_equal(record["sem_seg"].numpy(), expected)
        segments = [(s["category_id"], s["isthing"]) for s in record["segments_info"]]
        things = [(11, True), (13, True), (13, True)]
        assert sorted(segments) == [(0, False), (2, False), (10, False), *things]
        # The group of cars is no segment, but has its class.
        assert (record["segment_ids"].numpy()[ids == 26] == 0).all()
        assert (record["sem_seg"].numpy()[ids == 26] == 13).all()
        output = {"panoptic_seg": (record["segment_ids"], record["segments_info"])}
        evaluator.process([record], [output])
    assert evaluator.evaluate()["panoptic_seg"]["PQ"] == pytest.approx(100.0)


def test_our_name_needs_no_train_ids_and_takes_any_path(tmp_path, catalogs):
    root = tmp_path / "v1.0" / "data"
    write_cityscapes(root)
    register_all(str(root))
    check("cityscapes_panoptic_val")
    metadata = MetadataCatalog.get("cityscapes_panoptic_val")
    assert len(metadata.stuff_classes) == len(metadata.thing_classes) == 19
    assert sorted(metadata.stuff_dataset_id_to_contiguous_id.values()) == list(range(19))
    assert sorted(metadata.thing_dataset_id_to_contiguous_id.values()) == list(range(11, 19))
    assert metadata.stuff_classes[13] == "car" and metadata.stuff_classes[0] == "road"
    with pytest.raises(FileNotFoundError, match="cityscapes_panoptic_train.*csCreatePanopticImgs"):
        load_dataset_dicts(["cityscapes_panoptic_train"])
