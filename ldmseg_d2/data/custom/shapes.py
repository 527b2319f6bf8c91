"""Draws the shapes of vector formats, one over the other, into an id map."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from pycocotools import mask as coco_mask

from .class_list import Classes
from .data_report import Report
from .pictures import Annotation, Job, Picture, Segment

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
    is_box: bool = False


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


def painted(picture: Picture, shapes: Sequence[Shape], job: Job, report: Report) -> Picture:
    """The picture, with an annotation that draws the shapes into an id map.

    `job.overlap`, a key of `OVERLAP_RULES`, says what covers what. Ids are 1..K in the order of
    drawing. Damaged shapes, and those without a visible pixel, are left out and reported.
    """
    picture.load = partial(_paint, shapes, picture.where, job.overlap, report)
    return picture


def _paint(
    shapes: Sequence[Shape],
    file: str,
    overlap: str,
    report: Report,
    size: tuple[int, int],
    classes: Classes,
) -> Annotation:
    boxes = sum(shape.is_box for shape in shapes)
    if boxes:
        report.add("box_as_segment", file, f"{boxes} segments are boxes")
    drawn = []  # masks as run lengths: there may be hundreds of a large picture
    for shape in shapes:
        try:
            runs = coco_mask.encode(np.asfortranarray(shape.draw(size), dtype=np.uint8))
        except (ValueError, TypeError, LookupError, OverflowError, AttributeError) as error:
            report.add("bad_shape", file, f"{shape.where}: {error}")
            continue
        rank = -int(coco_mask.area(runs)) if overlap == "area" else shape.z_order
        drawn.append((not shape.iscrowd, rank, shape, runs))
    drawn.sort(key=lambda d: d[:2])

    ids = np.zeros(size, dtype=np.int32)
    overlapping = np.zeros(size, dtype=bool)
    for number, (*_, runs) in enumerate(drawn, start=1):
        mask = coco_mask.decode(runs).astype(bool)
        overlapping |= mask & (ids != 0)
        ids[mask] = number
    visible = np.bincount(ids.reshape(-1), minlength=len(drawn) + 1) > 0
    segments = []
    for number, (*_, shape, _) in enumerate(drawn, start=1):
        if visible[number]:
            segments.append(Segment(number, shape.category, shape.iscrowd, shape.where))
        else:
            report.add("no_pixels", file, f"{shape.where} has no visible pixel")
    report.overlaps.append(int(overlapping.sum()))
    return ids, segments
