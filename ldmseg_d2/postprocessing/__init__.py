"""From what the decoder gives to panoptic maps."""

from .panoptic_fusion import logits_to_panoptic, suppress_unconfident_ids

__all__ = ["logits_to_panoptic", "suppress_unconfident_ids"]
