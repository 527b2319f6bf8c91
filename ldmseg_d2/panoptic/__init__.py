"""From logits of ids to panoptic maps: segments, and the classes of segments."""

from .class_votes import merge_classes, panoptic_to_semantic, semantic_probabilities
from .decoding import logits_to_panoptic, suppress_unconfident_ids
from .region_fusion import fuse_regions
from .segment_splitting import split_segments, split_things

__all__ = [
    "fuse_regions",
    "logits_to_panoptic",
    "merge_classes",
    "panoptic_to_semantic",
    "semantic_probabilities",
    "split_segments",
    "split_things",
    "suppress_unconfident_ids",
]
