"""Reads Label Studio's JSON export: polygons, brush masks, rectangles and ellipses.

The results' fields: https://labelstud.io/guide/export and https://labelstud.io/tags/brushlabels
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from .class_list import load_json
from .data_report import Report
from .file_lookup import PHOTO_SUFFIXES, FileIndex
from .pictures import Categories, Found, Job, Picture
from .run_lengths import decode_label_studio
from .shapes import Shape, box_corners, ellipse_points, paint, polygon_mask

# Label Studio puts eight hexadecimal digits before the names of uploaded files.
UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
# Results without pixels that are no mistake; others are reported.
HARMLESS = ("choices", "textarea", "labels", "rating")


def read_label_studio(job: Job, photos: FileIndex, given: Categories, report: Report) -> Found:
    """Reads the export "JSON" (not "JSON-MIN"); its classes are the labels that occur, by name."""
    tasks = load_json(job.annotations)
    if not isinstance(tasks, list) or not all(isinstance(t, dict) for t in tasks):
        raise ValueError(f"{job.annotations} is no Label Studio export: expected a list of tasks")
    if not any("annotations" in t for t in tasks):
        raise ValueError(
            f"{job.annotations} has no task with 'annotations': export the format 'JSON' "
            "(JSON-MIN lacks what is needed; COCO exports are --format coco)"
        )
    pictures = []
    labels: set[str | None] = set()
    for number, task in enumerate(tasks):
        where = f"{job.annotations}: task {task.get('id', number)!r}"
        names = list(_photo_names(task))
        if not names:
            report.add("annotation_unreadable", where, "its data names no picture")
            continue
        photo = next((p for p in map(photos.find, names) if p is not None), None)
        name = names[0] if photo is None else photo.relative_to(photos.root).as_posix()
        results = _results(task, where, report)
        if results is None:
            continue  # reported as a photo without annotation
        file = f"{where} ({name})"
        shapes, size = _shapes(results, file, report)
        labels.update(s.category for s in shapes)
        load = partial(paint, shapes, file=file, overlap=job.overlap, report=report)
        pictures.append(Picture(name, photo, where, load, size))
    return pictures, [{"name": name} for name in sorted(labels - {None})]


def _photo_names(task: dict[str, Any]) -> Iterator[str]:
    """Paths that the photo may have in the photos' folder, the likeliest first."""
    data = task.get("data")
    values = list(data.values()) if isinstance(data, dict) else []
    for value in filter(lambda v: isinstance(v, str), [*values, task.get("file_upload")]):
        parts = urlsplit(value)
        # Local storage: /data/local-files/?d=folder/name.jpg
        for path in (*parse_qs(parts.query).get("d", []), unquote(parts.path)):
            base = PurePosixPath(path.replace("\\", "/")).name
            if PurePosixPath(base).suffix.lower() in PHOTO_SUFFIXES:
                yield from (path.lstrip("/"), base, UPLOAD_PREFIX.sub("", base))


def _results(task: dict[str, Any], where: str, report: Report) -> list[dict[str, Any]] | None:
    """The results of the annotation to take; None if nobody annotated the task."""
    entries = task.get("annotations")
    entries = [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
    entries = [e for e in entries if not e.get("was_cancelled")]
    if not entries:
        return None
    if len(entries) > 1:
        report.add("several_annotations", where, f"{len(entries)} annotations")
    results = next((e for e in entries if e.get("ground_truth")), entries[0]).get("result")
    return [r for r in results if isinstance(r, dict)] if isinstance(results, list) else []


def _label(result: dict[str, Any]) -> str | None:
    """The first label of a result; None if it has none."""
    for key in (result.get("type"), "labels"):
        labels = result["value"].get(key) if isinstance(key, str) else None
        if isinstance(labels, list) and labels:
            return str(labels[0])
    return None


def _shapes(
    results: list[dict[str, Any]], file: str, report: Report
) -> tuple[list[Shape], tuple[int, int] | None]:
    """The shapes of a task, and (height, width) of its picture where the results say it."""
    regions: dict[str, tuple[str | None, dict[str, Any]]] = {}
    for number, result in enumerate(results):
        if not isinstance(result.get("value"), dict):
            continue  # relations between regions
        key = str(result.get("id", number))
        # With <Brush> and <Labels>, one region has two results; only one of them has the label.
        label, old = regions.get(key, (None, {"value": {}}))
        value = {**old["value"], **result["value"]}
        regions[key] = (_label(result) or label, {**result, "value": value})
    shapes, size = [], None
    for key, (label, result) in regions.items():
        kind, value = str(result.get("type")), result["value"]
        sides = result.get("original_height"), result.get("original_width")
        if all(isinstance(side, int) and side > 0 for side in sides):
            size = sides
        if "rle" in value or "radiusX" in value or value.get("width") or _is_closed(value):
            draw, is_box = partial(_draw, result), kind.startswith("rectangle")
            shapes.append(Shape(label, f"region {key!r}", draw, is_box=is_box))
        elif kind not in HARMLESS:
            report.add("shape_ignored", file, f"region {key!r} is of type {kind!r}")
    return shapes, size


def _is_closed(value: dict[str, Any]) -> bool:
    return "points" in value and bool(value.get("closed", True))


def _draw(result: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """The mask; coordinates are in per cent of the picture's width and height."""
    value = result["value"]
    if result.get("image_rotation"):
        raise ValueError(f"the picture is rotated by {result['image_rotation']} degrees")
    if "rle" in value:
        return decode_label_studio(value["rle"], size)
    sx, sy = size[1] / 100, size[0] / 100
    if "points" in value:
        points = [c for x, y in value["points"] for c in (float(x) * sx, float(y) * sy)]
        return polygon_mask([points], size)
    corner = float(value["x"]) * sx, float(value["y"]) * sy
    outline, sides = box_corners, ("width", "height")
    if "radiusX" in value:
        outline, sides = ellipse_points, ("radiusX", "radiusY")
    extent = float(value[sides[0]]) * sx, float(value[sides[1]]) * sy
    return polygon_mask([outline(*corner, *extent, float(value.get("rotation", 0)))], size)
