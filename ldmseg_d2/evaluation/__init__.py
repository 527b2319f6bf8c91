"""Detectron2 evaluators: panoptic quality with and without classes, and reconstruction."""

from .build import build_evaluator, predicts_classes
from .class_agnostic import ClassAgnosticPanopticEvaluator, ReconstructionEvaluator
from .coco_panoptic import PanopticEvaluator

__all__ = [
    "ClassAgnosticPanopticEvaluator",
    "PanopticEvaluator",
    "ReconstructionEvaluator",
    "build_evaluator",
    "predicts_classes",
]
