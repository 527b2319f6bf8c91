"""Checks one picture: everything that is wrong with it becomes a problem of the report."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations import read_gray_png, read_photo
from ..datasets.panoptic_files import segment_entries
from .class_list import Classes
from .data_report import Report
from .pictures import Annotation, Job, Picture, Segment, size_text


@dataclass
class Checked:
    """A picture's annotation as it is written."""

    ids: np.ndarray  # int32 (H, W), 0 void, 1..K
    segments: list[dict[str, Any]]  # K of COCO's segments_info
    overlap: int  # pixels that more than one segment claimed


def check_picture(picture: Picture, classes: Classes, job: Job, report: Report) -> Checked | None:
    """Reports everything that is wrong with a picture; never raises for its content.

    None if nothing of it can be used.
    """
    if picture.photo is None:
        report.add("photo_missing", picture.where, f"there is no photo {picture.name!r}")
        return None
    try:
        size = read_photo(picture.photo).shape[:2]
    except (OSError, ValueError) as error:
        report.add("photo_unreadable", picture.name, str(error))
        return None
    annotation, found = None, picture.size
    if found in (None, size):
        try:
            annotation = picture.load(size, classes)
        except (OSError, ValueError) as error:
            report.add("annotation_unreadable", picture.where, f"{type(error).__name__}: {error}")
            return None
        found = annotation.ids.shape
    if found != size:
        turned = "; turned by 90 degrees (EXIF orientation)?" if found == size[::-1] else ""
        message = f"it is {size_text(found)}, its photo {picture.name} {size_text(size)}{turned}"
        report.add("size_mismatch", picture.where, message)
        return None
    checked = _number_segments(annotation, classes, picture.where, report)
    _check_limits(checked.segments, job, picture, report)
    if job.depth is not None:
        _check_depth(picture.depth, size, picture.name, report)
    return checked


def _number_segments(
    annotation: Annotation, classes: Classes, where: str, report: Report
) -> Checked:
    """Relabels the id map as 1..K and lists its K segments; the parts of a stuff class are one."""
    found, inverse = np.unique(annotation.ids, return_inverse=True)
    new_id: dict[int, int] = {}
    category_of: dict[int, int] = {}
    stuff: dict[tuple[int, bool], int] = {}
    crowds = set()
    unknown: Counter = Counter()
    for segment in _consistent(annotation.segments, found.tolist(), where, report):
        category = classes.find(segment.category)
        if category is None:
            unknown[segment.category] += 1
            continue
        number = len(category_of) + 1
        if not category["isthing"]:
            number = stuff.setdefault((category["id"], segment.iscrowd), number)
        new_id[segment.id] = number
        category_of[number] = category["id"]
        if segment.iscrowd:
            crowds.add(number)
    for name, count in unknown.items():
        what = "no class" if name is None else f"the class {name!r}"
        report.add("unknown_class", where, f"{count} segments have {what}")
    table = np.array([new_id.get(i, 0) for i in found.tolist()], dtype=np.int32)
    ids = table[inverse.reshape(annotation.ids.shape)]
    segments = segment_entries(ids, category_of)
    for entry in segments:
        entry["iscrowd"] = int(entry["id"] in crowds)
    return Checked(ids, segments, annotation.overlap)


def _consistent(
    segments: list[Segment] | None, found: list[int], where: str, report: Report
) -> list[Segment]:
    """The segments that are in both the id map (`found`) and the list, each id once."""
    in_map = dict.fromkeys(i for i in found if i != 0)
    if segments is None:
        return [Segment(i, None) for i in in_map]
    kept: dict[int, Segment] = {}
    for segment in segments:
        if segment.id in kept:
            message = f"{segment.where}: another segment has the id {segment.id}"
        elif segment.id not in in_map:
            message = f"{segment.where} is listed, but no pixel has its id"
        else:
            kept[segment.id] = segment
            continue
        report.add("id_mismatch", where, message)
    for i in in_map.keys() - kept.keys():
        report.add("id_mismatch", where, f"pixels have the id {i}, which is not listed")
    return list(kept.values())


def _check_limits(
    segments: list[dict[str, Any]], job: Job, picture: Picture, report: Report
) -> None:
    """Reports no segments, too many, and those that are too small; crowds do not count."""
    if not segments:
        report.add("empty", picture.name, "it has no segment")
    areas = [s["area"] for s in segments if not s["iscrowd"]]
    tiny, most = sum(area < job.min_area for area in areas), 2**job.num_bits - 1
    if tiny:
        message = f"{tiny} segments have fewer than {job.min_area} pixels"
        report.add("tiny_segment", picture.where, message)
    if len(areas) > most:
        message = f"it has {len(areas)} segments, {job.num_bits} bits number {most}"
        report.add("too_many_segments", picture.where, message)


def _check_depth(path: Path | None, size: tuple[int, int], photo: str, report: Report) -> None:
    try:
        if path is None:
            raise FileNotFoundError("there is no depth PNG")
        found = read_gray_png(path, "depth PNG").shape
        if found != size:
            raise ValueError(f"{path} is {size_text(found)}, its photo {size_text(size)}")
    except (OSError, ValueError) as error:
        report.add("depth_unusable", photo, str(error))
