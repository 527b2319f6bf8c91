"""What a model reaches on the test set; where there are no classes, by the number of segments."""

from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, inference_on_dataset
from torch import nn

from ldmseg_d2.data import build_test_loader
from ldmseg_d2.data.annotations import read_id_png
from ldmseg_d2.evaluation import ClassAgnosticPanopticEvaluator, build_evaluator

# Most segments of a picture of each bin but the last, which has no limit.
EDGES = (4, 8, 16, 32, 64, 127)
COUNTS = ("1-4", "5-8", "9-16", "17-32", "33-64", "65-127", "128-")


def evaluate(cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
    """All evaluators that fit DATASETS.TEST's only data set, and of one without classes
    :class:`CountsEvaluator`; no file is written. The model may be in either mode.
    """
    name = cfg.DATASETS.TEST[0]
    evaluators = [build_evaluator(cfg, name, None)]
    if MetadataCatalog.get(name).evaluator_type == "class_agnostic_panoptic":
        evaluators.append(CountsEvaluator(name))
    loader = build_test_loader(cfg, name)
    return dict(inference_on_dataset(model, loader, DatasetEvaluators(evaluators)))


class CountsEvaluator(DatasetEvaluator):
    """Class-agnostic PQ of the pictures that have 1 to 4 segments, 5 to 8, and so on."""

    def __init__(self, dataset_name: str) -> None:
        self._bins = {}
        for record in DatasetCatalog.get(dataset_name):
            count = np.count_nonzero(np.unique(read_id_png(record["pan_seg_file_name"])))
            self._bins[record["image_id"]] = int(np.searchsorted(EDGES, count))
        self._evaluators = [ClassAgnosticPanopticEvaluator(dataset_name) for _ in COUNTS]

    def reset(self) -> None:
        """Forget all predictions."""
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """See :class:`ClassAgnosticPanopticEvaluator`."""
        for entry, output in zip(inputs, outputs, strict=True):
            self._evaluators[self._bins[entry["image_id"]]].process([entry], [output])

    def evaluate(self) -> dict[str, dict[str, float]]:
        """``{"counts": PQ by bin}``, in percent; bins without a picture are left out."""
        found = {}
        for label, evaluator in zip(COUNTS, self._evaluators, strict=True):
            metrics = evaluator.evaluate()["panoptic_class_agnostic"]
            if metrics["gt_segments_per_image"]:
                found[label] = metrics["PQ"]
        return {"counts": found}
