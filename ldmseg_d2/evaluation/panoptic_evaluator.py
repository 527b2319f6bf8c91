"""Panoptic quality with classes: Detectron2's COCO evaluator, made safe to use beside others."""

import json
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.evaluation import COCOPanopticEvaluator
from detectron2.utils.file_io import PathManager

from .gather import gather_by_image
from .panoptic_quality import average_quality, compute_stat


class PanopticEvaluator(COCOPanopticEvaluator):
    """Detectron2's :class:`COCOPanopticEvaluator`, which differs in three points.

    - The model's output stays as it is: Detectron2's pops ``isthing`` from it and rewrites
      ``category_id``, so that no evaluator after it sees what the model said.
    - Where only a part of the data set was processed, it evaluates that part; Detectron2's raises.
    - Where no thing (or no stuff) occurs, its numbers are 0; Detectron2's divides by zero.

    The key of the result is "panoptic_seg" and the metrics are Detectron2's: PQ, SQ and RQ, also
    with "_th" (things) and "_st" (stuff), in percent.
    """

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """See the base class; without ``panoptic_seg`` nothing was predicted."""
        super().process(inputs, [_copy(*pair) for pair in zip(inputs, outputs)])

    def evaluate(self) -> OrderedDict | None:
        """On the main process ``{"panoptic_seg": metrics}``, else None; every process calls it."""
        predictions = gather_by_image(self._predictions)
        if predictions is None:
            return None
        with PathManager.open(self._metadata.panoptic_json) as f:
            ground_truth = json.load(f)
        annotations = [a for a in ground_truth["annotations"] if a["image_id"] in predictions]
        with tempfile.TemporaryDirectory(prefix="ldmseg_eval_") as folder:
            pairs = []
            for index, annotation in enumerate(annotations):
                prediction = predictions[annotation["image_id"]]
                with open(os.path.join(folder, f"{index}.png"), "wb") as f:
                    f.write(prediction["png_string"])
                pairs.append((annotation, {**prediction, "file_name": f"{index}.png"}))
            sizes = {i["id"]: i["height"] * i["width"] for i in ground_truth["images"]}
            stat = compute_stat(
                pairs,
                PathManager.get_local_path(self._metadata.panoptic_root),
                folder,
                {c["id"]: c for c in ground_truth["categories"]},
                sum(sizes[a["image_id"]] for a in annotations),
            )
        if self._output_dir is not None:
            self._write(ground_truth, predictions.values())
        return OrderedDict({"panoptic_seg": _summarize(stat, ground_truth["categories"])})

    def _write(self, ground_truth: dict[str, Any], predictions: Iterable[dict[str, Any]]) -> None:
        folder, annotations = os.path.join(self._output_dir, "predictions"), []
        PathManager.mkdirs(folder)
        for prediction in predictions:
            with PathManager.open(os.path.join(folder, prediction["file_name"]), "wb") as file:
                file.write(prediction["png_string"])
            kept = ("image_id", "file_name", "segments_info")
            annotations.append({key: prediction[key] for key in kept})
        with PathManager.open(f"{folder}.json", "w") as file:
            # panopticapi has replaced areas by numpy integers.
            json.dump({**ground_truth, "annotations": annotations}, file, default=int)


def _copy(entry: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
    if output.get("panoptic_seg") is None:
        empty = torch.zeros(entry["height"], entry["width"], dtype=torch.int32)
        return {"panoptic_seg": (empty, [])}
    ids, segments_info = output["panoptic_seg"]
    if segments_info is not None:
        segments_info = [dict(segment) for segment in segments_info]
        for segment in segments_info:
            if segment.get("isthing") is not None:  # the base class compares with `is True`
                segment["isthing"] = bool(segment["isthing"])
    return {"panoptic_seg": (ids.detach().cpu().clone(), segments_info)}


def _summarize(stat: Any, categories: list[dict[str, Any]]) -> dict[str, float]:
    metrics = {}
    for suffix, kinds in (("", (0, 1)), ("_th", (1,)), ("_st", (0,))):
        quality = average_quality(stat, [c["id"] for c in categories if c["isthing"] in kinds])
        metrics.update({key + suffix: quality[key] for key in ("PQ", "SQ", "RQ")})
    return metrics
