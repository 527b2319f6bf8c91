"""Checks one picture and, as far as it can be, mends it in memory."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..annotations import read_gray_png, read_photo
from ..datasets.panoptic_files import segment_entries
from .class_list import Classes
from .problems import Problem
from .sources import Annotation, Job, Picture, Segment, size_text

ASPECT_TOLERANCE = 0.01
# More than PIL opens (179 million), so that only a false size in an export can reach it.
MAX_PIXELS = 200_000_000
MAX_ID = 2**24 - 1

Report = Callable[..., None]  # (code, message, file = the annotation)


@dataclass
class Checked:
    """A picture after the check."""

    picture: Picture
    problems: list[Problem] = field(default_factory=list)
    usable: bool = False  # False: it must be left out
    size: tuple[int, int] = (0, 0)  # (height, width) of the photo
    ids: np.ndarray | None = None  # int32 (H, W), 0 void, 1..K, mended
    segments: list[dict[str, Any]] = field(default_factory=list)  # K of COCO's segments_info
    depth: np.ndarray | None = None  # int32 (H, W) PNG values where the file cannot be taken
    overlap: int = 0  # pixels that more than one segment claimed
    merged: int = 0  # stuff segments that became part of another one of their class
    num_found: int = 0  # segments (no crowds) before any was dropped for the limits


def same_aspect(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two (height, width) have the same aspect ratio, to 1 %."""
    return abs(a[0] * b[1] / max(a[1] * b[0], 1) - 1) <= ASPECT_TOLERANCE


def resize_nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes int32 (H, W) to (height, width); every value is one of the nearest pixel."""
    image = Image.fromarray(values.astype(np.int32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.NEAREST))


def check_picture(picture: Picture, classes: Classes, job: Job, *, depth: bool) -> Checked:
    """Finds everything that is wrong with a picture; never raises for its content.

    Args:
        picture: from a reader.
        classes: what its segments may be.
        job: its num_bits, min_area and fix.
        depth: the data set has depth, so this picture needs it.

    Returns:
        The result, mended as `--fix` does it.
    """
    checked = Checked(picture)

    def report(code: str, message: str, file: str = picture.where) -> None:
        checked.problems.append(Problem(code, file, message))

    if picture.photo is None:
        report("photo_missing", f"there is no photo {picture.name!r}")
        return checked
    try:
        checked.size = read_photo(picture.photo).shape[:2]
    except (OSError, ValueError) as error:
        report("photo_unreadable", str(error), picture.name)
        return checked
    annotation = _load(picture, classes, checked.size, report)
    if annotation is None:
        return checked
    checked.problems += annotation.problems
    checked.overlap = annotation.overlap
    _mend_segments(checked, annotation, classes, job, report)
    if not checked.segments:
        report("empty", "it has no segment", picture.name)
    if depth:
        checked.depth = _check_depth(picture.depth, checked.size, report)
    checked.usable = bool(checked.segments) or not job.fix
    return checked


def _load(
    picture: Picture, classes: Classes, size: tuple[int, int], report: Report
) -> Annotation | None:
    """The annotation at the photo's size; None if there is none."""
    declared = picture.size or size
    annotation = None
    if same_aspect(declared, size) and declared[0] * declared[1] <= MAX_PIXELS:
        try:
            annotation = picture.load(declared, classes)
        # A MemoryError comes from a size that nothing real has.
        except (OSError, ValueError, MemoryError) as error:
            report("annotation_unreadable", f"{type(error).__name__}: {error}")
            return None
        declared = annotation.ids.shape
    if declared == size:
        return annotation
    message = f"it is {size_text(declared)}, its photo {picture.name} {size_text(size)}"
    if annotation is None or not same_aspect(declared, size):
        turned = "; turned by 90 degrees (EXIF orientation)?" if declared == size[::-1] else ""
        report("aspect_mismatch", message + turned)
        return None
    report("size_mismatch", message)
    annotation.ids = resize_nearest(annotation.ids, size)
    return annotation


def _mend_segments(
    checked: Checked, annotation: Annotation, classes: Classes, job: Job, report: Report
) -> None:
    """Relabels the id map as 1..K and lists its K segments, leaving out what cannot stay."""
    found, inverse, areas = np.unique(annotation.ids, return_inverse=True, return_counts=True)
    area_of = dict(zip(found.tolist(), areas.tolist()))
    group_of: dict[int, int] = {}  # an id of the map: index of its segment
    groups: list[dict[str, Any]] = []
    stuff: dict[tuple[int, bool], int] = {}
    unknown: Counter = Counter()
    for segment in _consistent(annotation, area_of, classes, report):
        category = classes.find(segment.category)
        if category is None:
            unknown[segment.category] += 1
            continue
        key, area = (category["id"], segment.iscrowd), area_of[segment.id]
        if not category["isthing"] and key in stuff:
            group_of[segment.id] = stuff[key]
            groups[stuff[key]]["area"] += area
            checked.merged += 1
            continue
        stuff[key] = group_of[segment.id] = len(groups)
        groups.append({"category_id": key[0], "area": area, "iscrowd": int(segment.iscrowd)})

    for name, number in unknown.items():
        what = "no class" if name is None else f"the class {name!r}"
        report("unknown_class", f"{number} segments have {what}")
    keep = _within_limits(groups, job, report)
    checked.num_found = sum(not g["iscrowd"] for g in groups)
    new_id = {group: number for number, group in enumerate(keep, start=1)}
    table = np.array([new_id.get(group_of.get(i, -1), 0) for i in found.tolist()], dtype=np.int32)
    checked.ids = table[inverse.reshape(-1)].reshape(annotation.ids.shape)
    category_of = {n: groups[group]["category_id"] for group, n in new_id.items()}
    checked.segments = segment_entries(checked.ids, category_of)
    for segment, group in zip(checked.segments, keep):
        segment["iscrowd"] = groups[group]["iscrowd"]


def _consistent(
    annotation: Annotation, area_of: dict[int, int], classes: Classes, report: Report
) -> list[Segment]:
    """The segments that are in both the id map and the list, each id once."""
    ids = [i for i in area_of if i != 0]
    if annotation.segments is None:
        return [Segment(i, None) for i in ids]
    number = Counter(s.id for s in annotation.segments)
    kept: dict[int, Segment] = {}
    for segment in annotation.segments:
        name = segment.where or f"id {segment.id}"
        if not 0 < segment.id <= MAX_ID:
            report("id_invalid", f"{name}: id {segment.id} is not in 1..{MAX_ID}")
        elif segment.id in kept:
            report("id_invalid", f"{name}: {number[segment.id]} segments have the id {segment.id}")
        elif segment.id not in area_of:
            report("id_not_in_mask", f"{name} is listed, but no pixel has its id")
        else:
            kept[segment.id] = segment
    for i in ids:
        if number[i] == 0:
            report("id_not_in_json", f"id {i} ({area_of[i]} pixels) is not listed")
            if classes.agnostic:
                kept[i] = Segment(i, None)
    return list(kept.values())


def _within_limits(groups: list[dict[str, Any]], job: Job, report: Report) -> list[int]:
    """Indices of the segments to keep: large enough, and at most 2^num_bits - 1 besides crowds."""
    countable = [i for i, group in enumerate(groups) if not group["iscrowd"]]
    drop = {i for i in countable if groups[i]["area"] < job.min_area}
    if drop:
        report("tiny_segment", f"{len(drop)} segments have fewer than {job.min_area} pixels")
    drop = drop if job.fix else set()
    countable = sorted(set(countable) - drop, key=lambda i: (-groups[i]["area"], i))
    most = 2**job.num_bits - 1
    if len(countable) > most:
        message = f"it has {len(countable)} segments, {job.num_bits} bits number {most}"
        report("too_many_segments", message)
        drop |= set(countable[most:])
    return [i for i in range(len(groups)) if i not in drop]


def _check_depth(path: Path | None, size: tuple[int, int], report: Report) -> np.ndarray | None:
    """PNG values to write instead of the file; None: the file is good as it is."""
    invalid = np.zeros(size, dtype=np.int32)
    if path is None or not path.is_file():
        report("depth_missing", f"there is no depth PNG{'' if path is None else f' {path}'}")
        return invalid
    try:
        values = read_gray_png(path, "depth PNG")
        if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
            raise ValueError(f"depth PNG {path} has values outside of 0..65535")
    except (OSError, ValueError) as error:
        report("depth_unreadable", str(error))
        return invalid
    if values.shape == size:
        return None
    report("depth_size", f"{path} is {size_text(values.shape)}, its photo {size_text(size)}")
    return resize_nearest(values, size) if same_aspect(values.shape, size) else invalid
