"""Chooses the evaluators: what the model gives, and what the data set has."""

from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from ..data import dataset_dicts_with_depth
from .class_agnostic_evaluator import ClassAgnosticPanopticEvaluator, ReconstructionEvaluator
from .depth_evaluator import DepthEvaluator
from .instance_evaluator import InstanceAPEvaluator
from .panoptic_evaluator import PanopticEvaluator
from .semantic_evaluator import SemanticEvaluator, has_semantic_truth

WITH_CLASSES = (
    "scenes_panoptic",
    "coco_panoptic_seg",
    "ade20k_panoptic_seg",
    "cityscapes_panoptic_seg",
)
# "sem_seg": semantic maps alone, as of Detectron2's "ade20k_sem_seg_val".
EVALUATOR_TYPES = (*WITH_CLASSES, "class_agnostic_panoptic", "sem_seg")
# Stage 1; what the other models give is read from the config or taken for granted.
WITHOUT_SEGMENTS = ("LDMSegAutoencoder", "LDMSegDepthAutoencoder")

# Builds an evaluator, or says that model and data set do not fit it: None.
Builder = Callable[[CfgNode, str, str | None], DatasetEvaluator | None]
EVALUATORS: dict[str, Builder] = {}


def register_evaluator(key: str) -> Callable[[Builder], Builder]:
    """Register how a kind of output is measured, under its new key in the results.

    Example:
        >>> @register_evaluator("metric_depth")
        ... def build_metric_depth(cfg, dataset_name, output_folder):
        ...     if "depth" not in cfg.MODEL.LDMSEG.TASKS:
        ...         return None  # does not apply
        ...     return DepthEvaluator(dataset_name, alignment="none")
        >>> _ = EVALUATORS.pop("metric_depth")
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
    | "segm" | predicts classes | panoptic with classes, of which some are things |
    | "sem_seg" | gives semantic maps | classes of its pixels |
    | "depth" | the task "depth", or LDMSegDepthAutoencoder | depth |

    LDMSeg's ``TASKS`` and ``CLASSIFIER`` say what it gives; other meta-architectures are taken to
    give segments, classes and semantic maps. Predictions are written to ``output_folder`` unless it
    is None. Raises ValueError for a data set without one of ``EVALUATOR_TYPES`` in its metadata, or
    where nothing can be measured.
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
            f"nothing to measure: {cfg.MODEL.META_ARCHITECTURE} gives {sorted(_given(cfg))}, which "
            f"{dataset_name!r} (evaluator_type {evaluator_type!r}) has no annotations of: choose "
            "another data set in DATASETS.TEST, or add them to this one"
        )
    return DatasetEvaluators(evaluators)


def predicts_classes(cfg: CfgNode) -> bool:
    """Say whether the model's segments carry a predicted class."""
    return "classes" in _given(cfg)


@register_evaluator("reconstruction")
def _build_reconstruction(cfg: CfgNode, name: str, folder: str | None) -> DatasetEvaluator | None:
    return ReconstructionEvaluator(name) if _fits(cfg, name, {"reconstruction"}) else None


@register_evaluator("panoptic_seg")
def _build_panoptic(cfg: CfgNode, name: str, folder: str | None) -> DatasetEvaluator | None:
    return PanopticEvaluator(name, folder) if _fits(cfg, name, {"segments", "classes"}) else None


@register_evaluator("panoptic_class_agnostic")
def _build_class_agnostic(cfg: CfgNode, name: str, folder: str | None) -> DatasetEvaluator | None:
    return ClassAgnosticPanopticEvaluator(name) if _fits(cfg, name, {"segments"}) else None


@register_evaluator("segm")
def _build_instance_ap(cfg: CfgNode, name: str, folder: str | None) -> DatasetEvaluator | None:
    things = MetadataCatalog.get(name).get("thing_dataset_id_to_contiguous_id", {})
    fits = things and _fits(cfg, name, {"segments", "classes"})
    return InstanceAPEvaluator(name, folder) if fits else None


@register_evaluator("sem_seg")
def _build_semantic(cfg: CfgNode, name: str, folder: str | None) -> DatasetEvaluator | None:
    has = MetadataCatalog.get(name).evaluator_type != "class_agnostic_panoptic"
    fits = has and "semantic" in _given(cfg)
    fits = fits and any(has_semantic_truth(r) for r in DatasetCatalog.get(name))
    return SemanticEvaluator(name, folder) if fits else None


@register_evaluator("depth")
def _build_depth(cfg: CfgNode, name: str, folder: str | None) -> DatasetEvaluator | None:
    records = dataset_dicts_with_depth(cfg, name) if "depth" in _given(cfg) else []
    if not any("depth_file_name" in record for record in records):
        return None
    # A relative depth has neither scale nor zero of its own.
    is_metric = cfg.MODEL.LDMSEG.DEPTH.NORMALIZATION == "metric"
    alignment = "none" if is_metric else "scale_and_shift"
    return DepthEvaluator(name, alignment=alignment, dataset_dicts=records)


def _given(cfg: CfgNode) -> set[str]:
    """What a model gives; configs of models other than ours need not have LDMSEG."""
    name = cfg.MODEL.META_ARCHITECTURE
    if name in WITHOUT_SEGMENTS:
        return {"reconstruction"} if name == "LDMSegAutoencoder" else {"depth"}
    if name != "LDMSeg":
        return {"segments", "classes", "semantic"}
    tasks, classifier = cfg.MODEL.LDMSEG.TASKS, cfg.MODEL.LDMSEG.CLASSIFIER
    return {
        *({"segments"} if "instance" in tasks else ()),
        *({"classes"} if classifier != "none" else ()),
        *({"semantic"} if "semantic" in tasks or classifier == "mask_pooling" else ()),
        *({"depth"} if "depth" in tasks else ()),
    }


def _fits(cfg: CfgNode, name: str, needed: set[str]) -> bool:
    """Whether a model gives what is needed, and the data set has panoptic maps of that kind."""
    kind = MetadataCatalog.get(name).evaluator_type
    has = kind in WITH_CLASSES or (kind != "sem_seg" and "classes" not in needed)
    return has and needed <= _given(cfg)
