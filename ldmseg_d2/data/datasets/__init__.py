"""Data sets: how each is made, and under which name Detectron2 knows it."""

from .builtin import datasets_root, register_all, register_class_agnostic
from .register_panoptic import register_panoptic_dataset

__all__ = [
    "datasets_root",
    "register_all",
    "register_class_agnostic",
    "register_panoptic_dataset",
]
