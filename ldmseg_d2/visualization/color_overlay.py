"""Colours over a photo: what drawings of segments, classes and depth share."""

from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.utils.visualizer import Visualizer

from .picture_layout import enlarge

VOID_STRIPES = ((34, 34, 38), (62, 62, 68))
# A name needs a picture of this side, and an inscribed circle of this share of the longer side.
MIN_LABEL_PICTURE, MIN_LABEL_RADIUS = 200, 0.03


def overlay(
    image: np.ndarray,
    regions: np.ndarray,
    palette: np.ndarray,
    *,
    void: np.ndarray,
    names: Sequence[str | None],
    alpha: float,
    scale: int = 1,
) -> np.ndarray:
    """Lay colours (K, 3) and names of regions 0..K - 1 (H, W) over a photo (H, W, 3) uint8.

    Outlines are white; where ``void`` (K,) bool, there are dark stripes. ``alpha`` is the opacity.
    """
    if image.shape != (*regions.shape, 3):
        raise ValueError(f"photo {image.shape} and map {regions.shape} do not belong together")
    regions = regions.repeat(scale, axis=0).repeat(scale, axis=1)
    is_void = void[regions]
    colors = palette[regions].astype(np.float32)
    colors[is_void] = stripes(regions.shape)[is_void]
    picture = enlarge(image, scale) * (1 - alpha) + colors * alpha
    picture = np.round(picture).astype(np.uint8)
    edges = np.zeros(regions.shape, dtype=np.uint8)
    edges[1:] |= regions[1:] != regions[:-1]
    edges[:, 1:] |= regions[:, 1:] != regions[:, :-1]
    thickness = max(1, round(min(regions.shape) / 240))
    picture[cv2.dilate(edges, np.ones((thickness, thickness), np.uint8)) > 0] = 255
    if any(names) and min(regions.shape) >= MIN_LABEL_PICTURE:
        picture = _write_names(picture, regions, names)
    return picture


def stripes(shape: tuple[int, int]) -> np.ndarray:
    """Diagonal stripes of two dark greys: (H, W, 3) uint8."""
    rows, columns = np.indices(shape)
    width = max(3, min(shape) // 60)
    return np.array(VOID_STRIPES, dtype=np.uint8)[(rows + columns) // width % 2]


def _write_names(picture: np.ndarray, regions: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Write each region's name at its innermost point, where there is room."""
    (height, width), visualizer = regions.shape, Visualizer(picture)
    size = max(9.0, min(height, width) / 38)
    for row in (row for row, name in enumerate(names) if name):
        # Padded, since the picture's edge is an edge of the region as well.
        mask = np.pad((regions == row).astype(np.uint8), 1)
        distance = cv2.distanceTransform(mask, cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(int(distance.argmax()), distance.shape)
        if distance[y, x] >= MIN_LABEL_RADIUS * max(height, width):
            half = 0.42 * size * len(names[row]) + 4  # about half the text's width
            x = float(np.clip(x, half, max(half, width - half)))
            # draw_text hangs the text below the position.
            visualizer.draw_text(names[row], (x, y - size / 2), font_size=size, color="white")
    return visualizer.output.get_image()
