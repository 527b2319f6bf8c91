"""Draws depth maps; every function returns a picture and writes no file."""

import matplotlib
import numpy as np
import torch

from .color_overlay import stripes

# Perceptually uniform. Near is bright and far is dark: the map is read from its end. The darkest
# and the brightest end, which look like void and like paper, are left out.
COLOR_MAP, DARKEST, BRIGHTEST = "inferno", 0.08, 0.97
QUANTILES = (0.02, 0.98)


def depth_range(depth: np.ndarray | torch.Tensor) -> tuple[float, float]:
    """(near, far): 2 % and 98 % quantiles of a map's finite depths above 0; (0, 1) without any."""
    depth = _to_array(depth)
    valid = np.isfinite(depth) & (depth > 0)
    near, far = np.quantile(depth[valid], QUANTILES) if valid.any() else (0, 1)
    return float(near), float(far)


def draw_depth(
    depth: np.ndarray | torch.Tensor,
    near: float,
    far: float,
    *,
    log: bool = False,
    scale: int = 1,
) -> np.ndarray:
    """Draw a depth map in matplotlib's "inferno": near is bright, far is dark.

    Args:
        depth: (H, W), the larger the farther; what is negative or not finite becomes dark stripes.
        near, far: depths of the two ends of the colours, see :func:`depth_range`.
        log: equal ratios of depth, not equal differences, are equal steps of colour.
        scale: enlarges small pictures by this whole factor.

    Returns:
        (scale * H, scale * W, 3) uint8 RGB.
    """
    depth = _to_array(depth).repeat(scale, axis=0).repeat(scale, axis=1)
    valid = np.isfinite(depth) & (depth >= 0)
    depth = np.clip(np.where(valid, depth, near), near, far)
    if log and near > 0:
        depth, near, far = np.log(depth), np.log(near), np.log(far)
    # A flat map is all near.
    share = (depth - near) / max(far - near, 1e-9)
    bright = BRIGHTEST - share * (BRIGHTEST - DARKEST)
    picture = matplotlib.colormaps[COLOR_MAP](bright, bytes=True)[..., :3]
    return np.where(valid[..., None], picture, stripes(valid.shape))


def _to_array(depth: np.ndarray | torch.Tensor) -> np.ndarray:
    return torch.as_tensor(depth).detach().cpu().double().numpy()
