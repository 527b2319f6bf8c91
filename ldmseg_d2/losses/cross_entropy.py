"""Cross-entropy over segment ids, for a plain head and, in closed form, for a factored one."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..ids import encode_bits


def id_cross_entropy(logits: Tensor, ids: Tensor, *, void_weight: float = 0.0) -> Tensor:
    """Mean cross-entropy over ids.

    Args:
        logits: (B, K, ...) logits of the ids, 0 being void.
        ids: (B, ...) int64 true ids.
        void_weight: weight of void pixels; 0 leaves them out (the paper).

    Returns:
        Scalar: weighted mean over pixels; 0 where no pixel counts.
    """
    return _weighted_mean(F.cross_entropy(logits.float(), ids, reduction="none"), ids, void_weight)


def factored_cross_entropy(head_output: Tensor, ids: Tensor, *, void_weight: float = 0.0) -> Tensor:
    """The same cross-entropy for bit logits l_1..l_n and a void logit v, without 2^n channels.

    The logit of id k is the sum over bits of c_kb l_b with its code c_k in {-1, 1}^n. Because the
    sum over all codes factors, sum_k exp(sum_b c_kb l_b) = prod_b 2 cosh(l_b), the normaliser is

        Z = exp(v) + prod_b 2 cosh(l_b) - exp(-sum_b l_b),

    the last term being code 0, which is void and not an id. Cost is linear in n, not in 2^n.

    Args:
        head_output: (B, n + 1, H, W) bit logits, least significant first, then the void logit.
        ids: (B, H, W) int64 true ids.
        void_weight: see :func:`id_cross_entropy`.

    Returns:
        Scalar: equal to :func:`id_cross_entropy` of the expanded logits.
    """
    head_output = head_output.float()
    num_bits = head_output.shape[1] - 1
    bits, void = head_output[:, :num_bits], head_output[:, num_bits]  # [B, n, H, W], [B, H, W]
    # prod 2 cosh(l_b) - exp(-sum l_b) = exp(-sum l_b) (exp(S) - 1), S = sum log(1 + exp(2 l_b)):
    # nothing cancels, however much of the mass code 0 has. The clamp keeps log(0) away.
    s = F.softplus(2 * bits).sum(dim=1).clamp(min=1e-30)  # [B, H, W]
    log_ids = s + torch.log(-torch.expm1(-s)) - bits.sum(dim=1)
    log_normaliser = torch.logaddexp(void, log_ids)
    true_logit = torch.where(ids == 0, void, (encode_bits(ids, num_bits) * bits).sum(dim=1))
    return _weighted_mean(log_normaliser - true_logit, ids, void_weight)


def _weighted_mean(losses: Tensor, ids: Tensor, void_weight: float) -> Tensor:
    weights = torch.where(ids == 0, void_weight, 1.0).to(losses)
    # The smallest number only keeps 0 / 0 away.
    return (losses * weights).sum() / weights.sum().clamp(min=torch.finfo(losses.dtype).tiny)
