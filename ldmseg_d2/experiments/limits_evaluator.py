"""What a model reaches on the test set, and what limits it."""

from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, inference_on_dataset
from torch import nn

from ldmseg_d2.data import build_test_loader
from ldmseg_d2.evaluation import ClassAgnosticPanopticEvaluator, build_evaluator
from ldmseg_d2.evaluation.class_agnostic import load_ground_truth

SIZES = ("small", "medium", "large")
# Most segments of a picture of each bin; the last bin has no limit.
COUNT_EDGES = (4, 8, 16, 32, 64, 127)
COUNTS = ("1-4", "5-8", "9-16", "17-32", "33-64", "65-127", "128-")
# Unique above it: two disjoint segments cannot both overlap a third one by more (arXiv 1801.00868).
MATCH_IOU = 0.5


def evaluate(cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
    """All evaluators that fit, and "limits", on DATASETS.TEST's only data set; no file is written.

    Args:
        cfg: reads what the evaluators and the test loader read.
        model: in either mode.
    """
    name = cfg.DATASETS.TEST[0]
    evaluators = build_evaluator(cfg, name, None)._evaluators
    if any(isinstance(one, ClassAgnosticPanopticEvaluator) for one in evaluators):
        evaluators = [*evaluators, LimitsEvaluator(name)]
    loader = build_test_loader(cfg, name)
    return dict(inference_on_dataset(model, loader, DatasetEvaluators(evaluators)))


class LimitsEvaluator(DatasetEvaluator):
    """Class-agnostic panoptic quality by the size and the number of segments; missed and invented.

    Sizes are thirds of the areas of all ground-truth segments of the data set: a true segment
    counts where its own area is, an unmatched prediction where the prediction's is. In one process.
    """

    def __init__(self, dataset_name: str) -> None:
        """
        Args:
            dataset_name: with panoptic ground truth.
        """
        self._records = {r["image_id"]: r for r in DatasetCatalog.get(dataset_name)}
        segments = [s for r in self._records.values() for s in load_ground_truth(r)[1]]
        areas = [s["area"] for s in segments if not s["iscrowd"] and s["area"]]
        self.edges = [float(q) for q in np.quantile(areas or [0], [1 / 3, 2 / 3])]
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        self._counted: list[dict[str, np.ndarray]] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Count the matches of some images; outputs without ``panoptic_seg`` are left out."""
        for entry, output in zip(inputs, outputs, strict=True):
            if output.get("panoptic_seg") is None:
                continue
            truth, segments = load_ground_truth(self._records[entry["image_id"]])
            ids, segments_info = output["panoptic_seg"]
            ids = ids.cpu().numpy().astype(np.int64)
            ids += segments_info is None  # void is -1 there (Detectron2's convention)
            self._counted.append(match(truth, ids, sum(not s["iscrowd"] for s in segments)))

    def evaluate(self) -> dict[str, dict[str, Any]]:
        """Sum over all processed images.

        Returns:
            ``{"limits": metrics}``, in percent: "PQ_small", "PQ_medium", "PQ_large"; "PQ_1-4" to
            "PQ_128-", of the pictures with so many segments, where there are any; "missed" (share
            of true segments without a match), "invented" (share of predictions without one). In
            pixels: "edges", between the sizes. ``{}`` if nothing was predicted.
        """
        if not self._counted:
            return {}
        metrics: dict[str, Any] = {"edges": self.edges}
        ious, areas, missed, invented = _joined(self._counted)
        bins = [np.searchsorted(self.edges, values) for values in (areas, missed, invented)]
        for index, size in enumerate(SIZES):
            matched, *others = (numbers == index for numbers in bins)
            metrics[f"PQ_{size}"] = _quality(ious[matched], *(other.sum() for other in others))
        numbers = [len(c["ious"]) + len(c["missed"]) for c in self._counted]
        for index in np.unique(np.searchsorted(COUNT_EDGES, numbers)):
            of_bin = [
                counted
                for counted, number in zip(self._counted, numbers, strict=True)
                if np.searchsorted(COUNT_EDGES, number) == index
            ]
            found, _, *lost = _joined(of_bin)
            metrics[f"PQ_{COUNTS[index]}"] = _quality(found, *map(len, lost))
        metrics["missed"] = 100 * len(missed) / max(len(ious) + len(missed), 1)
        metrics["invented"] = 100 * len(invented) / max(len(ious) + len(invented), 1)
        return {"limits": metrics}


def _joined(counted: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    keys = ("ious", "areas", "missed", "invented")
    return [np.concatenate([one[key] for one in counted]) for key in keys]


def _quality(ious: np.ndarray, missed: int, invented: int) -> float:
    """PQ in percent."""
    total = len(ious) + (missed + invented) / 2
    return 100 * float(ious.sum()) / total if total else float("nan")


def match(truth: np.ndarray, ids: np.ndarray, num_segments: int) -> dict[str, np.ndarray]:
    """Match segments by an IoU above 0.5, as panopticapi does where there is one category.

    Args:
        truth: (H, W) int64: 0 is void, 1..K the segments, K + 1 a crowd region.
        ids: (H, W) int64: 0 is void, any other id is a segment.
        num_segments: K.

    Returns:
        ``ious`` and true ``areas`` of matched segments; areas of true segments that were
        ``missed``, and of predicted ones that were ``invented`` (not those that lie mostly on void
        or crowd).
    """
    labels, columns = np.unique(ids, return_inverse=True)
    rows = num_segments + 2
    flat = truth.reshape(-1) * len(labels) + columns.reshape(-1)
    overlap = np.bincount(flat, minlength=rows * len(labels)).reshape(rows, len(labels))
    overlap, void = overlap[:, labels != 0], overlap[:, labels == 0].sum(axis=1)
    shared, areas = overlap[1:-1], overlap.sum(axis=0)
    true_areas = shared.sum(axis=1) + void[1:-1]
    iou = shared / np.maximum(true_areas[:, None] + areas - overlap[0] - shared, 1)
    matched = iou > MATCH_IOU
    hit, taken = matched.any(axis=1), matched.any(axis=0)
    ignored = overlap[0] + overlap[-1]
    return {
        "ious": iou[matched],
        "areas": true_areas[hit],
        "missed": true_areas[~hit & (true_areas > 0)],
        "invented": areas[~taken & (ignored <= areas / 2)],
    }
