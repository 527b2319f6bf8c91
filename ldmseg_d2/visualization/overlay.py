"""Colours over a photo: what drawings of segments, classes and depth share."""

from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.utils.visualizer import Visualizer

VOID_STRIPES = ((34, 34, 38), (62, 62, 68))
# A name needs an inscribed circle of at least this share of the picture's longer side.
_MIN_LABEL_RADIUS = 0.025
_MIN_LABEL_PICTURE = 200


def overlay(
    image: np.ndarray,
    regions: np.ndarray,
    palette: np.ndarray,
    *,
    void: np.ndarray,
    names: Sequence[str | None] = (),
    alpha: float = 0.6,
    draw_boundaries: bool = True,
    scale: int = 1,
) -> np.ndarray:
    """Lay a colour for every region over a photo.

    Args:
        image: (H, W, 3) uint8 RGB.
        regions: (H, W) integers 0..K - 1, the region of each pixel.
        palette: (K, 3) uint8 RGB.
        void: (K,) bool, regions that get dark stripes instead of their colour.
        names: K texts or None, written where the picture (200 px or more) has room; empty: none.
        alpha: opacity of the colours, 0 (photo) to 1 (colours alone).
        draw_boundaries: draw white outlines between regions.
        scale: enlarges small pictures by this whole factor.

    Returns:
        (scale * H, scale * W, 3) uint8 RGB.

    Raises:
        ValueError: alpha or scale is out of range.
    """
    if not 0 <= alpha <= 1 or scale < 1 or scale != int(scale):
        raise ValueError(f"alpha {alpha} must be in 0..1 and scale {scale} a whole number >= 1")
    rows, columns = (np.arange(side * scale) // scale for side in regions.shape)
    regions = regions[np.ix_(rows, columns)]
    colors = palette[regions].astype(np.float32)
    is_void = void[regions]
    colors[is_void] = stripes(is_void.shape)[is_void]
    photo = enlarge(image, scale).astype(np.float32)
    picture = np.round(photo * (1 - alpha) + colors * alpha).astype(np.uint8)
    if draw_boundaries:
        picture[_boundaries(regions)] = 255
    if any(names) and min(regions.shape) >= _MIN_LABEL_PICTURE:
        picture = _write_names(picture, regions, void, names)
    return picture


def enlarge(image: np.ndarray, scale: int) -> np.ndarray:
    """Enlarge a photo by a whole factor, smoothly.

    Args:
        image: (H, W, 3) uint8.
        scale: whole factor >= 1.

    Returns:
        (scale * H, scale * W, 3) uint8.
    """
    if scale == 1:
        return image
    size = (image.shape[1] * scale, image.shape[0] * scale)
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)


def stripes(shape: tuple[int, int]) -> np.ndarray:
    """Diagonal stripes of two dark greys: (H, W, 3) float32."""
    rows, columns = np.indices(shape)
    width = max(3, min(shape) // 60)
    return np.array(VOID_STRIPES, dtype=np.float32)[(rows + columns) // width % 2]


def _boundaries(regions: np.ndarray) -> np.ndarray:
    """Pixels along the border between two regions: (H, W) bool."""
    edges = np.zeros(regions.shape, dtype=np.uint8)
    edges[1:] |= regions[1:] != regions[:-1]
    edges[:, 1:] |= regions[:, 1:] != regions[:, :-1]
    thickness = max(1, round(min(regions.shape) / 240))
    if thickness > 1:
        edges = cv2.dilate(edges, np.ones((thickness, thickness), np.uint8))
    return edges.astype(bool)


def _write_names(
    picture: np.ndarray, regions: np.ndarray, void: np.ndarray, names: Sequence[str | None]
) -> np.ndarray:
    """Write the name of each region at its innermost point that is free, where there is room."""
    height, width = picture.shape[:2]
    visualizer = Visualizer(picture)
    font_size = max(9.0, min(height, width) / 38)
    least = _MIN_LABEL_RADIUS * max(height, width)
    found = []
    for row, name in enumerate(names):
        if void[row] or not name:
            continue
        # Padded, since the picture's edge is an edge of the region as well.
        mask = np.pad((regions == row).astype(np.uint8), 1)
        distance = cv2.distanceTransform(mask, cv2.DIST_L2, 3)[1:-1, 1:-1]
        found.append((float(distance.max()), name, distance))
    ys, xs = np.arange(height)[:, None], np.arange(width)[None]
    written: list[tuple[float, float, float]] = []
    half_height = 0.9 * font_size
    # The smallest first: the others have more places to choose from.
    for _, name, distance in sorted(found, key=lambda one: one[0]):
        half = 0.42 * font_size * len(name) + 4  # about half the text's width
        centers = np.clip(xs, half, max(half, width - half))
        for x, y, other in written:
            covered = (abs(centers - x) < half + other) & (abs(ys - y) < 2 * half_height)
            distance = np.where(covered, 0, distance)
        y, column = np.unravel_index(int(distance.argmax()), distance.shape)
        if distance[y, column] < least:
            continue
        x = float(centers[0, column])
        written.append((x, float(y), half))
        position = (x, float(y) - font_size / 2)  # draw_text hangs the text below
        visualizer.draw_text(name, position, font_size=font_size, color="white")
    return visualizer.output.get_image()
