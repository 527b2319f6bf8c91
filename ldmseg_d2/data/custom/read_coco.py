"""Reads COCO instance JSON, COCO panoptic JSON with id PNGs, and folders already prepared."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations import read_id_png
from .classes import load_json
from .pictures import Annotation, FileIndex, Picture, Segment, Source, is_unsafe, unannotated
from .problems import InputError, Problem
from .registration import SPLITS, read_dataset_file
from .run_lengths import decode_coco
from .shapes import OVERLAP_RULES, Shape, box_corners, paint, polygon_mask

__all__ = ["read_coco", "read_coco_panoptic", "read_prepared"]


def _content(path: str | Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """The JSON, with its lists checked to be lists of dicts."""
    content = load_json(path)
    if not isinstance(content, dict):
        raise InputError(
            f"{path} is no COCO JSON: it holds a {type(content).__name__}, expected {{...}} with "
            f"{', '.join(keys)}; Label Studio's export is --format label-studio"
        )
    for key in keys:
        entries = content.get(key)
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise InputError(f"{path} is no COCO JSON: {key!r} is missing or no list of objects")
    for category in content["categories"]:
        if not isinstance(category.get("id"), int) or not isinstance(category.get("name"), str):
            raise InputError(f"{path}: category {category} needs an integer 'id' and a 'name'")
    return content


def _images(
    content: dict[str, Any], path: str | Path, photos: FileIndex, problems: list[Problem]
) -> dict[Any, tuple[str, Path | None, tuple[int, int] | None]]:
    """Name, photo and size of every image, by id; unsafe and repeated ones become problems."""
    found: dict[Any, tuple[str, Path | None, tuple[int, int] | None]] = {}
    for number, image in enumerate(content["images"]):
        key, name = image.get("id"), image.get("file_name")
        where = f"{path}: images[{number}]"
        if not isinstance(name, str) or not isinstance(key, (int, str)):
            problems.append(
                Problem("annotation_unreadable", where, "it needs an 'id' and a 'file_name'")
            )
        elif key in found:
            problems.append(
                Problem("photo_twice", where, f"image id {key!r} is listed more than once")
            )
        elif is_unsafe(name):
            found[key] = (name, None, None)
            problems.append(Problem("unsafe_name", where, f"file_name is {name!r}"))
        else:
            size = (image.get("height"), image.get("width"))
            known = all(isinstance(side, int) and side > 0 for side in size)
            found[key] = (name, photos.find(name), size if known else None)
    return found


def _coco_shape(annotation: dict[str, Any], name: str) -> tuple[Shape, bool]:
    """The shape of an instance annotation, and whether it is only a box."""
    segmentation = annotation.get("segmentation")
    box = annotation.get("bbox")
    box_only = not segmentation and isinstance(box, list)

    def draw(size: tuple[int, int]) -> np.ndarray:
        if box_only:
            return polygon_mask([box_corners(*[float(v) for v in box[:4]])], size)
        if isinstance(segmentation, dict):
            if list(segmentation["size"]) != list(size):
                raise ValueError(f"RLE is of size {segmentation['size']}, expected {list(size)}")
            return decode_coco(segmentation["counts"], size)
        if not isinstance(segmentation, list):
            raise ValueError("it has neither 'segmentation' nor 'bbox'")
        return polygon_mask(segmentation, size)

    where = f"annotation {annotation.get('id')!r}"
    shape = Shape(name, where, draw, iscrowd=bool(annotation.get("iscrowd", 0)))
    return shape, box_only


def read_coco(
    annotations: str | Path, photos: FileIndex, *, overlap: str = "order", **_: Any
) -> Source:
    """Reads COCO instance JSON: polygons, RLE (compressed or not), crowds; boxes as they are.

    Args:
        annotations: the JSON.
        photos: folder of the photos.
        overlap: a key of `OVERLAP_RULES`.

    Returns:
        The source; classes without `isthing` are things, as COCO's instances are.

    Raises:
        InputError, FileNotFoundError: if the JSON as a whole cannot be read.
    """
    content = _content(annotations, ("images", "annotations", "categories"))
    if any("segments_info" in a for a in content["annotations"][:1]):
        raise InputError(f"{annotations} is a panoptic JSON: --format coco-panoptic")
    problems: list[Problem] = []
    images = _images(content, annotations, photos, problems)
    names = {c["id"]: c["name"] for c in content["categories"]}
    shapes: dict[Any, list[Shape]] = {key: [] for key in images}
    boxes: Counter = Counter()
    for annotation in content["annotations"]:
        key = annotation.get("image_id")
        if not isinstance(key, (int, str)) or key not in images:
            where = f"{annotations}: annotation {annotation.get('id')!r}"
            problems.append(
                Problem("annotation_orphan", where, f"its image_id {key!r} is not listed")
            )
            continue
        number = annotation.get("category_id")
        name = names.get(number) if isinstance(number, int) else None
        shape, box_only = _coco_shape(annotation, name or f"category_id {number!r}")
        shapes[key].append(shape)
        boxes[key] += box_only

    pictures = []
    for key, (name, photo, size) in images.items():
        if is_unsafe(name):
            continue
        if boxes[key]:
            problems.append(Problem("box_as_segment", name, f"{boxes[key]} segments are boxes"))

        def load(size: tuple, _, drawn: list[Shape] = shapes[key], file: str = name) -> Annotation:
            return paint(drawn, size, file=file, overlap=overlap)

        pictures.append(Picture(name, photo, name, load, size))
    problems += unannotated(photos, pictures)
    things = [{"isthing": 1, **c} for c in content["categories"]]
    return Source(pictures, things, problems, OVERLAP_RULES[overlap])


def read_coco_panoptic(
    annotations: str | Path, photos: FileIndex, *, masks: str | Path | None = None, **_: Any
) -> Source:
    """Reads a COCO panoptic JSON with its id PNGs.

    Args:
        annotations: the JSON.
        photos: folder of the photos.
        masks: folder of the PNGs; None: the JSON's path without its suffix.

    Raises:
        InputError, FileNotFoundError: if the JSON as a whole, or a folder, cannot be read.
    """
    content = _content(annotations, ("images", "annotations", "categories"))
    pngs = FileIndex(Path(annotations).with_suffix("") if masks is None else masks, (".png",))
    problems: list[Problem] = []
    images = _images(content, annotations, photos, problems)
    names = {c["id"]: c["name"] for c in content["categories"]}
    pictures = []
    for number, annotation in enumerate(content["annotations"]):
        where = f"{annotations}: annotations[{number}]"
        key, mask_name = annotation.get("image_id"), annotation.get("file_name")
        if not isinstance(key, (int, str)) or key not in images:
            problems.append(
                Problem("annotation_orphan", where, f"its image_id {key!r} is not listed")
            )
        elif not isinstance(mask_name, str) or is_unsafe(mask_name):
            problems.append(Problem("unsafe_name", where, f"file_name is {mask_name!r}"))
        elif not is_unsafe(images[key][0]):
            name, photo, size = images[key]
            listed = annotation.get("segments_info")
            load = _id_loader(pngs.find(mask_name), pngs.root / mask_name, listed, names)
            pictures.append(Picture(name, photo, mask_name, load, size))
    problems += unannotated(photos, pictures)
    return Source(pictures, content["categories"], problems)


def _id_loader(path: Path | None, wanted: Path, listed: Any, names: dict[int, str]):
    """A picture's `load`: the id PNG with the segments that the JSON lists."""

    def load(size: tuple[int, int], classes: Any) -> Annotation:
        if path is None:
            raise FileNotFoundError(f"panoptic PNG {wanted} does not exist")
        if not isinstance(listed, list):
            raise ValueError(f"the JSON has no list segments_info for {wanted.name}")
        segments, problems = [], []
        for number, entry in enumerate(listed):
            where = f"segments_info[{number}]"
            if not isinstance(entry, dict) or not isinstance(entry.get("id"), int):
                problems.append(
                    Problem("id_invalid", wanted.name, f"{where} is {entry!r}, it has no id")
                )
                continue
            number = entry.get("category_id")
            name = names.get(number) if isinstance(number, int) else None
            where = f"segment {entry['id']}"
            segments.append(
                Segment(
                    entry["id"],
                    name or f"category_id {number!r}",
                    bool(entry.get("iscrowd", 0)),
                    where,
                )
            )
        return Annotation(read_id_png(str(path)), segments, problems)

    return load


def read_prepared(annotations: str | Path, photos: FileIndex | None = None, **_: Any) -> Source:
    """Reads a folder that `tools/prepare_custom.py` wrote, to check or mend it again.

    Args:
        annotations: the folder with `dataset.json`.
        photos: not needed: the folder holds them.

    Raises:
        InputError, FileNotFoundError, ValueError: if one of its JSON files cannot be read.
    """
    root = Path(annotations)
    described = read_dataset_file(root)
    scale = described.get("depth_scale")
    agnostic = described["class_agnostic"]
    whole = Source([], None if agnostic else described["categories"], depth_scale=scale)
    for split in SPLITS:
        if not described["splits"].get(split):
            continue
        source = read_coco_panoptic(root / f"panoptic_{split}.json", FileIndex(root / split))
        for picture in source.pictures:
            picture.split = split
            if scale is not None:
                picture.depth = root / f"depth_{split}" / f"{Path(picture.name).stem}.png"
        whole.pictures += source.pictures
        whole.problems += source.problems
    return whole
