"""Losses of stage 1 as functions on tensors."""

from .cross_entropy import factored_cross_entropy, id_cross_entropy
from .mask_losses import mask_bce, mask_dice
from .point_sampling import choose_uncertain_points, sample_at_points

__all__ = [
    "choose_uncertain_points",
    "factored_cross_entropy",
    "id_cross_entropy",
    "mask_bce",
    "mask_dice",
    "sample_at_points",
]
