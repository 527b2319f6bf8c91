"""Binary cross-entropy of segment masks."""

from torch import Tensor
from torch.nn import functional as F


def mask_bce(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean binary cross-entropy over pixels, then over segments.

    Args:
        logits: (K, P) logits of each ground-truth segment's own channel.
        masks: (K, P) bool or float in [0, 1].

    Returns:
        Scalar; 0 for K = 0.
    """
    if len(logits) == 0:
        return logits.sum()
    return F.binary_cross_entropy_with_logits(logits.float(), masks.float())
