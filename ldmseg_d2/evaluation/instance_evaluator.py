"""Mask AP of the things (pycocotools), for any data set with panoptic ground truth."""

import contextlib
import io
import json
import logging
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..data.annotations import read_id_png
from .gather import gather_by_image

logger = logging.getLogger(__name__)

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


class InstanceAPEvaluator(DatasetEvaluator):
    """COCO's average precision of masks, computed by pycocotools.

    The metrics are those of Detectron2's :class:`COCOEvaluator`, which wants a JSON of instances.
    Here the ground truth are the things of the panoptic PNGs; COCO's published numbers are measured
    against its JSON of instances, in which masks may overlap.

    Only images that were processed are evaluated; without ``instances`` an image counts as one
    where nothing was found.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None):
        """``output_dir``: of ``coco_instances_results.json``, COCO's results; None: not kept."""
        self._dataset_name, self._output_dir = dataset_name, output_dir
        metadata = MetadataCatalog.get(dataset_name)
        things = metadata.thing_dataset_id_to_contiguous_id
        self._dataset_ids = {contiguous: dataset_id for dataset_id, contiguous in things.items()}
        self._names = {d: metadata.thing_classes[c] for d, c in things.items()}
        self._records = {r["image_id"]: r for r in DatasetCatalog.get(dataset_name)}
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        self._entries: list[dict[str, Any]] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take predictions: ``image_id``, and Detectron2's ``instances`` with ``pred_masks``."""
        for entry, output in zip(inputs, outputs):
            image_id, found = entry["image_id"], None
            if output.get("instances") is not None:
                found = instances_to_coco_json(output["instances"].to("cpu"), image_id)
            for instance in found or ():
                # With a box, pycocotools takes the box's area for small, medium and large.
                del instance["bbox"]
                if instance["category_id"] not in self._dataset_ids:
                    raise ValueError(
                        f"image_id {image_id!r} has class {instance['category_id']}, which is no "
                        f"thing of {self._dataset_name!r}; things are {sorted(self._dataset_ids)}"
                    )
                instance["category_id"] = self._dataset_ids[instance["category_id"]]
            self._entries.append({"image_id": image_id, "found": found})

    def evaluate(self) -> OrderedDict | None:
        """On the main process ``{"segm": metrics}``, else None. Call it from every process.

        Metrics: see :func:`mask_average_precision`; ``{}`` if no output had ``instances``.
        """
        entries = gather_by_image(self._entries)
        if entries is None:
            return None
        if all(entry["found"] is None for entry in entries.values()):
            logger.warning("segm: no output has 'instances': AP is left out")
            return OrderedDict()
        found = [instance for entry in entries.values() for instance in entry["found"] or ()]
        if self._output_dir is not None:
            path = Path(self._output_dir, "coco_instances_results.json")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found))
        metrics = mask_average_precision(self._ground_truth(entries), found, list(entries))
        return OrderedDict({"segm": metrics})

    def _ground_truth(self, image_ids: Collection[Any]) -> COCO:
        images, annotations = [], []
        for image_id in image_ids:
            ids = read_id_png(self._records[image_id]["pan_seg_file_name"])
            images.append({"id": image_id, "height": ids.shape[0], "width": ids.shape[1]})
            for segment in self._records[image_id]["segments_info"]:
                if segment["category_id"] in self._dataset_ids:
                    mask = np.asfortranarray(ids == segment["id"], dtype=np.uint8)
                    found = {"image_id": image_id, "iscrowd": int(segment.get("iscrowd", 0))}
                    found["category_id"] = self._dataset_ids[segment["category_id"]]
                    found.update(area=int(mask.sum()), segmentation=mask_util.encode(mask))
                    annotations.append(found)
        return _coco(images, annotations, [{"id": i, "name": n} for i, n in self._names.items()])


def mask_average_precision(
    truth: COCO, found: list[dict], image_ids: list[Any]
) -> dict[str, float]:
    """pycocotools' average precision of masks of some images, with its default parameters.

    ``found`` are COCO results: ``image_id``, ``category_id``, ``score``, ``segmentation``.

    Returns:
        "AP", "AP50", "AP75", "APs", "APm", "APl" and "AP-NAME" of each category, in percent; NaN
        where the ground truth has nothing of that kind.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        # loadRes fails without any result.
        results = truth.loadRes(found) if found else _coco([], [], truth.dataset["categories"])
        evaluation = COCOeval(truth, results, "segm")
        evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = dict(zip(METRICS, evaluation.stats, strict=False))
    # (IoU thresholds, recalls, categories, area ranges, numbers of detections)
    precision = evaluation.eval["precision"][..., 0, -1]
    for index, category_id in enumerate(evaluation.params.catIds):
        known = precision[:, :, index][precision[:, :, index] > -1]
        values[f"AP-{truth.cats[category_id]['name']}"] = known.mean() if known.size else -1
    return {name: 100 * float(v) if v > -1 else float("nan") for name, v in values.items()}


def _coco(images: list[dict], annotations: list[dict], categories: list[dict]) -> COCO:
    api = COCO()
    numbered = [{**a, "id": number} for number, a in enumerate(annotations, start=1)]
    api.dataset = {"images": images, "annotations": numbered, "categories": categories}
    with contextlib.redirect_stdout(io.StringIO()):
        api.createIndex()
    return api
