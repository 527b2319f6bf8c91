"""Semantic segmentation: Detectron2's measures, also where a data set has no semantic PNGs."""

import logging
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator

from ..data.annotations import index_segments, read_gray_png, read_id_png


class SemanticEvaluator(SemSegEvaluator):
    """Detectron2's :class:`SemSegEvaluator` without boundary IoU.

    Its ground truth is the dict's ``sem_seg_file_name``, or else made of the panoptic PNG and
    ``segments_info`` (crowds count as their class). Outputs without ``sem_seg`` are left out.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None):
        """The metadata's ``stuff_classes`` are all classes, ``ignore_label`` is 255 by default.

        ``output_dir``: of ``sem_seg_predictions.json`` (COCO's stuff results); None: not kept.
        """
        # Not super().__init__, which wants "sem_seg_file_name" of every image.
        self._logger = logging.getLogger(__name__)
        self._cpu_device = torch.device("cpu")
        self._dataset_name, self._output_dir, self._distributed = dataset_name, output_dir, True
        self._compute_boundary_iou = False
        metadata = MetadataCatalog.get(dataset_name)
        self._class_names = list(metadata.stuff_classes)
        self._num_classes = len(self._class_names)
        self._ignore_label = metadata.get("ignore_label", 255)
        # Detectron2 lists things in one map and stuff in the other, or all classes in one.
        ids = dict.fromkeys(range(self._num_classes))
        for key in ("thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id"):
            ids.update({new: old for old, new in metadata.get(key, {}).items()})
        self._contiguous_id_to_dataset_id = {k: k if i is None else i for k, i in ids.items()}
        records = DatasetCatalog.get(dataset_name)
        if not all(has_semantic_truth(r) for r in records):
            raise ValueError(
                f"semantic evaluation needs classes, but images of {dataset_name!r} have neither "
                "'sem_seg_file_name' nor 'pan_seg_file_name' with 'segments_info'"
            )
        self.input_file_to_gt_file = {r["file_name"]: r for r in records}
        self.sem_seg_loading_fn = self._load_truth
        self.reset()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """See the base class: ``file_name``, and ``sem_seg``, (C, H, W) scores."""
        for entry, output in zip(inputs, outputs):
            if output.get("sem_seg") is None:
                continue
            if len(output["sem_seg"]) != self._num_classes:
                raise ValueError(
                    f"the model's sem_seg of {entry['file_name']} has {len(output['sem_seg'])} "
                    f"classes, {self._dataset_name!r} has {self._num_classes}"
                )
            super().process([entry], [output])

    def evaluate(self) -> OrderedDict | None:
        """See the base class; ``{}`` if no output had ``sem_seg``."""
        with np.errstate(invalid="ignore", divide="ignore"):  # nothing but void: NaN
            results = super().evaluate()
        if results is not None and not self._conf_matrix.any():
            self._logger.warning("sem_seg: no output has 'sem_seg': it is left out")
            return OrderedDict()
        return results

    def encode_json_sem_seg(self, sem_seg: np.ndarray, input_file_name: str) -> list[dict]:
        """Nothing where predictions are not kept."""
        return [] if not self._output_dir else super().encode_json_sem_seg(sem_seg, input_file_name)

    def _load_truth(self, record: dict[str, Any], dtype: type) -> np.ndarray:
        truth = load_semantic_truth(record, self._ignore_label).astype(dtype)
        found = np.unique(truth[truth != self._ignore_label])
        wrong = found[(found < 0) | (found >= self._num_classes)]
        if wrong.size:
            path = record.get("sem_seg_file_name", record.get("pan_seg_file_name"))
            raise ValueError(
                f"{path} holds {wrong[:10].tolist()}; allowed are the classes "
                f"0..{self._num_classes - 1} and {self._ignore_label} (ignored)"
            )
        return truth


def has_semantic_truth(record: dict[str, Any]) -> bool:
    """Whether a dict of a data set says the class of its pixels."""
    return "sem_seg_file_name" in record or (
        "pan_seg_file_name" in record and "segments_info" in record
    )


def load_semantic_truth(record: dict[str, Any], ignore_label: int) -> np.ndarray:
    """Read one image's classes (H, W), from its semantic PNG or else from its panoptic one."""
    if "sem_seg_file_name" in record:
        return read_gray_png(record["sem_seg_file_name"], "semantic PNG")
    path = record["pan_seg_file_name"]
    labels, segments = index_segments(read_id_png(path), record["segments_info"], path)
    return np.array([ignore_label, *(s["category_id"] for s in segments)], dtype=np.int64)[labels]
