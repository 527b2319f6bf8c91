"""Reads folders of mask PNGs: segment ids, semantic classes, or one binary mask a segment."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..annotations import read_mask
from .class_list import Classes, load_json
from .data_report import Report
from .file_lookup import FileIndex
from .pictures import Annotation, Categories, Found, Job, Picture, Segment, size_text
from .shapes import Shape, paint

CLASS_SOURCES = ("none", "sidecar", "divisor")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")


def _sidecar(path: Path) -> dict[str, str]:
    """The classes of a mask from the JSON beside it, id -> name; ValueError if it is no such."""
    content = load_json(path)
    if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
        raise ValueError(f'{path} is no object like {{"1": "car", "2": "sky"}} (id: class)')
    return content


def _pair(
    photos: FileIndex, masks: dict[str, list], report: Report
) -> Iterator[tuple[str, Path, list]]:
    """Photos (relative path, file) with what `masks` holds for their stems."""
    stems = photos.by_stem()
    for stem in sorted(masks.keys() - stems.keys()):
        report.add("mask_unused", stem, "there is no photo of it")
    for stem in masks.keys() & stems.keys():
        for file in stems[stem]:
            yield file.relative_to(photos.root).as_posix(), file, masks[stem]


def _one_each(
    job: Job, photos: FileIndex, load: Callable[..., Annotation], report: Report
) -> list[Picture]:
    """A mask a photo; `load` is a picture's, after job and mask."""
    masks = FileIndex(job.annotations, MASK_SUFFIXES).by_stem()
    return [
        Picture(name, photo, str(files[0]), partial(load, job, files[0]))
        for name, photo, files in _pair(photos, masks, report)
    ]


def _categories(job: Job, given: Categories, sidecars: Iterable[Path]) -> Categories:
    """The classes: `given`, else the names in the JSONs beside the masks; None: there are none."""
    if job.class_from == "none" or given is not None:
        return given if job.class_from != "none" else None
    if job.class_from == "divisor":
        raise ValueError("--class-from divisor needs --classes with a line each like '2,car,thing'")
    names: set[str] = set()
    for path in sidecars:
        try:
            names.update(_sidecar(path).values())
        except (ValueError, OSError):
            continue  # reported when the picture is checked
    return [{"name": name} for name in sorted(names)]


def read_id_masks(job: Job, photos: FileIndex, given: Categories, report: Report) -> Found:
    """Reads one id mask a photo: every id above 0 is a segment.

    Masks are 8- or 16-bit gray, or RGB with R + 256 G + 65536 B. `job.class_from`: "none",
    "sidecar" (JSON beside the mask, id -> class name) or "divisor" (class id = id // divisor).
    """
    pictures = _one_each(job, photos, _load_ids, report)
    sidecars = [Path(picture.where).with_suffix(".json") for picture in pictures]
    return pictures, _categories(job, given, sidecars)


def _load_ids(job: Job, mask: Path, size: tuple[int, int], classes: Classes) -> Annotation:
    ids = read_mask(mask, colour=True)
    ids[np.isin(ids, job.void or ())] = 0
    if job.class_from == "none":
        return Annotation(ids, None)
    found = [i for i in np.unique(ids).tolist() if i > 0]
    names: dict[int, Any] = {i: i // job.divisor for i in found}
    if job.class_from == "sidecar":
        sidecar = _sidecar(mask.with_suffix(".json"))
        names = {i: sidecar.get(str(i)) for i in found}
    return Annotation(ids, [Segment(i, names[i], where=f"id {i}") for i in found])


def read_semantic_masks(job: Job, photos: FileIndex, given: Categories, report: Report) -> Found:
    """Reads one mask of classes a photo, gray or with a palette; parts of a thing are segments."""
    if given is None:
        raise ValueError("semantic masks need --classes with a line each like '2,car,thing'")
    return _one_each(job, photos, _load_classes, report), given


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
            where = f"class {value}, part {k}"
            segments.append(Segment(len(segments) + 1, value, where=where))
    return Annotation(ids, segments)


def read_binary_masks(job: Job, photos: FileIndex, given: Categories, report: Report) -> Found:
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
    pictures, sidecars = [], []
    for name, photo, files in _pair(photos, masks, report):
        files.sort(key=lambda f: (not f[0].isdigit(), int(f[0]) if f[0].isdigit() else 0, f[0]))
        stem = f"{index.root}/{name.rsplit('.', 1)[0]}"
        sidecars.append(Path(f"{stem}.json"))
        load = partial(_load_binary, job, files, sidecars[-1], report)
        pictures.append(Picture(name, photo, f"{stem}, {len(files)} masks", load))
    return pictures, _categories(job, given, sidecars)


def _load_binary(
    job: Job,
    files: list[tuple[str, Path]],
    sidecar: Path,
    report: Report,
    size: tuple[int, int],
    classes: Classes,
) -> Annotation:
    def draw(path: Path, size: tuple[int, int]) -> np.ndarray:
        mask = read_mask(path, colour=True) != 0
        if mask.shape != size:
            raise ValueError(f"it is {size_text(mask.shape)}, its photo {size_text(size)}")
        return mask

    names = _sidecar(sidecar) if job.class_from == "sidecar" else {}
    shapes = [Shape(names.get(key), f"mask {path}", partial(draw, path)) for key, path in files]
    folder = str(files[0][1].parent)
    return paint(shapes, size, classes, file=folder, overlap=job.overlap, report=report)
