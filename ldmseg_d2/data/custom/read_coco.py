"""Reads COCO instance JSON, and COCO panoptic JSON with id PNGs."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations import read_id_png
from .class_list import Classes, load_json
from .data_report import Report
from .file_lookup import FileIndex
from .pictures import Annotation, Found, Job, Picture, Segment, known_size
from .run_lengths import decode_coco
from .shapes import Shape, box_corners, painted, polygon_mask

# What every entry of the JSON's lists must have.
FIELDS = {
    "images": {"id": int | str, "file_name": str},
    "annotations": {"image_id": int | str},
    "categories": {"id": int, "name": str},
}


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The JSON, with what it must have; ValueError names the place where it has not."""
    content = load_json(path)
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} is no COCO JSON: it holds a {type(content).__name__}, expected {{...}} with "
            "images, annotations, categories; Label Studio's export is --format label-studio"
        )
    for key, fields in FIELDS.items():
        if not isinstance(content.get(key), list):
            raise ValueError(f"{path} is no COCO JSON: {key!r} is missing or no list")
        for number, entry in enumerate(content[key]):
            for field, kind in fields.items():
                if not isinstance(entry, dict) or not isinstance(entry.get(field), kind):
                    raise ValueError(f"{path}: {key}[{number}] has no valid {field!r}: {entry!r}")
    return content


def _pictures(content: dict[str, Any], photos: FileIndex, report: Report) -> dict[Any, Picture]:
    """The images by id, as pictures that cannot load yet."""
    pictures: dict[int | str, Picture] = {}
    for image in content["images"]:
        key, name = image["id"], image["file_name"]
        if key in pictures:
            report.add("photo_twice", name, f"image id {key!r} is listed again")
        size = known_size(image.get("height"), image.get("width"))
        pictures[key] = Picture(name, photos.find(name), name, size=size)
    return pictures


def _listed(
    content: dict[str, Any], path: Path, pictures: dict, report: Report
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Annotations whose image is listed, each after how messages name it."""
    for number, annotation in enumerate(content["annotations"]):
        key, where = annotation["image_id"], f"{path}: annotations[{number}]"
        if key in pictures:
            yield where, annotation
        else:
            report.add("annotation_orphan", where, f"its image_id {key!r} is not listed")


def _class_name(entry: dict[str, Any], categories: list[dict[str, Any]]) -> str:
    number = entry.get("category_id")
    return next((c["name"] for c in categories if c["id"] == number), f"category_id {number!r}")


def _draw(annotation: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """The mask of an instance annotation: polygons, RLE, or the box where it has neither."""
    segmentation, box = annotation.get("segmentation"), annotation.get("bbox")
    if not segmentation and isinstance(box, list):
        return polygon_mask([box_corners(*[float(v) for v in box[:4]])], size)
    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != list(size):
            raise ValueError(f"RLE is of size {segmentation['size']}, expected {list(size)}")
        return decode_coco(segmentation["counts"], size)
    if not isinstance(segmentation, list):
        raise ValueError("it has neither 'segmentation' nor 'bbox'")
    return polygon_mask(segmentation, size)


def read_coco(job: Job, photos: FileIndex, report: Report) -> Found:
    """Reads COCO instance JSON: polygons, RLE (compressed or not), crowds; boxes as they are.

    Classes without `isthing` are things, as COCO's instances are.
    """
    content = _read(job.annotations)
    if any("segments_info" in a for a in content["annotations"][:1]):
        raise ValueError(f"{job.annotations} is a panoptic JSON: --format coco-panoptic")
    pictures = _pictures(content, photos, report)
    shapes: dict[Any, list[Shape]] = {key: [] for key in pictures}
    for _, annotation in _listed(content, job.annotations, pictures, report):
        shapes[annotation["image_id"]].append(
            Shape(
                _class_name(annotation, content["categories"]),
                f"annotation {annotation.get('id')!r}",
                partial(_draw, annotation),
                iscrowd=bool(annotation.get("iscrowd")),
                is_box=not annotation.get("segmentation") and "bbox" in annotation,
            )
        )
    categories = [{"isthing": 1, **c} for c in content["categories"]]
    return [painted(p, shapes[key], job, report) for key, p in pictures.items()], categories


def read_coco_panoptic(job: Job, photos: FileIndex, report: Report) -> Found:
    """Reads a COCO panoptic JSON with its id PNGs in `job.masks`, else beside the JSON."""
    content = _read(job.annotations)
    pngs = FileIndex(job.masks or job.annotations.with_suffix(""), (".png",))
    pictures = _pictures(content, photos, report)
    found = []
    for where, annotation in _listed(content, job.annotations, pictures, report):
        mask, listed = annotation.get("file_name"), annotation.get("segments_info")
        png = pngs.find(mask) if isinstance(mask, str) else None
        if png is None:
            report.add("annotation_unreadable", where, f"there is no PNG {mask!r} in {pngs.root}")
        else:
            load = partial(_load_ids, png, listed, content["categories"])
            found.append(replace(pictures[annotation["image_id"]], where=mask, load=load))
    return found, content["categories"]


def _load_ids(
    path: Path, listed: Any, categories: list, size: tuple[int, int], classes: Classes
) -> Annotation:
    ids = read_id_png(path)
    entries = listed if isinstance(listed, list) else [listed]
    if not all(isinstance(e, dict) and isinstance(e.get("id"), int) for e in entries):
        raise ValueError(f"segments_info of {path.name} is no list of objects with an 'id'")
    return ids, [
        Segment(e["id"], _class_name(e, categories), bool(e.get("iscrowd")), f"segment {e['id']}")
        for e in entries
    ]
