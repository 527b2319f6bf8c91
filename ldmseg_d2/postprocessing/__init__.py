"""From what the decoder gives to panoptic maps."""

from .class_fusion import merge_classes, panoptic_to_semantic, semantic_probabilities
from .panoptic_fusion import logits_to_panoptic, suppress_unconfident_ids

__all__ = [
    "logits_to_panoptic",
    "merge_classes",
    "panoptic_to_semantic",
    "semantic_probabilities",
    "suppress_unconfident_ids",
]
