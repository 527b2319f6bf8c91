"""Class-agnostic panoptic quality: how well a picture is divided, whatever the segments are."""

import json
import logging
import os
import tempfile
from collections import OrderedDict
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils.file_io import PathManager
from scipy.optimize import linear_sum_assignment
from tabulate import tabulate

from ..data.annotations import read_id_png
from .gather import gather_by_image
from .panoptic_quality import average_quality, compute_stat, decode_id_map, encode_id_map

logger = logging.getLogger(__name__)

# The one category that all segments are of.
SEGMENT = {"id": 1, "name": "segment", "isthing": 1, "supercategory": "segment", "color": [0, 0, 0]}


def matched_ious(gt: np.ndarray, pred: np.ndarray, num_segments: int) -> np.ndarray:
    """IoU of each ground-truth segment with the predicted segment that is matched to it.

    The matching is one to one and maximises the sum of IoUs (Hungarian algorithm). As in
    panopticapi, ground-truth void does not count towards a predicted segment's area.

    Args:
        gt: (H, W) int64: 0 is void, 1..K are the segments, higher ids are ignored regions (crowd).
        pred: (H, W) int64: 0 is void, any other id is a segment.
        num_segments: K.

    Returns:
        (K,) float64 in [0, 1]; 0 for a segment without a match.
    """
    labels, columns = np.unique(pred, return_inverse=True)
    num_rows = max(num_segments, int(gt.max(initial=0))) + 1
    overlap = np.bincount(
        gt.reshape(-1) * len(labels) + columns.reshape(-1), minlength=num_rows * len(labels)
    ).reshape(num_rows, len(labels))
    gt_area = overlap.sum(axis=1)[1 : num_segments + 1, None]
    pred_area = overlap[1:].sum(axis=0)[None]  # without the pixels on ground-truth void
    intersection = overlap[1 : num_segments + 1]
    iou = intersection / np.maximum(gt_area + pred_area - intersection, 1)
    iou = iou[:, labels != 0]
    result = np.zeros(num_segments)
    rows, columns = linear_sum_assignment(iou, maximize=True)
    result[rows] = iou[rows, columns]
    return result


class ClassAgnosticPanopticEvaluator(DatasetEvaluator):
    """Panoptic quality with all categories merged into one, computed by panopticapi.

    Crowd segments are merged into one crowd region an image, since panopticapi ignores one crowd
    region a category: predicted segments that lie mostly on it (or on void) count neither for nor
    against.

    The ground truth is what ``DatasetCatalog`` says: ``image_id``, ``pan_seg_file_name`` and, where
    it has them, ``segments_info`` with ``id`` and ``iscrowd``; without ``segments_info`` every id
    above 0 of the PNG is a segment. Only images that were processed are evaluated; an image
    processed without a predicted segment counts as misses.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | None = None,
        *,
        task_name: str = "panoptic_class_agnostic",
    ):
        """
        Args:
            dataset_name: a registered data set with panoptic ground truth.
            output_dir: predictions are written there in COCO panoptic format, as
                ``<task_name>.json`` and PNGs in ``<task_name>/``. None: they are not kept.
            task_name: key of the result.

        Raises:
            ValueError: if the data set has no panoptic ground truth.
        """
        self._dataset_name = dataset_name
        self._output_dir = output_dir
        self._task_name = task_name
        self._ground_truth = {d["image_id"]: d for d in DatasetCatalog.get(dataset_name)}
        missing = [i for i, d in self._ground_truth.items() if "pan_seg_file_name" not in d]
        if missing:
            raise ValueError(
                f"class-agnostic PQ needs panoptic ground truth, but {len(missing)} of "
                f"{len(self._ground_truth)} images of {dataset_name!r} lack 'pan_seg_file_name' "
                f"(the first: image_id {missing[0]!r}); register the data set with its id PNGs"
            )
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        self._predictions: list[dict[str, Any]] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take the predictions of some images; the outputs are not changed.

        Args:
            inputs: dicts with ``image_id``.
            outputs: dicts with ``panoptic_seg`` = (H x W integer tensor at the ground truth's size,
                0 is void, segments_info). Every id above 0 is a segment; segments_info only adds
                its scores to the files. With segments_info None, void is -1 (Detectron2's
                convention). Without ``panoptic_seg`` nothing was predicted.

        Raises:
            ValueError: for ids that do not fit an id PNG, and image ids that the data set lacks.
        """
        for entry, output in zip(inputs, outputs):
            image_id = entry["image_id"]
            if image_id not in self._ground_truth:
                raise ValueError(f"{self._dataset_name!r} has no image_id {image_id!r}")
            prediction = {"image_id": image_id, "png": None, "scores": {}}
            if output.get("panoptic_seg") is not None:
                ids, segments_info = output["panoptic_seg"]
                ids = ids.cpu().numpy().astype(np.int64)  # astype copies
                if segments_info is None:
                    ids += 1
                prediction["png"] = encode_id_map(ids)
                prediction["scores"] = {
                    int(s["id"]): float(s["score"])
                    for s in segments_info or ()
                    if s.get("score") is not None
                }
            self._predictions.append(prediction)

    def evaluate(self) -> OrderedDict | None:
        """Compare all processed images with the ground truth. Call it from every process.

        Returns:
            On the main process ``{task_name: metrics}``, else None. Metrics: "PQ", "SQ", "RQ" and
            "mIoU" (mean over ground-truth segments, see :func:`matched_ious`) in percent; "TP",
            "FP", "FN" segments; "segments_per_image" and "gt_segments_per_image". All are 0 where
            there is no segment.

        Raises:
            ValueError: if a prediction's size differs from its ground truth's.
        """
        predictions = gather_by_image(self._predictions)
        if predictions is None:
            return None
        logger.info(
            f"{self._task_name}: evaluating {len(predictions)} of {len(self._ground_truth)} images "
            f"of {self._dataset_name}"
        )
        with tempfile.TemporaryDirectory(prefix="ldmseg_eval_") as folder:
            metrics = self._evaluate_in(folder, list(predictions.values()))
        row = [f"{v:.3f}" if isinstance(v, float) else v for v in metrics.values()]
        table = tabulate([row], headers=list(metrics), tablefmt="pipe", disable_numparse=True)
        logger.info(f"Evaluation results for {self._task_name} on {self._dataset_name}:\n{table}")
        return OrderedDict({self._task_name: metrics})

    def _evaluate_in(self, folder: str, predictions: list[dict[str, Any]]) -> dict[str, float]:
        pairs, ious, num_pixels, num_predicted = [], [np.zeros(0)], 0, 0
        for index, prediction in enumerate(predictions):
            entry = self._ground_truth[prediction["image_id"]]
            gt, gt_segments = load_ground_truth(entry)
            pred = np.zeros_like(gt)
            if prediction["png"] is not None:
                pred = decode_id_map(prediction["png"])
            if pred.shape != gt.shape:
                raise ValueError(
                    f"image_id {prediction['image_id']!r}: the prediction is {pred.shape} (H, W), "
                    f"the ground truth {gt.shape}; a model's output has the size that the input's "
                    "'height' and 'width' state"
                )
            pred_segments = _segments(pred, prediction["scores"])
            num_pixels += gt.size
            num_predicted += len(pred_segments)
            is_crowd = [s["iscrowd"] for s in gt_segments]
            ious.append(matched_ious(gt, pred, is_crowd.count(0)))
            pair = []
            sides = (("gt", gt, gt_segments), ("pred", pred, pred_segments))
            for name, ids, segments_info in sides:
                annotation = {
                    "image_id": prediction["image_id"],
                    "file_name": f"{name}_{index}.png",
                    "segments_info": segments_info,
                }
                with open(os.path.join(folder, annotation["file_name"]), "wb") as f:
                    f.write(encode_id_map(ids))
                pair.append(annotation)
            pairs.append(tuple(pair))
        stat = compute_stat(
            pairs,
            gt_folder=folder,
            pred_folder=folder,
            categories={SEGMENT["id"]: SEGMENT},
            num_pixels=num_pixels,
        )
        if self._output_dir is not None:
            self._write_predictions(folder, [pred for _, pred in pairs])
        quality = average_quality(stat, [SEGMENT["id"]])
        ious = np.concatenate(ious)
        sums, num_images = stat[SEGMENT["id"]], max(len(pairs), 1)
        return {
            **{key: quality[key] for key in ("PQ", "SQ", "RQ")},
            "mIoU": 100 * float(ious.mean()) if len(ious) else 0.0,
            **{key: int(getattr(sums, key.lower())) for key in ("TP", "FP", "FN")},
            "segments_per_image": num_predicted / num_images,
            "gt_segments_per_image": len(ious) / num_images,
        }

    def _write_predictions(self, folder: str, annotations: list[dict[str, Any]]) -> None:
        png_folder = os.path.join(self._output_dir, self._task_name)
        PathManager.mkdirs(png_folder)
        written, images = [], []
        for annotation in annotations:
            entry = self._ground_truth[annotation["image_id"]]
            name = os.path.splitext(os.path.basename(entry["pan_seg_file_name"]))[0] + ".png"
            with open(os.path.join(folder, annotation["file_name"]), "rb") as source:
                with PathManager.open(os.path.join(png_folder, name), "wb") as target:
                    target.write(source.read())
            # panopticapi has replaced the areas by numpy integers, which json refuses.
            segments = [{**s, "area": int(s["area"])} for s in annotation["segments_info"]]
            written.append({**annotation, "file_name": name, "segments_info": segments})
            images.append(
                {"id": annotation["image_id"], "file_name": os.path.basename(entry["file_name"])}
            )
        content = {"images": images, "annotations": written, "categories": [SEGMENT]}
        with PathManager.open(f"{png_folder}.json", "w") as f:
            json.dump(content, f)
        logger.info(f"Predictions are in {png_folder}.json and {png_folder}{os.sep}")


class ReconstructionEvaluator(ClassAgnosticPanopticEvaluator):
    """The same numbers for what an autoencoder makes of the ground truth: stage 2's ceiling."""

    def __init__(
        self, dataset_name: str, output_dir: str | None = None, *, task_name: str = "reconstruction"
    ):
        """See :class:`ClassAgnosticPanopticEvaluator`."""
        super().__init__(dataset_name, output_dir, task_name=task_name)


def load_ground_truth(entry: dict[str, Any]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Read one image's ground truth with categories merged into one and crowds into one region.

    Args:
        entry: a dict of the data set: ``pan_seg_file_name`` and, optionally, ``segments_info`` with
            ``id`` and ``iscrowd`` (default 0). Pixels of ids that segments_info does not list are
            void; a listed segment without a pixel stays, as a segment that cannot be found.

    Returns:
        (H, W) int64: 0 is void, 1..K the segments, K + 1 the crowd region; and segments_info in
        COCO panoptic format, of which the first K are the segments.
    """
    ids = read_id_png(entry["pan_seg_file_name"])
    labels, inverse = np.unique(ids, return_inverse=True)
    segments_info = entry.get("segments_info")
    if segments_info is None:
        segments_info = [{"id": int(label)} for label in labels if label != 0]
    segments = [s["id"] for s in segments_info if not s.get("iscrowd", 0)]
    crowds = [s["id"] for s in segments_info if s.get("iscrowd", 0)]
    new_ids = {old: new for new, old in enumerate(segments, start=1)}
    new_ids.update((old, len(segments) + 1) for old in crowds)
    table = np.array([new_ids.get(int(label), 0) for label in labels], dtype=np.int64)
    gt = table[inverse].reshape(ids.shape)
    num_ids = len(segments) + bool(crowds)
    areas = np.bincount(gt.reshape(-1), minlength=num_ids + 1)
    merged = [
        {
            "id": new_id,
            "category_id": SEGMENT["id"],
            "iscrowd": int(new_id > len(segments)),
            "area": int(areas[new_id]),
        }
        for new_id in range(1, num_ids + 1)
    ]
    return gt, merged


def _segments(ids: np.ndarray, scores: dict[int, float]) -> list[dict[str, Any]]:
    """segments_info of a predicted map, in COCO panoptic format."""
    labels, areas = np.unique(ids, return_counts=True)
    segments = []
    for label, area in zip(labels.tolist(), areas.tolist()):
        if label != 0:
            score = {"score": scores[label]} if label in scores else {}
            segments.append({"id": label, "category_id": SEGMENT["id"], "area": area, **score})
    return segments
