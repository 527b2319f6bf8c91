"""What a model reaches on the test set, and what limits it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, inference_on_dataset
from torch import nn

from ldmseg_d2.data import build_test_loader
from ldmseg_d2.evaluation import ClassAgnosticPanopticEvaluator, build_evaluator
from ldmseg_d2.evaluation.class_agnostic_evaluator import load_ground_truth
from ldmseg_d2.evaluation.gather import gather_by_image

SIZES = ("small", "medium", "large")
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
    results = inference_on_dataset(
        model, build_test_loader(cfg, name), DatasetEvaluators(evaluators)
    )
    return dict(results)


class LimitsEvaluator(DatasetEvaluator):
    """Class-agnostic panoptic quality by the size of segments, and what is missed or invented.

    Sizes are thirds of the areas of all ground-truth segments of the data set: a true segment
    counts where its own area is, an unmatched prediction where the prediction's is.
    """

    def __init__(self, dataset_name: str) -> None:
        """
        Args:
            dataset_name: with panoptic ground truth.
        """
        self._records = {r["image_id"]: r for r in DatasetCatalog.get(dataset_name)}
        areas = [
            segment["area"]
            for record in self._records.values()
            for segment in load_ground_truth(record)[1]
            if not segment["iscrowd"] and segment["area"]
        ]
        self.edges = [float(q) for q in np.quantile(areas or [0], [1 / 3, 2 / 3])]
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        self._counted: list[dict[str, Any]] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Count the matches of some images; outputs without ``panoptic_seg`` are left out."""
        for entry, output in zip(inputs, outputs, strict=True):
            if output.get("panoptic_seg") is None:
                continue
            record = self._records[entry["image_id"]]
            truth, segments = load_ground_truth(record)
            ids, segments_info = output["panoptic_seg"]
            ids = ids.cpu().numpy().astype(np.int64)
            ids += segments_info is None  # void is -1 there (Detectron2's convention)
            found = match(truth, ids, sum(not s["iscrowd"] for s in segments))
            found["classes_right"] = _classes_right(record, segments_info, found["pairs"])
            self._counted.append({"image_id": entry["image_id"], **found})

    def evaluate(self) -> dict[str, dict[str, Any]] | None:
        """Sum over all processed images. Call it from every process.

        Returns:
            On the main process ``{"limits": metrics}``, else None. In percent: "PQ_small",
            "PQ_medium", "PQ_large"; "SQ" (mean IoU of matched segments); "missed" (share of true
            segments without a match), "invented" (share of predictions without one); "class"
            (share of matched segments with the right class; absent where either has none). In
            pixels: "edges", between the sizes. ``{}`` if nothing was predicted.
        """
        counted = gather_by_image(self._counted)
        if counted is None or not counted:
            return None if counted is None else {}
        ious, areas, missed, invented = (
            np.concatenate([np.asarray(c[key], dtype=float) for c in counted.values()])
            for key in ("ious", "areas", "missed", "invented")
        )
        bins = [np.searchsorted(self.edges, values) for values in (areas, missed, invented)]
        metrics: dict[str, Any] = {}
        for index, size in enumerate(SIZES):
            tp, fn, fp = ((numbers == index).sum() for numbers in bins)
            total = tp + (fp + fn) / 2
            quality = ious[bins[0] == index].sum() / total if total else float("nan")
            metrics[f"PQ_{size}"] = 100 * float(quality)
        metrics["SQ"] = 100 * float(ious.mean()) if len(ious) else 0.0
        metrics["missed"] = 100 * len(missed) / max(len(ious) + len(missed), 1)
        metrics["invented"] = 100 * len(invented) / max(len(ious) + len(invented), 1)
        right = [r for c in counted.values() for r in c["classes_right"] or ()]
        if right:
            metrics["class"] = 100 * float(np.mean(right))
        return {"limits": {**metrics, "edges": self.edges}}


def match(truth: np.ndarray, ids: np.ndarray, num_segments: int) -> dict[str, Any]:
    """Match segments by an IoU above 0.5, as panopticapi does where there is one category.

    Args:
        truth: (H, W) int64: 0 is void, 1..K the segments, K + 1 a crowd region.
        ids: (H, W) int64: 0 is void, any other id is a segment.
        num_segments: K.

    Returns:
        ``pairs`` of (true, predicted) ids, their ``ious`` and true ``areas``; areas of true
        segments that were ``missed``, and of predicted ones that were ``invented`` (not those that
        lie mostly on void or crowd).
    """
    labels, columns = np.unique(ids, return_inverse=True)
    rows = max(num_segments + 2, int(truth.max(initial=0)) + 1)
    flat = truth.reshape(-1) * len(labels) + columns.reshape(-1)
    overlap = np.bincount(flat, minlength=rows * len(labels)).reshape(rows, len(labels))
    true_areas, areas = overlap.sum(axis=1), overlap.sum(axis=0)
    found: dict[str, Any] = {k: [] for k in ("pairs", "ious", "areas", "missed", "invented")}
    taken = set()
    for true_id in range(1, num_segments + 1):
        if not true_areas[true_id]:
            continue
        shared = overlap[true_id]
        iou = shared / (true_areas[true_id] + areas - overlap[0] - shared)
        iou[labels == 0] = 0.0
        best = int(iou.argmax())
        if iou[best] > MATCH_IOU:
            taken.add(best)
            found["pairs"].append((true_id, int(labels[best])))
            found["ious"].append(float(iou[best]))
            found["areas"].append(int(true_areas[true_id]))
        else:
            found["missed"].append(int(true_areas[true_id]))
    ignored = overlap[0] + overlap[num_segments + 1 :].sum(axis=0)
    for column, label in enumerate(labels):
        if label != 0 and column not in taken and ignored[column] <= areas[column] / 2:
            found["invented"].append(int(areas[column]))
    return found


def _classes_right(
    record: dict[str, Any],
    segments_info: Sequence[dict[str, Any]] | None,
    pairs: Sequence[tuple[int, int]],
) -> list[bool] | None:
    """Of each pair, whether the class is right; None where truth or prediction has no classes."""
    true = [s.get("category_id") for s in record.get("segments_info") or () if not s.get("iscrowd")]
    predicted = {s["id"]: s.get("category_id") for s in segments_info or ()}
    if not true or None in true or None in predicted.values() or not predicted:
        return None
    return [true[true_id - 1] == predicted.get(label) for true_id, label in pairs]
