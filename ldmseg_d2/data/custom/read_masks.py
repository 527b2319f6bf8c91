"""Reads folders of mask PNGs: segment ids, semantic classes, or one binary mask a segment."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from ..annotations import read_mask
from .class_list import Classes, load_json
from .data_report import Report
from .file_lookup import FileIndex
from .pictures import Annotation, Categories, Found, Job, Picture, Segment, size_text
from .shapes import Shape, painted

CLASS_SOURCES = ("none", "sidecar", "divisor")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")


def _pair(photos: FileIndex, masks: dict[str, list], report: Report) -> Iterator[tuple]:
    """Photos (relative path, file) with what `masks` holds for their stems."""
    stems = photos.by_stem()
    for stem in sorted(masks.keys() - stems.keys()):
        report.add("mask_unused", stem, "there is no photo of it")
    for stem in masks.keys() & stems.keys():
        for file in stems[stem]:
            yield file.relative_to(photos.root).as_posix(), file, masks[stem]


def _sidecar(job: Job, path: Path, report: Report) -> dict[str, str]:
    """The classes of a mask from the JSON beside it, id -> name; {} and a problem if none."""
    if job.class_from != "sidecar":
        return {}
    try:
        content = load_json(path)
        if isinstance(content, dict) and all(isinstance(v, str) for v in content.values()):
            return content
        message = 'it is no object like {"1": "car", "2": "sky"} (id: class)'
    except (ValueError, OSError) as error:
        message = str(error)
    report.add("annotation_unreadable", str(path), message)
    return {}


def _categories(job: Job, names: Iterable[str]) -> Categories:
    return None if job.class_from == "none" else [{"name": name} for name in sorted(names)]


def read_id_masks(job: Job, photos: FileIndex, report: Report) -> Found:
    """Reads one id mask a photo: every id above 0 is a segment.

    Masks are 8- or 16-bit gray, or RGB with R + 256 G + 65536 B. `job.class_from`: "none",
    "sidecar" (JSON beside the mask, id -> class name) or "divisor" (class id = id // divisor).
    """
    if job.class_from == "divisor" and job.classes is None:
        raise ValueError("--class-from divisor needs --classes with a line each like '2,car,thing'")
    pictures, names = [], set()
    masks = FileIndex(job.annotations, MASK_SUFFIXES).by_stem()
    for name, photo, (mask, *_) in _pair(photos, masks, report):
        classes = _sidecar(job, mask.with_suffix(".json"), report)
        names.update(classes.values())
        pictures.append(Picture(name, photo, str(mask), partial(_load_ids, job, mask, classes)))
    return pictures, _categories(job, names)


def _load_ids(
    job: Job, mask: Path, names: dict[str, str], size: tuple[int, int], classes: Classes
) -> Annotation:
    ids = read_mask(mask, colour=True)
    ids[np.isin(ids, job.void or ())] = 0
    if job.class_from == "none":
        return ids, None
    key_of = {i: i // job.divisor for i in np.unique(ids).tolist() if i > 0}
    if job.class_from == "sidecar":
        key_of = {i: names.get(str(i)) for i in key_of}
    return ids, [Segment(i, key, where=f"id {i}") for i, key in key_of.items()]


def read_semantic_masks(job: Job, photos: FileIndex, report: Report) -> Found:
    """Reads one mask of classes a photo, gray or with a palette; parts of a thing are segments."""
    if job.classes is None:
        raise ValueError("semantic masks need --classes with a line each like '2,car,thing'")
    masks = FileIndex(job.annotations, MASK_SUFFIXES).by_stem()
    return [
        Picture(name, photo, str(mask), partial(_load_classes, job, mask))
        for name, photo, (mask, *_) in _pair(photos, masks, report)
    ], []


def _load_classes(job: Job, mask: Path, size: tuple[int, int], classes: Classes) -> Annotation:
    values = read_mask(mask, colour=False)
    ids = np.zeros(values.shape, dtype=np.int32)
    segments: list[Segment] = []
    for value in np.unique(values).tolist():
        if value in ((255,) if job.void is None else job.void):
            continue
        part = values == value
        category = classes.find(value)
        parts, count = part.astype(np.int32), 1
        if category is not None and category["isthing"]:
            number, parts = cv2.connectedComponents(part.astype(np.uint8), connectivity=8)
            count = number - 1
        ids[part] = parts[part] + len(segments)
        for k in range(1, count + 1):
            segments.append(Segment(len(segments) + 1, value, where=f"class {value}, part {k}"))
    return ids, segments


def read_binary_masks(job: Job, photos: FileIndex, report: Report) -> Found:
    """Reads a file a segment: `STEM_K.png` or `STEM/K.png` for the photo STEM, not 0 inside.

    Higher K (a number, or else by name) is drawn later. `job.class_from`: "none", or "sidecar":
    `STEM.json`, K -> class name; ValueError for "divisor".
    """
    if job.class_from == "divisor":
        raise ValueError("binary masks have no ids: --class-from none or sidecar")
    index, stems = FileIndex(job.annotations, MASK_SUFFIXES), photos.by_stem()
    masks: dict[str, list[tuple[str, Path]]] = {}
    for name, path in index.files.items():
        whole = name.rsplit(".", 1)[0]
        by_name, by_folder = whole.rsplit("_", 1), whole.rsplit("/", 1)
        parts = by_folder if by_folder[0] in stems and len(by_folder) == 2 else by_name
        masks.setdefault(parts[0], []).append((parts[-1], path))
    pictures, names = [], set()
    for name, photo, files in _pair(photos, masks, report):
        files.sort(key=lambda f: (not f[0].isdigit(), int(f[0]) if f[0].isdigit() else 0, f[0]))
        stem = f"{index.root}/{name.rsplit('.', 1)[0]}"
        classes = _sidecar(job, Path(f"{stem}.json"), report)
        names.update(classes.values())
        shapes = [Shape(classes.get(k), str(path), partial(_draw, path)) for k, path in files]
        pictures.append(painted(Picture(name, photo, stem), shapes, job, report))
    return pictures, _categories(job, names)


def _draw(path: Path, size: tuple[int, int]) -> np.ndarray:
    mask = read_mask(path, colour=True) != 0
    if mask.shape != size:
        raise ValueError(f"it is {size_text(mask.shape)}, its photo {size_text(size)}")
    return mask
