"""Chooses the evaluators for a model and a data set."""

import logging

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluators, SemSegEvaluator
from detectron2.utils.file_io import PathManager
from PIL import Image

from .class_agnostic import ClassAgnosticPanopticEvaluator, ReconstructionEvaluator
from .coco_panoptic import PanopticEvaluator

logger = logging.getLogger(__name__)

EVALUATOR_TYPES_WITH_CLASSES = (
    "scenes_panoptic",
    "coco_panoptic_seg",
    "ade20k_panoptic_seg",
    "cityscapes_panoptic_seg",
)
EVALUATOR_TYPES = (*EVALUATOR_TYPES_WITH_CLASSES, "class_agnostic_panoptic")
# Meta-architectures whose segments carry no class.
CLASS_AGNOSTIC_META_ARCHS = ("LDMSeg", "LDMSegAutoencoder")


def predicts_classes(cfg: CfgNode) -> bool:
    """Say whether the model's segments carry a predicted class.

    Args:
        cfg: reads ``MODEL.META_ARCHITECTURE``.
    """
    return cfg.MODEL.META_ARCHITECTURE not in CLASS_AGNOSTIC_META_ARCHS


def load_sem_seg(filename: str, copy: bool = True, dtype: type | None = None) -> np.ndarray:
    """Read a semantic PNG for SemSegEvaluator, whose own loader fails with numpy 2.

    Args:
        filename: path of a one-channel PNG.
        copy: accepted for the sake of the signature; the result is always a fresh array.
        dtype: of the result.

    Returns:
        (H, W) array.
    """
    with PathManager.open(filename, "rb") as f:
        return np.array(Image.open(f), dtype=dtype)


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_folder: str | None = None
) -> DatasetEvaluators:
    """Build what a model's output on a data set is measured with.

    - ``LDMSegAutoencoder``: "reconstruction" alone;
    - every other model: "panoptic_class_agnostic";
    - models that predict classes, on data sets that have them, also: "panoptic_seg", and "sem_seg"
      where the data set has semantic maps.

    Args:
        cfg: reads ``MODEL.META_ARCHITECTURE``.
        dataset_name: a registered data set; its metadata's ``evaluator_type`` is one of
            ``EVALUATOR_TYPES``.
        output_folder: predictions are written there; None: they are not kept.

    Raises:
        ValueError: for another ``evaluator_type``, or none.
    """
    metadata = MetadataCatalog.get(dataset_name)
    evaluator_type = metadata.get("evaluator_type", None)
    if evaluator_type not in EVALUATOR_TYPES:
        raise ValueError(
            f"data set {dataset_name!r} has evaluator_type {evaluator_type!r}; allowed: "
            f"{', '.join(EVALUATOR_TYPES)}. Set it with MetadataCatalog.get(name).set(...)"
        )
    if cfg.MODEL.META_ARCHITECTURE == "LDMSegAutoencoder":
        return DatasetEvaluators([ReconstructionEvaluator(dataset_name, output_folder)])
    evaluators = [ClassAgnosticPanopticEvaluator(dataset_name, output_folder)]
    if predicts_classes(cfg) and evaluator_type in EVALUATOR_TYPES_WITH_CLASSES:
        evaluators.insert(0, PanopticEvaluator(dataset_name, output_folder))
        # Detectron2's "coco_2017_*_panoptic" has no semantic maps.
        if metadata.get("sem_seg_root", None) is not None:
            evaluators.append(
                SemSegEvaluator(
                    dataset_name, output_dir=output_folder, sem_seg_loading_fn=load_sem_seg
                )
            )
    return DatasetEvaluators(evaluators)
