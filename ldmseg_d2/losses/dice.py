"""Dice loss of segment masks (V-Net, arXiv 1606.04797, with smoothing 1)."""

from torch import Tensor


def mask_dice(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - (2 |p m| + 1) / (|p| + |m| + 1), mean over segments.

    Args:
        logits: (K, P) logits of each ground-truth segment's own channel.
        masks: (K, P) bool or float in [0, 1].

    Returns:
        Scalar in [0, 1); 0 for K = 0.
    """
    if len(logits) == 0:
        return logits.sum()
    probabilities, masks = logits.float().sigmoid(), masks.float()
    intersection = (probabilities * masks).sum(dim=1)
    total = probabilities.sum(dim=1) + masks.sum(dim=1)
    return (1 - (2 * intersection + 1) / (total + 1)).mean()
