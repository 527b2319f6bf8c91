"""Reads COCO instance JSON, COCO panoptic JSON with id PNGs, and folders already prepared."""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations import read_id_png
from .class_list import Classes, load_json
from .problems import InputError, Problem
from .registration import SPLITS, read_dataset_file
from .run_lengths import decode_coco
from .shapes import OVERLAP_RULES, Shape, box_corners, painter, polygon_mask
from .sources import Annotation, FileIndex, Job, Picture, Segment, Source, is_unsafe


def _content(path: Path) -> dict[str, Any]:
    """The JSON, with its lists checked to be lists of dicts."""
    content = load_json(path)
    if not isinstance(content, dict):
        raise InputError(
            f"{path} is no COCO JSON: it holds a {type(content).__name__}, expected {{...}} with "
            "images, annotations, categories; Label Studio's export is --format label-studio"
        )
    for key in ("images", "annotations", "categories"):
        entries = content.get(key)
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise InputError(f"{path} is no COCO JSON: {key!r} is missing or no list of objects")
    for category in content["categories"]:
        if not isinstance(category.get("id"), int) or not isinstance(category.get("name"), str):
            raise InputError(f"{path}: category {category} needs an integer 'id' and a 'name'")
    return content


def _images(
    content: dict[str, Any], path: Path, photos: FileIndex, problems: list[Problem]
) -> dict[Any, tuple[str, Path | None, tuple[int, int] | None]]:
    """Name, photo and size of every image, by id; unsafe and repeated ones become problems."""
    found: dict[Any, tuple[str, Path | None, tuple[int, int] | None]] = {}
    for number, image in enumerate(content["images"]):
        key, name = image.get("id"), image.get("file_name")
        where = f"{path}: images[{number}]"
        if not isinstance(name, str) or not isinstance(key, (int, str)):
            text = "it needs an 'id' and a 'file_name'"
            problems.append(Problem("annotation_unreadable", where, text))
        elif key in found:
            problems.append(Problem("photo_twice", where, f"image id {key!r} is listed again"))
        elif is_unsafe(name):
            found[key] = (name, None, None)
            problems.append(Problem("unsafe_name", where, f"file_name is {name!r}"))
        else:
            size = (image.get("height"), image.get("width"))
            known = all(isinstance(side, int) and side > 0 for side in size)
            found[key] = (name, photos.find(name), size if known else None)
    return found


def _image_id(
    annotation: dict[str, Any], images: dict, where: str, problems: list[Problem]
) -> int | str | None:
    """The id of the image that an annotation is of; None, and a problem, if it is not listed."""
    key = annotation.get("image_id")
    if isinstance(key, (int, str)) and key in images:
        return key
    problems.append(Problem("annotation_orphan", where, f"its image_id {key!r} is not listed"))
    return None


def _class_name(entry: dict[str, Any], names: dict[int, str]) -> str:
    number = entry.get("category_id")
    return (names.get(number) if isinstance(number, int) else None) or f"category_id {number!r}"


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


def read_coco(annotations: Path, photos: FileIndex, job: Job, given: Any) -> Source:
    """Reads COCO instance JSON: polygons, RLE (compressed or not), crowds; boxes as they are.

    Classes without `isthing` are things, as COCO's instances are.
    """
    content = _content(annotations)
    if any("segments_info" in a for a in content["annotations"][:1]):
        raise InputError(f"{annotations} is a panoptic JSON: --format coco-panoptic")
    problems: list[Problem] = []
    images = _images(content, annotations, photos, problems)
    names = {c["id"]: c["name"] for c in content["categories"]}
    shapes: dict[Any, list[Shape]] = {key: [] for key in images}
    boxes: Counter = Counter()
    for annotation in content["annotations"]:
        where = f"annotation {annotation.get('id')!r}"
        key = _image_id(annotation, images, f"{annotations}: {where}", problems)
        if key is not None:
            boxes[key] += not annotation.get("segmentation") and "bbox" in annotation
            name, crowd = _class_name(annotation, names), bool(annotation.get("iscrowd", 0))
            shapes[key].append(Shape(name, where, partial(_draw, annotation), iscrowd=crowd))
    pictures = []
    for key, (name, photo, size) in images.items():
        if is_unsafe(name):
            continue
        if boxes[key]:
            problems.append(Problem("box_as_segment", name, f"{boxes[key]} segments are boxes"))
        load = painter(shapes[key], name, job.overlap)
        pictures.append(Picture(name, photo, name, load, size))
    things = [{"isthing": 1, **c} for c in content["categories"]]
    return Source(pictures, things, problems, OVERLAP_RULES[job.overlap])


def read_coco_panoptic(annotations: Path, photos: FileIndex, job: Job, given: Any) -> Source:
    """Reads a COCO panoptic JSON with its id PNGs in `job.masks`, else beside the JSON."""
    content = _content(annotations)
    pngs = FileIndex(job.masks or annotations.with_suffix(""), (".png",))
    problems: list[Problem] = []
    images = _images(content, annotations, photos, problems)
    names = {c["id"]: c["name"] for c in content["categories"]}
    pictures = []
    for number, annotation in enumerate(content["annotations"]):
        where = f"{annotations}: annotations[{number}]"
        key, mask = _image_id(annotation, images, where, problems), annotation.get("file_name")
        if key is None:
            continue
        if not isinstance(mask, str) or is_unsafe(mask):
            problems.append(Problem("unsafe_name", where, f"file_name is {mask!r}"))
        elif not is_unsafe(images[key][0]):
            name, photo, size = images[key]
            path = pngs.find(mask) or pngs.root / mask
            load = partial(_load_ids, path, annotation.get("segments_info"), names)
            pictures.append(Picture(name, photo, mask, load, size))
    return Source(pictures, content["categories"], problems)


def _load_ids(
    path: Path, listed: Any, names: dict[int, str], size: tuple[int, int], classes: Classes
) -> Annotation:
    """The id PNG with the segments that the JSON lists."""
    ids = read_id_png(path)
    if not isinstance(listed, list):
        raise ValueError(f"the JSON has no list segments_info for {path.name}")
    segments, problems = [], []
    for number, entry in enumerate(listed):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), int):
            text = f"segments_info[{number}] is {entry!r}, it has no id"
            problems.append(Problem("id_invalid", path.name, text))
            continue
        crowd, where = bool(entry.get("iscrowd", 0)), f"segment {entry['id']}"
        segments.append(Segment(entry["id"], _class_name(entry, names), crowd, where))
    return Annotation(ids, segments, problems)


def read_prepared(annotations: Path, photos: None, job: Job, given: Any) -> Source:
    """Reads a folder that `tools/prepare_custom.py` wrote, to check or mend it again."""
    described = read_dataset_file(annotations)
    scale = described.get("depth_scale")
    categories = None if described["class_agnostic"] else described["categories"]
    whole = Source([], categories, depth_scale=scale)
    for split in SPLITS:
        if not described["splits"].get(split):
            continue
        photos = FileIndex(annotations / split)
        source = read_coco_panoptic(annotations / f"panoptic_{split}.json", photos, job, given)
        for picture in source.pictures:
            picture.split = split
            if scale is not None:
                name = f"{Path(picture.name).stem}.png"
                picture.depth = annotations / f"depth_{split}" / name
        whole.pictures += source.pictures
        whole.problems += source.problems
    return whole
