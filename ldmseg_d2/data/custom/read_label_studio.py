"""Reads Label Studio's JSON export: polygons, brush masks, rectangles and ellipses.

The results' fields: https://labelstud.io/guide/export and https://labelstud.io/tags/brushlabels
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from .class_list import load_json
from .data_report import Report
from .file_lookup import PHOTO_SUFFIXES, FileIndex
from .pictures import Found, Job, Picture, known_size
from .run_lengths import decode_label_studio
from .shapes import Shape, box_corners, ellipse_points, painted, polygon_mask

# Label Studio puts eight hexadecimal digits before the names of uploaded files.
UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
# Results without pixels that are no mistake; others are reported.
HARMLESS = ("choices", "textarea", "labels", "rating")


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _tasks(path: Path) -> list[dict[str, Any]]:
    tasks = load_json(path)
    if not isinstance(tasks, list) or not all(isinstance(t, dict) for t in tasks):
        raise ValueError(f"{path} is no Label Studio export: expected a list of tasks")
    if not any("annotations" in t for t in tasks):
        raise ValueError(
            f"{path} has no task with 'annotations': export the format 'JSON' "
            "(JSON-MIN lacks what is needed; COCO exports are --format coco)"
        )
    return tasks


def read_label_studio(job: Job, photos: FileIndex, report: Report) -> Found:
    """Reads the export "JSON" (not "JSON-MIN"); its classes are the labels that occur, by name."""
    pictures, labels = [], set()
    for number, task in enumerate(_tasks(job.annotations)):
        where = f"{job.annotations}: task {task.get('id', number)!r}"
        names = list(_photo_names(task))
        annotations = [a for a in _dicts(task.get("annotations")) if not a.get("was_cancelled")]
        if not names:
            report.add("annotation_unreadable", where, "its data names no picture")
        if not names or not annotations:
            continue  # its photo is reported as one without annotation
        if len(annotations) > 1:
            report.add("several_annotations", where, f"{len(annotations)} annotations")
        chosen = next((a for a in annotations if a.get("ground_truth")), annotations[0])
        photo = next(filter(None, map(photos.find, names)), None)
        name = names[0] if photo is None else photo.relative_to(photos.root).as_posix()
        picture = Picture(name, photo, f"{where} ({name})")
        shapes, picture.size = _shapes(_dicts(chosen.get("result")), picture.where, report)
        labels.update(s.category for s in shapes)
        pictures.append(painted(picture, shapes, job, report))
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
        size = known_size(result.get("original_height"), result.get("original_width")) or size
        closed = "points" in value and value.get("closed", True)
        if closed or "rle" in value or "radiusX" in value or value.get("width"):
            draw, is_box = partial(_draw, result), kind.startswith("rectangle")
            shapes.append(Shape(label, f"region {key!r}", draw, is_box=is_box))
        elif kind not in HARMLESS:
            report.add("shape_ignored", file, f"region {key!r} is of type {kind!r}")
    return shapes, size


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
