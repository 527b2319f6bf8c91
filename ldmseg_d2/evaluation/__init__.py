"""Detectron2 evaluators: panoptic quality, mask AP, semantic maps, depth, and reconstruction."""

from .build import (
    EVALUATORS,
    WITHOUT_SEGMENTS,
    build_evaluator,
    predicts_classes,
    register_evaluator,
)
from .class_agnostic import ClassAgnosticPanopticEvaluator, ReconstructionEvaluator
from .coco_panoptic import PanopticEvaluator
from .depth import DepthEvaluator
from .instance_ap import InstanceAPEvaluator
from .semantic import SemanticEvaluator

__all__ = [
    "EVALUATORS",
    "WITHOUT_SEGMENTS",
    "ClassAgnosticPanopticEvaluator",
    "DepthEvaluator",
    "InstanceAPEvaluator",
    "PanopticEvaluator",
    "ReconstructionEvaluator",
    "SemanticEvaluator",
    "build_evaluator",
    "predicts_classes",
    "register_evaluator",
]
