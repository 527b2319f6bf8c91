"""A tiny panoptic data set on disk, and a slow PQ that is written from the paper's definition."""

import itertools
import json

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BitMasks, Instances
from panopticapi.utils import id2rgb
from PIL import Image

CATEGORIES = [
    {"id": 7, "name": "ball", "isthing": 1, "color": [250, 0, 0]},
    {"id": 11, "name": "box", "isthing": 1, "color": [0, 250, 0]},
    {"id": 23, "name": "grass", "isthing": 0, "color": [0, 0, 250]},
]
THINGS = {7: 0, 11: 1}
CLASSES = {7: 0, 11: 1, 23: 2}


def naive_pq(images):
    """PQ, SQ, RQ (fractions) and (TP, FP, FN) of class-agnostic maps, with masks and loops.

    `images`: (gt, pred, crowd ids of gt) of each image. Kirillov et al., section 4.1 and 4.2.
    """
    iou_sum, tp, fp, fn = 0.0, 0, 0, 0
    for gt, pred, crowd_ids in images:
        void = gt == 0
        ignored = void | np.isin(gt, list(crowd_ids))
        segments = [i for i in np.unique(gt) if i != 0 and i not in crowd_ids]
        matched_pred = set()
        for gt_id in segments:
            found = False
            for pred_id in np.unique(pred[pred != 0]):
                a, b = gt == gt_id, (pred == pred_id) & ~void
                iou = (a & b).sum() / (a | b).sum()
                if iou > 0.5:
                    iou_sum, tp, found = iou_sum + iou, tp + 1, True
                    matched_pred.add(pred_id)
            fn += not found
        for pred_id in np.unique(pred[pred != 0]):
            mask = pred == pred_id
            if pred_id not in matched_pred and (mask & ignored).sum() / mask.sum() <= 0.5:
                fp += 1
    sq = iou_sum / tp if tp else 0.0
    rq = tp / (tp + 0.5 * fp + 0.5 * fn) if tp + fp + fn else 0.0
    return sq * rq, sq, rq, (tp, fp, fn)


@pytest.fixture
def register(tmp_path):
    """Returns a function that writes and registers a data set of id maps; removed afterwards."""
    names, counter = [], itertools.count()

    def _register(
        maps, segments_infos=None, *, evaluator_type="scenes_panoptic", extra=None, **metadata
    ):
        """`segments_infos` None: every id is a segment of no class, and there is no JSON.

        `extra`: for each image what its dict holds besides.
        """
        name = f"tiny_{tmp_path.name}_{next(counter)}"
        root = tmp_path / name
        root.mkdir()
        dicts, annotations, images = [], [], []
        for index, ids in enumerate(maps):
            height, width = ids.shape
            Image.fromarray(id2rgb(ids)).save(root / f"{index}.png")
            record = {
                "file_name": str(root / f"photo_{index}.jpg"),
                "pan_seg_file_name": str(root / f"{index}.png"),
                "image_id": index,
                "height": height,
                "width": width,
            }
            if segments_infos is not None:
                infos = [
                    {"iscrowd": 0, "area": int((ids == s["id"]).sum()), **s}
                    for s in segments_infos[index]
                ]
                annotations.append(
                    {"image_id": index, "file_name": f"{index}.png", "segments_info": infos}
                )
                record["segments_info"] = [
                    {**s, "category_id": CLASSES[s["category_id"]]} for s in infos
                ]
            if extra is not None:
                record.update(extra[index])
            images.append({"id": index, "height": height, "width": width, "file_name": "x.jpg"})
            dicts.append(record)
        DatasetCatalog.register(name, lambda: [dict(d) for d in dicts])
        names.append(name)
        if segments_infos is not None:
            path = root / "gt.json"
            content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
            path.write_text(json.dumps(content))
            metadata = {
                "panoptic_json": str(path),
                "panoptic_root": str(root),
                "thing_dataset_id_to_contiguous_id": THINGS,
                "stuff_dataset_id_to_contiguous_id": CLASSES,
                "thing_classes": [c["name"] for c in CATEGORIES],
                "stuff_classes": [c["name"] for c in CATEGORIES],
                "ignore_label": 255,
                **metadata,
            }
        MetadataCatalog.get(name).set(evaluator_type=evaluator_type, **metadata)
        return name

    yield _register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def as_output(ids, segments_info=None):
    """A model's output for an id map; without segments_info, segments of class 0."""
    if segments_info is None:
        segments_info = [
            {"id": int(i), "category_id": 0, "isthing": True, "score": 0.5, "area": 1}
            for i in np.unique(ids[ids != 0])
        ]
    return {"panoptic_seg": (torch.from_numpy(ids.astype(np.int32)), segments_info)}


def as_instances(masks, classes, scores):
    """A model's output of instances: masks (H, W) bool, contiguous classes, scores."""
    masks = torch.from_numpy(np.stack(masks))
    instances = Instances(tuple(masks.shape[1:]))
    instances.pred_masks = masks
    instances.pred_boxes = BitMasks(masks).get_bounding_boxes()
    instances.pred_classes = torch.tensor(classes)
    instances.scores = torch.tensor(scores)
    return {"instances": instances}


def run_evaluator(evaluator, name, outputs):
    """Feed `outputs` as the predictions of the first images of the data set."""
    evaluator.reset()
    for record, output in zip(DatasetCatalog.get(name), outputs):
        evaluator.process([record], [output])
    return evaluator.evaluate()
