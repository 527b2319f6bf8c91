"""Panoptic quality with classes: Detectron2's COCO evaluator, made safe to use beside others."""

import json
import tempfile
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from detectron2.evaluation import COCOPanopticEvaluator

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
        ground_truth = json.loads(Path(self._metadata.panoptic_json).read_text("utf-8"))
        annotations = [a for a in ground_truth["annotations"] if a["image_id"] in predictions]
        categories = {c["id"]: c for c in ground_truth["categories"]}
        with tempfile.TemporaryDirectory(prefix="ldmseg_eval_") as folder:
            pairs = []
            for index, annotation in enumerate(annotations):
                prediction = {**predictions[annotation["image_id"]], "file_name": f"{index}.png"}
                Path(folder, f"{index}.png").write_bytes(prediction["png_string"])
                pairs.append((annotation, prediction))
            sizes = {i["id"]: i["height"] * i["width"] for i in ground_truth["images"]}
            num_pixels = sum(sizes[a["image_id"]] for a in annotations)
            root = self._metadata.panoptic_root
            stat = compute_stat(pairs, root, folder, categories, num_pixels)
        if self._output_dir is not None:
            self._write(ground_truth, predictions.values())
        metrics = {}
        for suffix, isthing in (("", None), ("_th", True), ("_st", False)):
            quality = average_quality(stat, categories, isthing)
            metrics.update({key + suffix: value for key, value in quality.items()})
        return OrderedDict({"panoptic_seg": metrics})

    def _write(self, ground_truth: dict[str, Any], predictions: Iterable[dict[str, Any]]) -> None:
        folder, annotations = Path(self._output_dir, "predictions"), []
        folder.mkdir(parents=True, exist_ok=True)
        for prediction in predictions:
            (folder / prediction["file_name"]).write_bytes(prediction["png_string"])
            kept = ("image_id", "file_name", "segments_info")
            annotations.append({key: prediction[key] for key in kept})
        # panopticapi has replaced areas by numpy integers.
        text = json.dumps({**ground_truth, "annotations": annotations}, default=int)
        folder.with_suffix(".json").write_text(text)


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
