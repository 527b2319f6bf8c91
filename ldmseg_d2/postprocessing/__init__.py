"""From what the decoder gives to panoptic maps."""

from .consensus import consensus
from .known_parts import given_ids_by_overlap, given_ids_by_votes, paste_known
from .panoptic_fusion import logits_to_panoptic, suppress_unconfident_ids

__all__ = [
    "consensus",
    "given_ids_by_overlap",
    "given_ids_by_votes",
    "logits_to_panoptic",
    "paste_known",
    "suppress_unconfident_ids",
]
