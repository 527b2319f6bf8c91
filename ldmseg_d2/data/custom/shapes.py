"""Draws the shapes of vector formats, one over the other, into an id map."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from .pictures import Annotation, Segment
from .problems import Problem

__all__ = ["OVERLAP_RULES", "Shape", "box_corners", "ellipse_points", "paint", "polygon_mask"]

OVERLAP_RULES = {
    "order": "what was drawn later, or has the higher z-order, covers what lies under it",
    "area": "smaller segments cover larger ones",
}
ELLIPSE_POINTS = 72


@dataclass(frozen=True)
class Shape:
    """Something that an annotator drew.

    Args:
        category: name of the class; None: it has none.
        where: how messages name it.
        draw: from (height, width) to bool (H, W); raises ValueError for a damaged shape.
        z_order: higher covers lower.
        iscrowd: see `Segment`; crowds lie under everything.
    """

    category: str | None
    where: str
    draw: Callable[[tuple[int, int]], np.ndarray]
    z_order: int = 0
    iscrowd: bool = False


def polygon_mask(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """The union of polygons, with the pixels that COCO's own tools give them.

    Args:
        polygons: each [x0, y0, x1, y1, ...] in pixels, at least three points.
        size: (height, width).

    Returns:
        bool (H, W).

    Raises:
        ValueError: for fewer points or coordinates that are no finite numbers.
    """
    height, width = size
    clean = []
    for polygon in polygons:
        numbers = [float(v) for v in polygon]
        if len(numbers) < 6 or len(numbers) % 2:
            raise ValueError(f"a polygon has {len(numbers)} coordinates; it needs three points")
        if not all(map(math.isfinite, numbers)):
            raise ValueError("a polygon has coordinates that are not finite")
        # Far outside, COCO's tools would walk along every pixel of the way.
        xs = np.clip(numbers[0::2], -width, 2 * width)
        ys = np.clip(numbers[1::2], -height, 2 * height)
        clean.append(np.stack([xs, ys], axis=1).reshape(-1).tolist())
    if not clean:
        raise ValueError("it has no polygon")
    runs = coco_mask.frPyObjects(clean, height, width)
    return coco_mask.decode(coco_mask.merge(runs)).astype(bool)


def box_corners(
    x: float, y: float, width: float, height: float, rotation: float = 0.0, *, centre: bool = False
) -> list[float]:
    """Corners of a box as a polygon.

    Args:
        x, y: upper left corner, pixels.
        width, height: pixels.
        rotation: degrees, clockwise in the picture.
        centre: it turns around its centre; False: around the upper left corner.
    """
    px, py = (width / 2, height / 2) if centre else (0.0, 0.0)
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    points = []
    for cx, cy in ((0.0, 0.0), (width, 0.0), (width, height), (0.0, height)):
        dx, dy = cx - px, cy - py
        points += [x + px + dx * cos - dy * sin, y + py + dx * sin + dy * cos]
    return points


def ellipse_points(
    x: float, y: float, radius_x: float, radius_y: float, rotation: float = 0.0
) -> list[float]:
    """A polygon along an ellipse around (x, y), pixels; rotation in degrees, clockwise."""
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    points = []
    for k in range(ELLIPSE_POINTS):
        angle = 2 * math.pi * k / ELLIPSE_POINTS
        dx, dy = radius_x * math.cos(angle), radius_y * math.sin(angle)
        points += [x + dx * cos - dy * sin, y + dx * sin + dy * cos]
    return points


def paint(
    shapes: Sequence[Shape], size: tuple[int, int], *, file: str, overlap: str = "order"
) -> Annotation:
    """Draws shapes into an id map; a later one covers an earlier one.

    Args:
        shapes: in the order in which they were drawn.
        size: (height, width).
        file: how messages name the annotation.
        overlap: a key of `OVERLAP_RULES`.

    Returns:
        Ids 1..K in the order of drawing. Damaged shapes, and shapes without a visible pixel, are
        left out, with a problem each.
    """
    problems: list[Problem] = []
    drawn = []
    for index, shape in enumerate(shapes):
        rank = shape.z_order
        if overlap == "area":
            mask = _draw(shape, size, file, problems)
            rank = 0 if mask is None else -int(mask.sum())
            if mask is None:
                continue
        drawn.append((not shape.iscrowd, rank, index))

    ids = np.zeros(size, dtype=np.int32)
    overlapping = np.zeros(size, dtype=bool)
    segments: list[Segment] = []
    for _, _, index in sorted(drawn):
        shape = shapes[index]
        mask = _draw(shape, size, file, problems)
        if mask is None:
            continue
        overlapping |= mask & (ids != 0)
        segments.append(Segment(len(segments) + 1, shape.category, shape.iscrowd, shape.where))
        ids[mask] = len(segments)

    visible = np.bincount(ids.reshape(-1), minlength=len(segments) + 1) > 0
    kept = []
    for segment in segments:
        if visible[segment.id]:
            kept.append(segment)
            continue
        problems.append(Problem("no_pixels", file, f"{segment.where} has no visible pixel"))
    return Annotation(ids, kept, problems, int(overlapping.sum()))


def _draw(
    shape: Shape, size: tuple[int, int], file: str, problems: list[Problem]
) -> np.ndarray | None:
    """The shape's mask; None, and a problem, for a damaged one."""
    try:
        return shape.draw(size)
    except (ValueError, TypeError, LookupError, OverflowError, AttributeError) as error:
        problems.append(Problem("bad_shape", file, f"{shape.where}: {error}"))
        return None
