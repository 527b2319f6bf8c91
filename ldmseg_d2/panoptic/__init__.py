"""From logits of ids to panoptic maps: segments, and the classes of segments."""

from .class_votes import merge_classes, panoptic_to_semantic, split_segments
from .decoding import (
    SegmentsInfo,
    logits_to_panoptic,
    semantic_probabilities,
    suppress_unconfident_ids,
)

__all__ = [
    "SegmentsInfo",
    "logits_to_panoptic",
    "merge_classes",
    "panoptic_to_semantic",
    "semantic_probabilities",
    "split_segments",
    "suppress_unconfident_ids",
]
