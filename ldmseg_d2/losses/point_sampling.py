"""Uncertainty-driven point sampling (PointRend, arXiv 1912.08193, section 3.1)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def sample_at_points(x: Tensor, points: Tensor, mode: str = "bilinear") -> Tensor:
    """Values of a map at points.

    Args:
        x: (B, C, H, W).
        points: (B, P, 2) (x, y) in [0, 1], pixel centres at (i + 0.5) / size.
        mode: "bilinear" or "nearest".

    Returns:
        (B, C, P).
    """
    grid = 2.0 * points.unsqueeze(2) - 1.0  # [B, P, 1, 2]
    return F.grid_sample(x, grid.to(x.dtype), mode=mode, align_corners=False).squeeze(3)


@torch.no_grad()
def choose_uncertain_points(
    logits: Tensor,
    num_points: int,
    *,
    oversample_ratio: float = 3.0,
    importance_ratio: float = 0.75,
) -> Tensor:
    """Choose points where the two best ids are close, and some at random.

    Args:
        logits: (B, K, H, W), K >= 2.
        num_points: P.
        oversample_ratio: candidates per chosen point, >= 1.
        importance_ratio: share of the points taken by uncertainty, in [0, 1].

    Returns:
        (B, P, 2) (x, y) in [0, 1].
    """
    batch = len(logits)
    num_candidates = int(num_points * oversample_ratio)
    candidates = torch.rand(batch, num_candidates, 2, device=logits.device)
    top2 = sample_at_points(logits, candidates).topk(2, dim=1).values  # [B, 2, candidates]
    num_uncertain = int(importance_ratio * num_points)
    chosen = (top2[:, 1] - top2[:, 0]).topk(num_uncertain, dim=1).indices
    uncertain = candidates.gather(1, chosen.unsqueeze(2).expand(-1, -1, 2))
    uniform = torch.rand(batch, num_points - num_uncertain, 2, device=logits.device)
    return torch.cat([uncertain, uniform], dim=1)
