"""Draws depth maps; every function returns a picture and writes no file."""

import cv2
import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw

from .layout import font
from .overlay import stripes

# Perceptually uniform. Near is bright and far is dark: the map is read from its end.
COLOR_MAP = "inferno"
# The darkest and the brightest end, which look like void and like paper, are left out.
_DARKEST, _BRIGHTEST = 0.08, 0.97
_QUANTILES = (0.02, 0.98)
_MIN_SCALE_SIDE = 160


def depth_range(
    depth: np.ndarray | torch.Tensor, valid: np.ndarray | torch.Tensor | None = None
) -> tuple[float, float]:
    """The range that :func:`draw_depth` shows: the 2 % and 98 % quantiles of a map.

    Args:
        depth: (H, W).
        valid: (H, W) bool, see :func:`draw_depth`.

    Returns:
        (near, far); (0, 1) without a valid pixel.
    """
    depth, valid = _to_arrays(depth, valid)
    if not valid.any():
        return 0.0, 1.0
    near, far = np.quantile(depth[valid], _QUANTILES)
    return float(near), float(far)


def draw_depth(
    depth: np.ndarray | torch.Tensor,
    valid: np.ndarray | torch.Tensor | None = None,
    *,
    range: tuple[float, float] | None = None,
    unit: str | None = None,
    log: bool = False,
    draw_scale: bool = True,
    scale: int = 1,
) -> np.ndarray:
    """Draw a depth map in matplotlib's "inferno": near is bright, far is dark.

    Args:
        depth: (H, W), the larger the farther.
        valid: (H, W) bool; other pixels become dark stripes. None: those that are finite.
        range: (near, far), the depths of the two ends of the colours; what is outside has the
            colour of the end. None: see :func:`depth_range`.
        unit: such as "m"; with it the scale says the range, without "near" and "far".
        log: equal ratios of depth, not equal differences, are equal steps of colour: for scenes
            that reach from metres to hundreds of metres. Needs a range above 0.
        draw_scale: draw the colours' scale into the lower left corner of pictures of at least
            160 px.
        scale: enlarges small pictures by this whole factor.

    Returns:
        (scale * H, scale * W, 3) uint8 RGB.

    Raises:
        ValueError: if the sizes differ, the range is empty or scale no whole number above 0.
    """
    depth, valid = _to_arrays(depth, valid)
    near, far = depth_range(depth, valid) if range is None else range
    if not near <= far or (log and near <= 0) or scale < 1 or scale != int(scale):
        raise ValueError(
            f"range {(near, far)} must be (near, far){', above 0' if log else ''}, and scale "
            f"{scale} a whole number >= 1"
        )
    depth = np.clip(np.where(valid, depth, near), near, far)
    start, end = near, far
    if log:
        depth, start, end = np.log(depth), np.log(near), np.log(far)
    # A flat map is all near.
    share = (depth - start) / max(end - start, 1e-9)
    size = (depth.shape[1] * scale, depth.shape[0] * scale)
    # Numbers are enlarged, not colours; nearest, so that edges and the network's cells stay seen.
    share = cv2.resize(share.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    valid = cv2.resize(valid.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    picture = _to_colors(share)
    picture[~valid] = stripes(valid.shape)[~valid].astype(np.uint8)
    if draw_scale and min(picture.shape[:2]) >= _MIN_SCALE_SIDE:
        ends = ("near", "far") if unit is None else (f"{near:.3g} {unit}", f"{far:.3g} {unit}")
        ends = (ends[0], f"{ends[1]}, log") if log else ends
        picture = _draw_scale(picture, ends)
    return picture


def _to_arrays(
    depth: np.ndarray | torch.Tensor, valid: np.ndarray | torch.Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays: (H, W) float64, and (H, W) bool, False also where depth is not finite."""
    depth = torch.as_tensor(depth).detach().cpu().double().numpy()
    finite = np.isfinite(depth)
    if valid is not None:
        valid = torch.as_tensor(valid).cpu().numpy().astype(bool)
    if depth.ndim != 2 or (valid is not None and valid.shape != depth.shape):
        given = "none" if valid is None else valid.shape
        raise ValueError(f"depth {depth.shape} and valid {given}: both must be (H, W)")
    return depth, finite if valid is None else finite & valid


def _to_colors(share: np.ndarray) -> np.ndarray:
    """Shares of the range, 0 near to 1 far, to (..., 3) uint8 RGB."""
    bright = _BRIGHTEST - np.clip(share, 0, 1) * (_BRIGHTEST - _DARKEST)
    return matplotlib.colormaps[COLOR_MAP](bright, bytes=True)[..., :3].copy()


def _draw_scale(picture: np.ndarray, ends: tuple[str, str]) -> np.ndarray:
    """A bar of the colours between two texts, on a dark patch in the lower left corner."""
    height, width = picture.shape[:2]
    size = int(np.clip(min(height, width) / 22, 10, 22))
    bar = round(0.28 * width)
    left, right = (font(size).getlength(text) for text in ends)
    gap = size // 2
    box = (0, height - round(1.8 * size), round(4 * gap + left + bar + right), height)
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle(box, fill=(24, 24, 28))
    middle = (box[1] + height) / 2
    draw.text((gap, middle), ends[0], (240, 240, 240), font(size), anchor="lm")
    draw.text((3 * gap + left + bar, middle), ends[1], (240, 240, 240), font(size), anchor="lm")
    colors = _to_colors(np.linspace(0, 1, bar))[None].repeat(max(4, size // 2), axis=0)
    corner = (round(2 * gap + left), round(middle - len(colors) / 2))
    canvas.paste(Image.fromarray(colors), corner)
    return np.asarray(canvas)
