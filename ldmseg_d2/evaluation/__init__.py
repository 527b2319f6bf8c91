"""Detectron2 evaluators: panoptic quality, mask AP, semantic maps, depth, and reconstruction."""

from .class_agnostic_evaluator import ClassAgnosticPanopticEvaluator, ReconstructionEvaluator
from .depth_evaluator import DepthEvaluator
from .evaluator_choice import (
    EVALUATORS,
    WITHOUT_SEGMENTS,
    build_evaluator,
    predicts_classes,
    register_evaluator,
)
from .instance_evaluator import InstanceAPEvaluator
from .panoptic_evaluator import PanopticEvaluator
from .semantic_evaluator import SemanticEvaluator

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
