"""From what the decoder gives to panoptic maps."""

from .class_fusion import merge_classes, panoptic_to_semantic, semantic_probabilities
from .consensus import consensus
from .given_prior import given_log_prior, random_walk
from .known_parts import given_ids_by_overlap, given_ids_by_votes, paste_known
from .panoptic_fusion import logits_to_panoptic, suppress_unconfident_ids
from .query_fusion import queries_to_panoptic, queries_to_semantic
from .region_fusion import fuse_regions
from .segment_splitting import split_segments, split_things

__all__ = [
    "consensus",
    "fuse_regions",
    "given_ids_by_overlap",
    "given_ids_by_votes",
    "given_log_prior",
    "logits_to_panoptic",
    "merge_classes",
    "panoptic_to_semantic",
    "paste_known",
    "queries_to_panoptic",
    "queries_to_semantic",
    "random_walk",
    "semantic_probabilities",
    "split_segments",
    "split_things",
    "suppress_unconfident_ids",
]
