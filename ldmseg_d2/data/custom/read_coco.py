"""Reads COCO instance JSON, and COCO panoptic JSON with id PNGs."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations import read_id_png
from .class_list import Classes, check_categories, load_json
from .data_report import Report
from .file_lookup import FileIndex
from .pictures import Annotation, Categories, Found, Job, Picture, Segment
from .run_lengths import decode_coco
from .shapes import Shape, box_corners, paint, polygon_mask


class _CocoFile:
    """A COCO JSON: its images as pictures without annotation, its annotations by image."""

    def __init__(self, path: Path, photos: FileIndex, report: Report):
        content = load_json(path)
        if not isinstance(content, dict):
            raise ValueError(
                f"{path} is no COCO JSON: it holds a {type(content).__name__}, expected {{...}} "
                "with images, annotations, categories; Label Studio's export is --format "
                "label-studio"
            )
        for key in ("images", "annotations", "categories"):
            entries = content.get(key)
            if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
                raise ValueError(
                    f"{path} is no COCO JSON: {key!r} is missing or no list of objects"
                )
        self.path, self.report = path, report
        self.annotations: list[dict[str, Any]] = content["annotations"]
        self.categories = check_categories(content["categories"], path)
        self._names = {c.get("id"): c["name"] for c in self.categories}
        self.pictures: dict[int | str, Picture] = {}
        for number, image in enumerate(content["images"]):
            key, name = image.get("id"), image.get("file_name")
            where = f"{path}: images[{number}]"
            if not isinstance(name, str) or not isinstance(key, (int, str)):
                report.add("annotation_unreadable", where, "it needs an 'id' and a 'file_name'")
            elif key in self.pictures:
                report.add("photo_twice", where, f"image id {key!r} is listed again")
            else:
                size = (image.get("height"), image.get("width"))
                known = all(isinstance(side, int) and side > 0 for side in size)
                size = size if known else None
                self.pictures[key] = Picture(name, photos.find(name), name, size=size)

    def by_image(self) -> Iterator[tuple[int | str, str, dict[str, Any]]]:
        """(id of its image, how messages name it, the annotation); the others are problems."""
        for number, annotation in enumerate(self.annotations):
            key, where = annotation.get("image_id"), f"{self.path}: annotations[{number}]"
            if isinstance(key, (int, str)) and key in self.pictures:
                yield key, where, annotation
            else:
                self.report.add("annotation_orphan", where, f"its image_id {key!r} is not listed")

    def class_name(self, entry: dict[str, Any]) -> str:
        """The name of an entry's class, or words that name no class."""
        number = entry.get("category_id")
        name = self._names.get(number) if isinstance(number, int) else None
        return name or f"category_id {number!r}"


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


def read_coco(job: Job, photos: FileIndex, given: Categories, report: Report) -> Found:
    """Reads COCO instance JSON: polygons, RLE (compressed or not), crowds; boxes as they are.

    Classes without `isthing` are things, as COCO's instances are.
    """
    coco = _CocoFile(job.annotations, photos, report)
    if any("segments_info" in a for a in coco.annotations[:1]):
        raise ValueError(f"{job.annotations} is a panoptic JSON: --format coco-panoptic")
    shapes: dict[Any, list[Shape]] = {key: [] for key in coco.pictures}
    for key, _, annotation in coco.by_image():
        shapes[key].append(
            Shape(
                coco.class_name(annotation),
                f"annotation {annotation.get('id')!r}",
                partial(_draw, annotation),
                iscrowd=bool(annotation.get("iscrowd")),
                is_box=not annotation.get("segmentation") and "bbox" in annotation,
            )
        )
    for key, picture in coco.pictures.items():
        picture.load = partial(
            paint, shapes[key], file=picture.name, overlap=job.overlap, report=report
        )
    return list(coco.pictures.values()), [{"isthing": 1, **c} for c in coco.categories]


def read_coco_panoptic(job: Job, photos: FileIndex, given: Categories, report: Report) -> Found:
    """Reads a COCO panoptic JSON with its id PNGs in `job.masks`, else beside the JSON."""
    coco = _CocoFile(job.annotations, photos, report)
    pngs = FileIndex(job.masks or job.annotations.with_suffix(""), (".png",))
    pictures = []
    for key, where, annotation in coco.by_image():
        mask = annotation.get("file_name")
        path = pngs.find(mask) if isinstance(mask, str) else None
        if path is None:
            report.add("annotation_unreadable", where, f"there is no PNG {mask!r} in {pngs.root}")
        else:
            load = partial(_load_ids, path, annotation.get("segments_info"), coco)
            pictures.append(replace(coco.pictures[key], where=mask, load=load))
    return pictures, coco.categories


def _load_ids(
    path: Path, listed: Any, coco: _CocoFile, size: tuple[int, int], classes: Classes
) -> Annotation:
    """The id PNG with the segments that the JSON lists."""
    ids = read_id_png(path)
    if not isinstance(listed, list):
        raise ValueError(f"the JSON has no list segments_info for {path.name}")
    segments = []
    for number, entry in enumerate(listed):
        if isinstance(entry, dict) and isinstance(entry.get("id"), int):
            crowd, where = bool(entry.get("iscrowd")), f"segment {entry['id']}"
            segments.append(Segment(entry["id"], coco.class_name(entry), crowd, where))
        else:
            text = f"segments_info[{number}] is {entry!r}, it has no id"
            coco.report.add("id_mismatch", path.name, text)
    return Annotation(ids, segments)
