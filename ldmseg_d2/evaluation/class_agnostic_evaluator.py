"""Class-agnostic panoptic quality: how well a picture is divided, whatever the segments are."""

import logging
import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from scipy.optimize import linear_sum_assignment

from ..data.annotations import read_id_png
from . import panoptic_quality as pq
from .gather import gather_by_image

logger = logging.getLogger(__name__)

# The one category that all segments are of, by its id.
CATEGORIES = {1: {"id": 1, "name": "segment", "isthing": 1}}


def match_segments(
    truth: np.ndarray, ids: np.ndarray, num_segments: int
) -> tuple[np.ndarray, np.ndarray]:
    """Match ground-truth segments to predicted ones: one to one, with the largest sum of IoUs.

    As in panopticapi, ground-truth void does not count towards a predicted segment's area.

    `truth` (H, W) int64 is void (0), the segments 1..K and above that crowd, which is ignored;
    `ids` (H, W) int64 is void (0) or a predicted segment.

    Returns:
        (K,) float64 IoUs in [0, 1], 0 without a match; and (K,) int64 matched ids, -1 without.
    """
    labels, columns = np.unique(ids, return_inverse=True)
    num_rows = max(num_segments, int(truth.max(initial=0))) + 1
    pairs = truth.reshape(-1) * len(labels) + columns.reshape(-1)
    overlap = np.bincount(pairs, minlength=num_rows * len(labels)).reshape(num_rows, len(labels))
    true_area = overlap.sum(axis=1)[1 : num_segments + 1, None]
    area = overlap[1:].sum(axis=0)[None]  # without the pixels on ground-truth void
    shared = overlap[1 : num_segments + 1]
    iou = (shared / np.maximum(true_area + area - shared, 1))[:, labels != 0]
    rows, columns = linear_sum_assignment(iou, maximize=True)
    ious, matches = np.zeros(num_segments), np.full(num_segments, -1, dtype=np.int64)
    ious[rows] = iou[rows, columns]
    matches[rows] = np.where(ious[rows] > 0, labels[labels != 0][columns], -1)
    return ious, matches


def class_agnostic_quality(
    images: Iterable[tuple[np.ndarray, int, np.ndarray]],
) -> dict[str, float]:
    """Panoptic quality with all categories merged into one, computed by panopticapi.

    Args:
        images: of each the ground truth and K, as :func:`load_ground_truth` gives them, and the
            predicted ids (H, W) int64, 0 is void. Segments mostly on crowd or void are ignored.

    Returns:
        "PQ", "SQ", "RQ" and "mIoU" (mean over ground-truth segments, see :func:`match_segments`) in
        percent; "TP", "FP", "FN" segments; "segments_per_image" and "gt_segments_per_image". All
        are 0 where there is no segment.
    """
    pairs, ious, num_pixels, num_predicted = [], [np.zeros(0)], 0, 0
    with tempfile.TemporaryDirectory(prefix="ldmseg_eval_") as folder:
        for index, (truth, num_segments, ids) in enumerate(images):
            ious.append(match_segments(truth, ids, num_segments)[0])
            num_pixels += truth.size
            pair = []
            for name, one, crowd in (("gt", truth, num_segments + 1), ("pred", ids, 0)):
                file_name = f"{name}_{index}.png"
                Path(folder, file_name).write_bytes(pq.encode_id_map(one))
                areas = dict(zip(*(a.tolist() for a in np.unique(one, return_counts=True))))
                # A true segment without a pixel stays, as one that cannot be found.
                areas = {**dict.fromkeys(range(1, crowd), 0), **areas}
                segments = [
                    {"id": i, "category_id": 1, "area": area, "iscrowd": int(i == crowd)}
                    for i, area in areas.items()
                    if i != 0
                ]
                pair.append({"image_id": index, "file_name": file_name, "segments_info": segments})
            num_predicted += len(segments)
            pairs.append(tuple(pair))
        stat = pq.compute_stat(pairs, folder, folder, CATEGORIES, num_pixels)
    sums = stat[1]
    joined, num_images = np.concatenate(ious), max(len(pairs), 1)
    return {
        **pq.average_quality(stat, CATEGORIES),
        "mIoU": 100 * float(joined.mean()) if len(joined) else 0.0,
        **{key: int(getattr(sums, key.lower())) for key in ("TP", "FP", "FN")},
        "segments_per_image": num_predicted / num_images,
        "gt_segments_per_image": len(joined) / num_images,
    }


class ClassAgnosticPanopticEvaluator(DatasetEvaluator):
    """:func:`class_agnostic_quality` of what a model gives; see :func:`load_ground_truth`.

    Only images that were processed are evaluated.
    """

    task_name = "panoptic_class_agnostic"

    def __init__(self, dataset_name: str):
        """``dataset_name``: a registered data set with panoptic ground truth."""
        self._dataset_name = dataset_name
        self._ground_truth = {d["image_id"]: d for d in DatasetCatalog.get(dataset_name)}
        if any("pan_seg_file_name" not in d for d in self._ground_truth.values()):
            raise ValueError(
                f"class-agnostic PQ needs panoptic ground truth, but images of {dataset_name!r} "
                "lack 'pan_seg_file_name'; register the data set with its id PNGs"
            )
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        self._predictions: list[dict[str, Any]] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take predictions: ``image_id``, and ``panoptic_seg``, (ids (H, W), segments_info).

        Every id above 0 is a segment; without segments_info void is -1, as in Detectron2. Without
        the key nothing was predicted.
        """
        for entry, output in zip(inputs, outputs):
            png = None
            if output.get("panoptic_seg") is not None:
                ids, segments_info = output["panoptic_seg"]
                ids = ids.cpu().numpy().astype(np.int64)  # astype copies
                png = pq.encode_id_map(ids + 1 if segments_info is None else ids)
            self._predictions.append({"image_id": entry["image_id"], "png": png})

    def evaluate(self) -> OrderedDict | None:
        """On the main process ``{task_name: metrics}``, else None. Call it from every process."""
        predictions = gather_by_image(self._predictions)
        if predictions is None:
            return None
        metrics = class_agnostic_quality(self.compared(predictions.values()))
        text = f"{len(predictions)} of {len(self._ground_truth)} images of {self._dataset_name}"
        logger.info(f"{self.task_name}: PQ {metrics['PQ']:.1f} on {text}")
        return OrderedDict({self.task_name: metrics})

    def compared(
        self, predictions: Iterable[dict[str, Any]]
    ) -> Iterator[tuple[np.ndarray, int, np.ndarray]]:
        """What :func:`class_agnostic_quality` takes, of what was processed."""
        for one in predictions:
            truth, num_segments = load_ground_truth(self._ground_truth[one["image_id"]])
            ids = np.zeros_like(truth) if one["png"] is None else pq.decode_id_map(one["png"])
            if ids.shape != truth.shape:
                raise ValueError(
                    f"image_id {one['image_id']!r}: the prediction is {ids.shape} (H, W), "
                    f"the ground truth {truth.shape}"
                )
            yield truth, num_segments, ids


class ReconstructionEvaluator(ClassAgnosticPanopticEvaluator):
    """The same numbers for what an autoencoder makes of the ground truth: stage 2's ceiling."""

    task_name = "reconstruction"


def load_ground_truth(entry: dict[str, Any]) -> tuple[np.ndarray, int]:
    """Read one image's ground truth with categories merged into one and crowds into one region.

    Args:
        entry: ``pan_seg_file_name`` and, optionally, ``segments_info`` with ``id`` and ``iscrowd``
            (default 0); without it every id above 0 is a segment. Ids that it lacks are void.

    Returns:
        (H, W) int64: 0 is void, 1..K the segments, K + 1 the crowd region; and K.
    """
    ids = read_id_png(entry["pan_seg_file_name"])
    labels, inverse = np.unique(ids, return_inverse=True)
    segments_info = entry.get("segments_info")
    if segments_info is None:
        segments_info = [{"id": int(label)} for label in labels if label != 0]
    segments = [s["id"] for s in segments_info if not s.get("iscrowd", 0)]
    new_ids = {s["id"]: len(segments) + 1 for s in segments_info}
    new_ids.update((old, new) for new, old in enumerate(segments, start=1))
    table = np.array([new_ids.get(int(label), 0) for label in labels], dtype=np.int64)
    return table[inverse].reshape(ids.shape), len(segments)
