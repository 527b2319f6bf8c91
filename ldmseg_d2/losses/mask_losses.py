"""Losses of segment masks on each ground-truth segment's own channel: there is no matching."""

from torch import Tensor
from torch.nn import functional as F


def mask_bce(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean binary cross-entropy (scalar) over points, then over segments; 0 for K = 0.

    Args:
        logits: (K, P) logits of each ground-truth segment's own channel.
        masks: (K, P) bool or float in [0, 1].
    """
    if len(logits) == 0:
        return logits.sum()
    return F.binary_cross_entropy_with_logits(logits.float(), masks.float())


def mask_dice(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - (2 |p m| + 1) / (|p| + |m| + 1), mean over segments (scalar); 0 for K = 0.

    V-Net's loss (arXiv 1606.04797) with smoothing 1. Arguments as of :func:`mask_bce`.
    """
    if len(logits) == 0:
        return logits.sum()
    probabilities, masks = logits.float().sigmoid(), masks.float()
    intersection = (probabilities * masks).sum(dim=1)
    total = probabilities.sum(dim=1) + masks.sum(dim=1)
    return (1 - (2 * intersection + 1) / (total + 1)).mean()
