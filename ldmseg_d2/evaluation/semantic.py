"""Semantic segmentation: mIoU and its kin, also where a data set has no semantic PNGs."""

import json
import logging
import os
from collections import OrderedDict
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from tabulate import tabulate

from ..data.annotations import index_segments, read_gray_png, read_id_png
from .gather import gather_by_image

logger = logging.getLogger(__name__)


class SemanticEvaluator(DatasetEvaluator):
    """The measures of Detectron2's :class:`SemSegEvaluator` (without boundary IoU).

    Differences: the ground truth is the dict's ``sem_seg_file_name`` where it has one, else it is
    made of its panoptic PNG and ``segments_info`` (crowds count as their class), so that COCO
    panoptic needs no further files; things need not be in the metadata's stuff map; it works with
    numpy 2; predictions are kept only where they are written.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None):
        """
        Args:
            dataset_name: a registered data set; its metadata's ``stuff_classes`` lists all classes,
                ``ignore_label`` (default 255) is what semantic PNGs leave out.
            output_dir: predictions are written there as ``sem_seg_predictions.json`` (COCO's
                format of stuff results). None: they are not kept.

        Raises:
            ValueError: if an image has no ground truth of classes.
        """
        metadata = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        self._output_dir = output_dir
        self._class_names = list(metadata.stuff_classes)
        self._num_classes = len(self._class_names)
        self._ignore_label = metadata.get("ignore_label", 255)
        # Detectron2 lists things in one map and stuff in the other, or all classes in one.
        self._dataset_ids = {
            contiguous: dataset_id
            for key in ("thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id")
            for dataset_id, contiguous in metadata.get(key, {}).items()
        }
        # By photo, as Detectron2's: its "ade20k_sem_seg_*" have no image ids.
        self._records = {r["file_name"]: r for r in DatasetCatalog.get(dataset_name)}
        missing = [name for name, r in self._records.items() if not has_semantic_truth(r)]
        if missing:
            raise ValueError(
                f"semantic evaluation needs classes, but {len(missing)} of {len(self._records)} "
                f"images of {dataset_name!r} (the first: {missing[0]}) have neither "
                "'sem_seg_file_name' nor 'pan_seg_file_name' with 'segments_info'"
            )
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        # Rows: predicted class; columns: true class, the last one is ignored.
        self._confusion = np.zeros((self._num_classes, self._num_classes + 1), dtype=np.int64)
        self._seen: set[Any] = set()
        self._num_missing = 0
        self._predictions: list[dict[str, Any]] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take the predictions of some images.

        Args:
            inputs: dicts with ``file_name``.
            outputs: dicts with ``sem_seg``, (C, H, W) scores of the classes at the ground truth's
                size; images without it are left out, with a warning at the end.

        Raises:
            ValueError: for a photo that the data set lacks, another number of classes, another
                size, and a class in the ground truth that the data set lacks.
        """
        for entry, output in zip(inputs, outputs):
            file_name = entry["file_name"]
            if file_name not in self._records:
                raise ValueError(f"{self._dataset_name!r} has no photo {file_name}")
            if file_name in self._seen:
                continue
            self._seen.add(file_name)
            if output.get("sem_seg") is None:
                self._num_missing += 1
                continue
            truth = self._load_truth(self._records[file_name])
            expected = (self._num_classes, *truth.shape)
            if tuple(output["sem_seg"].shape) != expected:
                raise ValueError(
                    f"the model's sem_seg of {file_name} is "
                    f"{tuple(output['sem_seg'].shape)}, expected {expected} (C, H, W): "
                    f"{self._dataset_name!r} has {self._num_classes} classes"
                )
            predicted = output["sem_seg"].argmax(dim=0).cpu().numpy()
            pairs = predicted.reshape(-1) * (self._num_classes + 1) + truth.reshape(-1)
            counts = np.bincount(pairs, minlength=self._confusion.size)
            self._confusion += counts.reshape(self._confusion.shape)
            if self._output_dir is not None:
                kept = self._encode(predicted, file_name)
                self._predictions.append({"image_id": file_name, "segments": kept})

    def _load_truth(self, record: dict[str, Any]) -> np.ndarray:
        """(H, W) int64 classes, C where ignored."""
        truth = load_semantic_truth(record, self._ignore_label)
        ignored = truth == self._ignore_label
        wrong = np.unique(truth[~ignored & ((truth < 0) | (truth >= self._num_classes))])
        if wrong.size:
            raise ValueError(
                f"the semantic ground truth of {record['file_name']} "
                f"({record.get('sem_seg_file_name', record.get('pan_seg_file_name'))}) holds "
                f"{wrong[:10].tolist()}; allowed are the classes 0..{self._num_classes - 1} and "
                f"{self._ignore_label} (ignored)"
            )
        return np.where(ignored, self._num_classes, truth)

    def _encode(self, predicted: np.ndarray, file_name: str) -> list[dict[str, Any]]:
        segments = []
        for label in np.unique(predicted).tolist():
            rle = mask_util.encode(np.asfortranarray(predicted == label, dtype=np.uint8))
            segments.append(
                {
                    "file_name": file_name,
                    "category_id": self._dataset_ids.get(label, label),
                    "segmentation": {**rle, "counts": rle["counts"].decode("ascii")},
                }
            )
        return segments

    def evaluate(self) -> OrderedDict | None:
        """Sum over all processed images. Call it from every process.

        Returns:
            On the main process ``{"sem_seg": metrics}``, else None: "mIoU", "fwIoU" (weighted by
            the classes' pixels), "mACC", "pACC", and "IoU-NAME" and "ACC-NAME" of each class, in
            percent. As Detectron2's, means are over the classes that occur in the ground truth;
            a class that does not is NaN itself. ``{}`` if no output had ``sem_seg``.
        """
        predictions = gather_by_image(self._predictions)
        gathered = comm.gather((self._confusion, len(self._seen), self._num_missing))
        if predictions is None:
            return None
        confusions, num_seen, num_missing = zip(*gathered, strict=True)
        if sum(num_missing):
            logger.warning(
                f"sem_seg: {sum(num_missing)} of {sum(num_seen)} outputs have no 'sem_seg'; they "
                "are left out"
            )
        if sum(num_missing) == sum(num_seen):
            return OrderedDict()
        if self._output_dir is not None:
            PathManager.mkdirs(self._output_dir)
            path = os.path.join(self._output_dir, "sem_seg_predictions.json")
            with PathManager.open(path, "w") as file:
                json.dump([s for p in predictions.values() for s in p["segments"]], file)
        metrics = semantic_metrics(sum(confusions)[:, :-1], self._class_names)
        summary = {key: metrics[key] for key in ("mIoU", "fwIoU", "mACC", "pACC")}
        table = tabulate([list(summary.values())], list(summary), tablefmt="pipe", floatfmt=".3f")
        logger.info(f"Semantic evaluation results of {sum(num_seen)} images:\n{table}")
        return OrderedDict({"sem_seg": metrics})


def semantic_metrics(confusion: np.ndarray, class_names: list[str]) -> dict[str, float]:
    """The measures of :meth:`SemanticEvaluator.evaluate` from counts of pixels.

    Args:
        confusion: (C, C) integers: rows are predicted classes, columns true ones.
        class_names: C names.
    """
    correct = confusion.diagonal().astype(float)
    truth, predicted = confusion.sum(axis=0), confusion.sum(axis=1)
    occurs = truth > 0
    accuracy = np.full(len(class_names), np.nan)
    iou = accuracy.copy()
    accuracy[occurs] = correct[occurs] / truth[occurs]
    iou[occurs] = correct[occurs] / (truth + predicted - correct)[occurs]
    if occurs.any():
        weights = truth[occurs] / truth.sum()
        means = iou[occurs].mean(), (iou[occurs] * weights).sum(), accuracy[occurs].mean()
        values = (*means, correct.sum() / truth.sum())
    else:
        values = (np.nan,) * 4
    metrics = dict(zip(("mIoU", "fwIoU", "mACC", "pACC"), values, strict=True))
    metrics.update({f"IoU-{name}": value for name, value in zip(class_names, iou, strict=True)})
    metrics.update({f"ACC-{name}": v for name, v in zip(class_names, accuracy, strict=True)})
    return {name: 100 * float(value) for name, value in metrics.items()}


def has_semantic_truth(record: dict[str, Any]) -> bool:
    """Whether a dict of a data set says the class of its pixels."""
    return "sem_seg_file_name" in record or (
        "pan_seg_file_name" in record and "segments_info" in record
    )


def load_semantic_truth(record: dict[str, Any], ignore_label: int) -> np.ndarray:
    """Read one image's classes, from its semantic PNG or else from its panoptic one.

    Args:
        record: a dict of a data set, see :func:`has_semantic_truth`.
        ignore_label: for panoptic void.

    Returns:
        (H, W) integers.

    Raises:
        FileNotFoundError, ValueError: if a file is missing or damaged.
    """
    if "sem_seg_file_name" in record:
        return read_gray_png(record["sem_seg_file_name"], "semantic PNG")
    path = record["pan_seg_file_name"]
    labels, segments = index_segments(read_id_png(path), record["segments_info"], path)
    return np.array([ignore_label, *(s["category_id"] for s in segments)], dtype=np.int64)[labels]
