"""Draws the shapes of vector formats, one over the other, into an id map."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from pycocotools import mask as coco_mask

from .class_list import Classes
from .problems import Problem
from .sources import Annotation, Segment

OVERLAP_RULES = {
    "order": "what was drawn later, or has the higher z-order, covers what lies under it",
    "area": "smaller segments cover larger ones",
}
ELLIPSE_POINTS = 72


@dataclass(frozen=True)
class Shape:
    """Something that an annotator drew."""

    category: str | None  # name of the class
    where: str  # how messages name it
    # From (height, width) to bool (H, W); raises ValueError for a damaged shape.
    draw: Callable[[tuple[int, int]], np.ndarray]
    z_order: int = 0  # higher covers lower
    iscrowd: bool = False  # crowds lie under everything


def polygon_mask(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """The union of polygons [x0, y0, ...] in pixels, as COCO's own tools fill them: bool (H, W).

    ValueError for fewer than three points or coordinates that are no finite numbers.
    """
    height, width = size
    clean = []
    for polygon in polygons:
        points = np.array([float(v) for v in polygon])
        if len(points) < 6 or len(points) % 2:
            raise ValueError(f"a polygon has {len(points)} coordinates; it needs three points")
        if not np.isfinite(points).all():
            raise ValueError("a polygon has coordinates that are not finite")
        # Far outside, COCO's tools would walk along every pixel of the way.
        limit = np.array([width, height])
        clean.append(np.clip(points.reshape(-1, 2), -limit, 2 * limit).reshape(-1).tolist())
    if not clean:
        raise ValueError("it has no polygon")
    runs = coco_mask.frPyObjects(clean, height, width)
    return coco_mask.decode(coco_mask.merge(runs)).astype(bool)


def _turn(
    x: float, y: float, offsets: Sequence[tuple[float, float]], degrees: float
) -> list[float]:
    """(x, y) plus each offset turned clockwise in the picture, as one flat list."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [v for dx, dy in offsets for v in (x + dx * cos - dy * sin, y + dx * sin + dy * cos)]


def box_corners(
    x: float, y: float, width: float, height: float, rotation: float = 0.0, *, centre: bool = False
) -> list[float]:
    """Corners of a box as a polygon; `rotation` in degrees, clockwise in the picture.

    It turns around its upper left corner (x, y), or its `centre`.
    """
    px, py = (width / 2, height / 2) if centre else (0.0, 0.0)
    offsets = [(cx - px, cy - py) for cx, cy in ((0, 0), (width, 0), (width, height), (0, height))]
    return _turn(x + px, y + py, offsets, rotation)


def ellipse_points(
    x: float, y: float, radius_x: float, radius_y: float, rotation: float = 0.0
) -> list[float]:
    """A polygon along an ellipse around (x, y), pixels; rotation in degrees, clockwise."""
    angles = [2 * math.pi * k / ELLIPSE_POINTS for k in range(ELLIPSE_POINTS)]
    return _turn(x, y, [(radius_x * math.cos(a), radius_y * math.sin(a)) for a in angles], rotation)


def painter(
    shapes: Sequence[Shape], file: str, overlap: str
) -> Callable[[tuple[int, int], Classes], Annotation]:
    """A picture's `load`, see `paint`."""
    return partial(paint, shapes, file=file, overlap=overlap)


def paint(
    shapes: Sequence[Shape],
    size: tuple[int, int],
    classes: Classes | None = None,
    *,
    file: str,
    overlap: str = "order",
) -> Annotation:
    """Draws shapes into an id map (a key of `OVERLAP_RULES` says what covers what).

    Ids are 1..K in the order of drawing. Damaged shapes, and shapes without a visible pixel, are
    left out, with a problem each, whose file is `file`.
    """
    problems: list[Problem] = []
    order = []
    for index, shape in enumerate(shapes):
        rank = shape.z_order
        if overlap == "area":
            mask = _draw(shape, size, file, problems)
            if mask is None:
                continue
            rank = -int(mask.sum())
        order.append((not shape.iscrowd, rank, index))

    ids = np.zeros(size, dtype=np.int32)
    overlapping = np.zeros(size, dtype=bool)
    segments: list[Segment] = []
    for _, _, index in sorted(order):
        shape = shapes[index]
        mask = _draw(shape, size, file, problems)
        if mask is not None:
            overlapping |= mask & (ids != 0)
            segments.append(Segment(len(segments) + 1, shape.category, shape.iscrowd, shape.where))
            ids[mask] = len(segments)

    visible = np.bincount(ids.reshape(-1), minlength=len(segments) + 1) > 0
    problems += [
        Problem("no_pixels", file, f"{segment.where} has no visible pixel")
        for segment in segments
        if not visible[segment.id]
    ]
    kept = [segment for segment in segments if visible[segment.id]]
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
