"""Chooses the evaluators: what the model gives, and what the data set has."""

import logging
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from ..data import dataset_dicts_with_depth
from .class_agnostic import ClassAgnosticPanopticEvaluator, ReconstructionEvaluator
from .coco_panoptic import PanopticEvaluator
from .depth import DepthEvaluator
from .instance_ap import InstanceAPEvaluator
from .semantic import SemanticEvaluator, has_semantic_truth

logger = logging.getLogger(__name__)

EVALUATOR_TYPES_WITH_CLASSES = (
    "scenes_panoptic",
    "coco_panoptic_seg",
    "ade20k_panoptic_seg",
    "cityscapes_panoptic_seg",
)
# "sem_seg": semantic maps alone, as of Detectron2's "ade20k_sem_seg_val".
EVALUATOR_TYPES = (*EVALUATOR_TYPES_WITH_CLASSES, "class_agnostic_panoptic", "sem_seg")
# Meta-architectures of stage 1; what the others give is read from the config or taken for granted.
AUTOENCODERS = ("LDMSegAutoencoder", "LDMSegDepthAutoencoder")
# What is trained before an LDMSeg, and gives no segments of a photo.
WITHOUT_SEGMENTS = (*AUTOENCODERS, "LDMSegImageEncoder")

# Builds an evaluator, or says that model and data set do not fit it: None.
Builder = Callable[[CfgNode, str, str | None], DatasetEvaluator | None]
EVALUATORS: dict[str, Builder] = {}


def register_evaluator(key: str) -> Callable[[Builder], Builder]:
    """Register how a kind of output is measured, under its key in the results.

    Args:
        key: a new key. Evaluators run in the order of their registration.

    Raises:
        ValueError: if the key is taken.

    Example:
        A task's evaluator is used by every training and evaluation once its module is imported:

        >>> from ldmseg_d2.evaluation import EVALUATORS, DepthEvaluator, register_evaluator
        >>> @register_evaluator("depth_by_median")
        ... def build_depth_by_median(cfg, dataset_name, output_folder):
        ...     if "depth" not in cfg.MODEL.LDMSEG.TASKS or "kitti" not in dataset_name:
        ...         return None  # does not apply
        ...     return DepthEvaluator(dataset_name, output_folder, alignment="median")
        >>> "depth_by_median" in EVALUATORS
        True
        >>> _ = EVALUATORS.pop("depth_by_median")
    """

    def _register(builder: Builder) -> Builder:
        if key in EVALUATORS:
            raise ValueError(f"an evaluator is registered for {key!r} already")
        EVALUATORS[key] = builder
        return builder

    return _register


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_folder: str | None = None
) -> DatasetEvaluators:
    """Build all evaluators that fit a model's outputs and a data set's annotations.

    | result | the model | the data set |
    | --- | --- | --- |
    | "reconstruction" | LDMSegAutoencoder | panoptic |
    | "panoptic_seg" | predicts classes | panoptic with classes |
    | "panoptic_class_agnostic" | gives segments | panoptic |
    | "segm", "bbox" | predicts classes | panoptic with classes, of which some are things |
    | "sem_seg" | gives semantic maps | classes of its pixels |
    | "depth" | the task "depth", or LDMSegDepthAutoencoder | depth |

    LDMSeg gives segments with "instance" in ``MODEL.LDMSEG.TASKS``, classes unless ``CLASSIFIER``
    is "none", semantic maps with "semantic" in ``TASKS`` or the classifier "mask_pooling";
    LDMSegImageEncoder gives semantic maps alone. Other meta-architectures are taken to give
    segments, classes and semantic maps.

    Args:
        cfg: reads ``MODEL.META_ARCHITECTURE``, ``MODEL.LDMSEG.{TASKS,CLASSIFIER,DEPTH}``.
        dataset_name: a registered data set; its metadata's ``evaluator_type`` is one of
            ``EVALUATOR_TYPES``.
        output_folder: predictions are written there; None: they are not kept.

    Raises:
        ValueError: for another ``evaluator_type``, or none; if no evaluator fits; and whatever the
            evaluators themselves refuse.
    """
    evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type", None)
    if evaluator_type not in EVALUATOR_TYPES:
        raise ValueError(
            f"data set {dataset_name!r} has evaluator_type {evaluator_type!r}; allowed: "
            f"{', '.join(EVALUATOR_TYPES)}. Set it with MetadataCatalog.get(name).set(...)"
        )
    built = [build(cfg, dataset_name, output_folder) for build in EVALUATORS.values()]
    evaluators = [evaluator for evaluator in built if evaluator is not None]
    if not evaluators:
        raise ValueError(
            f"nothing to measure: {cfg.MODEL.META_ARCHITECTURE} with the tasks "
            f"{list(_tasks(cfg))} on {dataset_name!r} (evaluator_type {evaluator_type!r}) fits "
            f"none of {', '.join(EVALUATORS)}. Choose another data set in DATASETS.TEST, or add "
            "the annotations to this one"
        )
    return DatasetEvaluators(evaluators)


def predicts_classes(cfg: CfgNode) -> bool:
    """Say whether the model's segments carry a predicted class.

    Args:
        cfg: reads ``MODEL.META_ARCHITECTURE``, and for LDMSeg ``MODEL.LDMSEG.CLASSIFIER``.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    if name == "LDMSeg":
        return _ldmseg(cfg, "CLASSIFIER", "none") != "none"
    return name not in WITHOUT_SEGMENTS


@register_evaluator("reconstruction")
def _build_reconstruction(cfg: CfgNode, name: str, folder: str | None) -> DatasetEvaluator | None:
    if cfg.MODEL.META_ARCHITECTURE != "LDMSegAutoencoder" or not _has_segments(name):
        return None
    return ReconstructionEvaluator(name, folder)


@register_evaluator("panoptic_seg")
def _build_panoptic(cfg: CfgNode, name: str, folder: str | None) -> DatasetEvaluator | None:
    if not (_gives_segments(cfg) and predicts_classes(cfg) and _has_segment_classes(name)):
        return None
    return PanopticEvaluator(name, folder)


@register_evaluator("panoptic_class_agnostic")
def _build_class_agnostic(cfg: CfgNode, name: str, folder: str | None) -> DatasetEvaluator | None:
    if not (_gives_segments(cfg) and _has_segments(name)):
        return None
    return ClassAgnosticPanopticEvaluator(name, folder)


@register_evaluator("segm")
def _build_instance_ap(cfg: CfgNode, name: str, folder: str | None) -> DatasetEvaluator | None:
    if not (_gives_segments(cfg) and predicts_classes(cfg) and _has_segment_classes(name)):
        return None
    if not MetadataCatalog.get(name).get("thing_dataset_id_to_contiguous_id", {}):
        return None
    return InstanceAPEvaluator(name, folder)


@register_evaluator("sem_seg")
def _build_semantic(cfg: CfgNode, name: str, folder: str | None) -> DatasetEvaluator | None:
    if not _gives_semantic(cfg):
        return None
    if MetadataCatalog.get(name).evaluator_type == "class_agnostic_panoptic":
        return None
    if not any(has_semantic_truth(record) for record in DatasetCatalog.get(name)):
        return None
    return SemanticEvaluator(name, folder)


@register_evaluator("depth")
def _build_depth(cfg: CfgNode, name: str, folder: str | None) -> DatasetEvaluator | None:
    meta_arch = cfg.MODEL.META_ARCHITECTURE
    if meta_arch != "LDMSegDepthAutoencoder" and not (
        meta_arch == "LDMSeg" and "depth" in _tasks(cfg)
    ):
        return None
    records = dataset_dicts_with_depth(cfg, name)
    if not any("depth_file_name" in record for record in records):
        return None
    # A relative depth has neither scale nor zero of its own.
    normalization = _ldmseg(cfg, "DEPTH", {}).get("NORMALIZATION", "relative")
    alignment = "none" if normalization == "metric" else "scale_and_shift"
    return DepthEvaluator(name, folder, alignment=alignment, dataset_dicts=records)


def _ldmseg(cfg: CfgNode, key: str, default: Any) -> Any:
    """A key of MODEL.LDMSEG; configs of other models need not have any."""
    return cfg.MODEL.get("LDMSEG", {}).get(key, default)


def _tasks(cfg: CfgNode) -> tuple[str, ...]:
    """LDMSeg's tasks; none for other models."""
    if cfg.MODEL.META_ARCHITECTURE != "LDMSeg":
        return ()
    return tuple(_ldmseg(cfg, "TASKS", ("instance",)))


def _gives_segments(cfg: CfgNode) -> bool:
    name = cfg.MODEL.META_ARCHITECTURE
    return "instance" in _tasks(cfg) if name == "LDMSeg" else name not in WITHOUT_SEGMENTS


def _gives_semantic(cfg: CfgNode) -> bool:
    if cfg.MODEL.META_ARCHITECTURE != "LDMSeg":
        return cfg.MODEL.META_ARCHITECTURE not in AUTOENCODERS
    return "semantic" in _tasks(cfg) or _ldmseg(cfg, "CLASSIFIER", "none") == "mask_pooling"


def _has_segments(name: str) -> bool:
    return MetadataCatalog.get(name).evaluator_type != "sem_seg"


def _has_segment_classes(name: str) -> bool:
    return MetadataCatalog.get(name).evaluator_type in EVALUATOR_TYPES_WITH_CLASSES
