"""Checks one picture: everything that is wrong with it becomes a problem of the report."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations import read_gray_png, read_photo
from ..datasets.panoptic_files import segment_entries
from .class_list import Classes
from .data_report import Report
from .pictures import Annotation, Job, Picture, Segment, size_text

Checked = tuple[np.ndarray, list[dict[str, Any]]]


def check_picture(picture: Picture, classes: Classes, job: Job, report: Report) -> Checked | None:
    """Reports everything that is wrong with a picture; never raises for its content.

    Returns ids (int32 (H, W), 0 void, 1..K) and COCO's segments_info; None if it cannot be used.
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
        found = annotation[0].shape
    if found != size:
        turned = "; turned by 90 degrees (EXIF orientation)?" if found == size[::-1] else ""
        message = f"it is {size_text(found)}, its photo {picture.name} {size_text(size)}{turned}"
        report.add("size_mismatch", picture.where, message)
        return None
    ids, segments = _number_segments(annotation, classes, picture.where, report)
    areas = [s["area"] for s in segments if not s["iscrowd"]]
    tiny, most = sum(area < job.min_area for area in areas), 2**job.num_bits - 1
    if not segments:
        report.add("empty", picture.name, "it has no segment")
    if tiny:
        message = f"{tiny} segments have fewer than {job.min_area} pixels"
        report.add("tiny_segment", picture.where, message)
    if len(areas) > most:
        message = f"it has {len(areas)} segments, {job.num_bits} bits number {most}"
        report.add("too_many_segments", picture.where, message)
    if job.depth is not None:
        _check_depth(picture.depth, size, picture.name, report)
    return ids, segments


def _number_segments(
    annotation: Annotation, classes: Classes, where: str, report: Report
) -> Checked:
    """Relabels the id map as 1..K and lists its K segments; the parts of a stuff class are one."""
    found, inverse = np.unique(annotation[0], return_inverse=True)
    new_id: dict[int, int] = {}
    category_of: dict[int, int] = {}
    stuff: dict[tuple[int, bool], int] = {}
    crowds = set()
    unknown: Counter = Counter()
    for segment in _consistent(annotation[1], found.tolist(), where, report):
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
    ids = table[inverse.reshape(annotation[0].shape)]
    segments = segment_entries(ids, category_of)
    for entry in segments:
        entry["iscrowd"] = int(entry["id"] in crowds)
    return ids, segments


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
            report.add("id_mismatch", where, f"{segment.where}: the id {segment.id} is used twice")
        elif segment.id not in in_map:
            report.add("id_mismatch", where, f"{segment.where} is listed, but no pixel has its id")
        else:
            kept[segment.id] = segment
    for i in in_map.keys() - kept.keys():
        report.add("id_mismatch", where, f"pixels have the id {i}, which is not listed")
    return list(kept.values())


def _check_depth(path: Path | None, size: tuple[int, int], photo: str, report: Report) -> None:
    try:
        if path is None:
            raise FileNotFoundError("there is no depth PNG")
        found = read_gray_png(path, "depth PNG").shape
        if found != size:
            raise ValueError(f"{path} is {size_text(found)}, its photo {size_text(size)}")
    except (OSError, ValueError) as error:
        report.add("depth_unusable", photo, str(error))
