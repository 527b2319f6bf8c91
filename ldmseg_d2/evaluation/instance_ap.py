"""Mask AP of the things, for any data set with panoptic ground truth."""

import contextlib
import io
import json
import logging
import os
from collections import OrderedDict
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.utils.file_io import PathManager
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate

from ..data.annotations import read_id_png
from .gather import gather_by_image

logger = logging.getLogger(__name__)

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


class InstanceAPEvaluator(DatasetEvaluator):
    """COCO's average precision of masks and boxes, computed by pycocotools.

    Keys and metrics are those of Detectron2's :class:`COCOEvaluator`, which needs a JSON of
    instances, integer image ids and things that come first among the classes. Here the ground truth
    is the things of the panoptic PNGs (crowds are ignored regions), read where an image is
    processed. Where the metadata's ``json_file`` exists and has the things' categories, as with
    Detectron2's COCO panoptic, it is that: published numbers are measured against it.

    Only images that were processed are evaluated; without ``instances`` an image counts as one
    where nothing was found.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None):
        """
        Args:
            dataset_name: a registered data set with panoptic ground truth and things.
            output_dir: predictions are written there as ``coco_instances_results.json`` (COCO's
                format of results). None: they are not kept.

        Raises:
            ValueError: if the data set has no things.
        """
        metadata = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        self._output_dir = output_dir
        things = metadata.get("thing_dataset_id_to_contiguous_id", {})
        if not things:
            raise ValueError(f"mask AP needs things, but {dataset_name!r} has none")
        self._dataset_ids = {contiguous: dataset_id for dataset_id, contiguous in things.items()}
        names = metadata.thing_classes
        self._categories = [{"id": d, "name": names[c]} for d, c in things.items()]
        self._records = {r["image_id"]: r for r in DatasetCatalog.get(dataset_name)}
        self._official = _load_official(metadata.get("json_file", None), set(things))
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        self._entries: list[dict[str, Any]] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take the predictions of some images.

        Args:
            inputs: dicts with ``image_id``.
            outputs: dicts with ``instances``: Detectron2 Instances with ``pred_masks`` (N, H, W) at
                the ground truth's size, ``pred_boxes``, ``scores`` and contiguous ``pred_classes``
                of things.

        Raises:
            ValueError: for an image id that the data set lacks, a class that is no thing, and masks
                of another size.
        """
        for entry, output in zip(inputs, outputs):
            image_id = entry["image_id"]
            if image_id not in self._records:
                raise ValueError(f"{self._dataset_name!r} has no image_id {image_id!r}")
            truth = self._truth(image_id)
            found = []
            if output.get("instances") is not None:
                found = instances_to_coco_json(output["instances"].to("cpu"), image_id)
            for instance in found:
                self._check(instance, truth["image"])
                instance["category_id"] = self._dataset_ids[instance["category_id"]]
            has_key = output.get("instances") is not None
            self._entries.append({**truth, "found": found, "has_key": has_key})

    def _truth(self, image_id: Any) -> dict[str, Any]:
        if self._official is None:
            return thing_annotations(self._records[image_id], self._dataset_ids)
        if image_id not in self._official:
            path = MetadataCatalog.get(self._dataset_name).json_file
            raise ValueError(f"{path} has no image of id {image_id!r}, which the data set has")
        return self._official[image_id]

    def _check(self, instance: dict[str, Any], image: dict[str, Any]) -> None:
        if instance["category_id"] not in self._dataset_ids:
            raise ValueError(
                f"an instance of image_id {instance['image_id']!r} has class "
                f"{instance['category_id']}, which is no thing of {self._dataset_name!r}; things "
                f"are {sorted(self._dataset_ids)}"
            )
        size = instance.get("segmentation", {}).get("size")
        if size is not None and list(size) != [image["height"], image["width"]]:
            raise ValueError(
                f"masks of image_id {instance['image_id']!r} are {list(size)} (H, W), expected "
                f"{[image['height'], image['width']]}"
            )

    def evaluate(self) -> OrderedDict | None:
        """Compare all processed images with the ground truth. Call it from every process.

        Returns:
            On the main process ``{"bbox": metrics, "segm": metrics}``, else None; "segm" only with
            masks. Metrics: "AP", "AP50", "AP75", "APs", "APm", "APl" and "AP-NAME" of each thing,
            in percent; NaN where the ground truth has nothing of that kind. ``{}`` if no output had
            ``instances``.
        """
        entries = gather_by_image(self._entries)
        if entries is None:
            return None
        if not any(e["has_key"] for e in entries.values()):
            logger.warning("segm: no output has 'instances': AP is left out")
            return OrderedDict()
        found = [instance for e in entries.values() for instance in e["found"]]
        if self._output_dir is not None:
            PathManager.mkdirs(self._output_dir)
            path = os.path.join(self._output_dir, "coco_instances_results.json")
            with PathManager.open(path, "w") as file:
                json.dump(found, file)
        # pycocotools wants integers for image ids, and annotation ids above 0.
        numbers = {image_id: number for number, image_id in enumerate(entries, start=1)}
        truth = [{**a, "image_id": numbers[i]} for i, e in entries.items() for a in e["truth"]]
        found = [{**f, "image_id": numbers[f["image_id"]]} for f in found]
        images = [{**e["image"], "id": numbers[i]} for i, e in entries.items()]
        logger.info(f"segm: evaluating {len(images)} of {len(self._records)} images")
        has_masks = all("segmentation" in f for f in found)
        results = OrderedDict()
        for kind in ("bbox", "segm") if has_masks else ("bbox",):
            results[kind] = average_precision(images, truth, found, self._categories, kind)
            summary = {name: results[kind][name] for name in METRICS}
            rows = [list(summary.values())]
            table = tabulate(rows, list(summary), tablefmt="pipe", floatfmt=".3f")
            logger.info(f"Evaluation results for {kind}:\n{table}")
        return results


def average_precision(
    images: list[dict], truth: list[dict], found: list[dict], categories: list[dict], kind: str
) -> dict[str, float]:
    """pycocotools' average precision with its default parameters.

    Args:
        images: COCO images: ``id`` (integer), ``height``, ``width``.
        truth: COCO annotations; they get ids.
        found: COCO results: ``image_id``, ``category_id``, ``bbox``, ``score``, ``segmentation``.
        categories: COCO categories.
        kind: "bbox" or "segm".

    Returns:
        See :meth:`InstanceAPEvaluator.evaluate`.
    """
    if kind == "segm":
        # With a box, pycocotools takes the box's area for small, medium and large.
        found = [{key: v for key, v in f.items() if key != "bbox"} for f in found]
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = [{**a, "id": number} for number, a in enumerate(truth, start=1)]
        api = _coco_api(images, annotations, categories)
        # loadRes fails without any result.
        results = api.loadRes(found) if found else _coco_api(images, [], categories)
        evaluation = COCOeval(api, results, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    metrics = dict(zip(METRICS, evaluation.stats, strict=False))
    metrics = {name: 100 * float(v) if v > -1 else float("nan") for name, v in metrics.items()}
    # (IoU thresholds, recalls, categories, area ranges, numbers of detections)
    precision = evaluation.eval["precision"][..., 0, -1]
    names = {c["id"]: c["name"] for c in categories}
    for index, category_id in enumerate(evaluation.params.catIds):
        values = precision[:, :, index]
        known = (values > -1).any()
        ap = 100 * float(values[values > -1].mean()) if known else float("nan")
        metrics[f"AP-{names[category_id]}"] = ap
    return metrics


def thing_annotations(record: dict[str, Any], dataset_ids: dict[int, int]) -> dict[str, Any]:
    """The things of one image's panoptic ground truth as COCO annotations.

    Args:
        record: ``image_id``, ``pan_seg_file_name`` and ``segments_info`` (``id``, contiguous
            ``category_id`` and, optionally, ``iscrowd``).
        dataset_ids: the data set's category id of each contiguous class that is a thing.

    Returns:
        ``image_id``, ``image`` (``height``, ``width``) and ``truth``, annotations without ids.
    """
    ids = read_id_png(record["pan_seg_file_name"])
    truth = []
    for segment in record["segments_info"]:
        if segment["category_id"] not in dataset_ids:
            continue
        rle = mask_util.encode(np.asfortranarray(ids == segment["id"], dtype=np.uint8))
        truth.append(
            {
                "category_id": dataset_ids[segment["category_id"]],
                "iscrowd": int(segment.get("iscrowd", 0)),
                "area": int(mask_util.area(rle)),
                "bbox": mask_util.toBbox(rle).tolist(),
                "segmentation": rle,
            }
        )
    image = {"height": ids.shape[0], "width": ids.shape[1]}
    return {"image_id": record["image_id"], "image": image, "truth": truth}


def _coco_api(images: list[dict], annotations: list[dict], categories: list[dict]) -> COCO:
    api = COCO()
    api.dataset = {
        "info": {},
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    api.createIndex()
    return api


def _load_official(path: str | None, thing_ids: set[int]) -> dict[Any, dict[str, Any]] | None:
    """A JSON of instances by image id, or None: see :class:`InstanceAPEvaluator`."""
    if path is None or not PathManager.isfile(path):
        return None
    with PathManager.open(path) as file:
        content = json.load(file)
    if {c["id"] for c in content.get("categories", ())} != thing_ids:
        logger.warning(f"{path} has other categories than the data set's things: it is not used")
        return None
    by_image = {
        image["id"]: {"image_id": image["id"], "image": image, "truth": []}
        for image in content["images"]
    }
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]]["truth"].append(annotation)
    logger.info(f"Mask AP is measured against {path}")
    return by_image
