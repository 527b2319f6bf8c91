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
from .problems import InputError, Problem
from .run_lengths import decode_label_studio
from .shapes import OVERLAP_RULES, Shape, box_corners, ellipse_points, painter, polygon_mask
from .sources import PHOTO_SUFFIXES, FileIndex, Job, Picture, Source

# Label Studio puts eight hexadecimal digits before the names of uploaded files.
UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
# Results without pixels that are no mistake; others are reported.
HARMLESS = ("choices", "textarea", "labels", "rating")


def read_label_studio(annotations: Path, photos: FileIndex, job: Job, given: Any) -> Source:
    """Reads the export "JSON" (not "JSON-MIN"); its classes are the labels that occur, by name."""
    tasks = load_json(annotations)
    tasks = [tasks] if isinstance(tasks, dict) and "data" in tasks else tasks
    if not isinstance(tasks, list) or not all(isinstance(t, dict) for t in tasks):
        raise InputError(f"{annotations} is no Label Studio export: expected a list of tasks")
    if not any("annotations" in t or "completions" in t for t in tasks):
        raise InputError(
            f"{annotations} has no task with 'annotations': export the format 'JSON' "
            "(JSON-MIN lacks what is needed; COCO exports are --format coco)"
        )
    problems: list[Problem] = []
    pictures = []
    labels: set[str] = set()
    for number, task in enumerate(tasks):
        where = f"{annotations}: task {task.get('id', number)!r}"
        names = list(_photo_names(task))
        if not names:
            problems.append(Problem("annotation_unreadable", where, "its data names no picture"))
            continue
        photo = next((p for p in map(photos.find, names) if p is not None), None)
        name = names[0] if photo is None else photo.relative_to(photos.root).as_posix()
        regions = _regions(task, where, problems)
        if regions is None:
            problems.append(Problem("photo_unannotated", name, "its task is not annotated"))
            continue
        file = f"{where} ({name})"
        shapes, size = _shapes(regions, file, problems)
        labels.update(s.category for s in shapes if s.category is not None)
        pictures.append(Picture(name, photo, where, painter(shapes, file, job.overlap), size))
    categories = [{"name": label} for label in sorted(labels)] or [{"name": "segment"}]
    return Source(pictures, categories, problems, OVERLAP_RULES[job.overlap])


def _photo_names(task: dict[str, Any]) -> Iterator[str]:
    """Paths that the photo may have in the photos' folder, the likeliest first."""
    data = task.get("data")
    values = list(data.values()) if isinstance(data, dict) else []
    for value in [*values, task.get("file_upload")]:
        if not isinstance(value, str):
            continue
        parts = urlsplit(value)
        # Local storage: /data/local-files/?d=folder/name.jpg
        for path in (*parse_qs(parts.query).get("d", []), unquote(parts.path)):
            base = PurePosixPath(path.replace("\\", "/")).name
            if PurePosixPath(base).suffix.lower() in PHOTO_SUFFIXES:
                if ".." not in PurePosixPath(path).parts:
                    yield path.lstrip("/")
                yield base
                yield UPLOAD_PREFIX.sub("", base)


def _regions(
    task: dict[str, Any], where: str, problems: list[Problem]
) -> list[dict[str, Any]] | None:
    """The results of the annotation to take; None if nobody annotated the task."""
    entries = task.get("annotations", task.get("completions"))
    entries = [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
    entries = [e for e in entries if not e.get("was_cancelled")]
    if not entries:
        return None
    if len(entries) > 1:
        problems.append(Problem("several_annotations", where, f"{len(entries)} annotations"))
    chosen = next((e for e in entries if e.get("ground_truth")), entries[0])
    results = chosen.get("result")
    return [r for r in results if isinstance(r, dict)] if isinstance(results, list) else []


def _label(result: dict[str, Any]) -> str | None:
    """The first label of a result; None if it has none."""
    for key in (result.get("type"), "labels"):
        labels = result["value"].get(key) if isinstance(key, str) else None
        if isinstance(labels, list) and labels:
            return str(labels[0])
    return None


def _shapes(
    results: list[dict[str, Any]], file: str, problems: list[Problem]
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
    sizes = [(r.get("original_height"), r.get("original_width")) for _, r in regions.values()]
    sizes = {s for s in sizes if all(isinstance(v, int) and v > 0 for v in s)}
    if len(sizes) > 1:
        problems.append(Problem("bad_shape", file, f"results have the sizes {sorted(sizes)}"))

    shapes, boxes = [], 0
    for key, (label, result) in regions.items():
        kind = result.get("type")
        if _encloses(result["value"]):
            boxes += str(kind).startswith("rectangle")
            shapes.append(Shape(label, f"region {key!r}", partial(_draw, result)))
        elif kind not in HARMLESS:
            text = f"region {key!r} is of type {kind!r}"
            problems.append(Problem("shape_ignored", file, text))
    if boxes:
        problems.append(Problem("box_as_segment", file, f"{boxes} segments are boxes"))
    return shapes, min(sizes, default=None)


def _encloses(value: dict[str, Any]) -> bool:
    """Whether a result's value has an outline that encloses pixels."""
    box = {"x", "y", "width", "height"} <= value.keys() and value["width"]
    closed = "points" in value and value.get("closed", True)
    return bool("rle" in value or closed or "radiusX" in value or box)


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
