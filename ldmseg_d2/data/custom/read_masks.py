"""Reads folders of mask PNGs: segment ids, semantic classes, or one binary mask a segment."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ..annotations import read_mask
from .class_list import Classes, load_json
from .problems import Problem
from .shapes import OVERLAP_RULES, Shape, painter
from .sources import Annotation, FileIndex, Job, Picture, Segment, Source, size_text

CLASS_SOURCES = ("none", "sidecar", "divisor")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
Given = list[dict[str, Any]] | None


def _sidecar(path: Path) -> dict[str, str]:
    """The classes of a mask from the JSON beside it, id -> name; ValueError if it is no such."""
    sidecar = path.with_suffix(".json")
    content = load_json(sidecar)
    if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
        raise ValueError(f'{sidecar} is no object like {{"1": "car", "2": "sky"}} (id: class)')
    return content


def _pair(
    photos: FileIndex, masks: dict[str, Any], name_of: Callable[[Any], str] = str
) -> tuple[list[tuple[str, Path, Any]], list[Problem]]:
    """Photos (relative path, file) with what `masks` holds for their stems, and problems."""
    problems, pairs, stems = [], [], photos.by_stem()
    for stem, files in stems.items():
        if len(files) > 1:
            names = ", ".join(f.name for f in files)
            problems.append(Problem("stem_twice", stem, f"photos {names} share one name"))
        if stem in masks:
            pairs.append((files[0].relative_to(photos.root).as_posix(), files[0], masks[stem]))
    for stem in masks.keys() - stems.keys():
        problems.append(Problem("mask_unused", name_of(masks[stem]), "there is no photo of it"))
    return pairs, sorted(problems, key=lambda p: p.file)


def _read_folder(
    annotations: Path,
    photos: FileIndex,
    load: Callable[[Path], Callable[[tuple[int, int], Classes], Annotation]],
    with_classes: bool,
    given: Given,
) -> Source:
    """One mask a photo, with the photo's name; classes are `given`, or those of the masks."""
    files = FileIndex(annotations, MASK_SUFFIXES).by_stem()
    pairs, problems = _pair(photos, {stem: paths[0] for stem, paths in files.items()})
    pictures = [Picture(name, photo, str(mask), load(mask)) for name, photo, mask in pairs]
    categories = given if with_classes else None
    if with_classes and given is None:
        keys: set = set()
        for picture in pictures:
            try:
                keys.update(s.category for s in picture.load((0, 0), Classes(None)).segments)
            except (ValueError, OSError):
                continue  # reported when the picture is checked
        categories = _named(keys - {None})
    return Source(pictures, categories, problems)


def _named(keys: set) -> list[dict[str, Any]]:
    """Classes from names, or from ids, in order; at least one, so that classes are known."""
    if keys and all(isinstance(k, int) for k in keys):
        return [{"id": k, "name": f"class_{k}"} for k in sorted(keys)]
    return [{"name": str(k)} for k in sorted(keys)] or [{"name": "segment"}]


def read_id_masks(annotations: Path, photos: FileIndex, job: Job, given: Given) -> Source:
    """Reads one id mask a photo: every id above 0 is a segment.

    Masks are 8- or 16-bit gray, or RGB with R + 256 G + 65536 B. `job.class_from`: "none",
    "sidecar" (JSON beside the mask, id -> class name) or "divisor" (class id = id // divisor).
    """
    load = partial(partial, _load_ids, job)
    return _read_folder(annotations, photos, load, job.class_from != "none", given)


def _load_ids(job: Job, mask: Path, size: tuple[int, int], classes: Classes) -> Annotation:
    ids = read_mask(mask, colour=True)
    ids[np.isin(ids, job.void or ())] = 0
    if job.class_from == "none":
        return Annotation(ids, None)
    names = _sidecar(mask) if job.class_from == "sidecar" else {}
    return Annotation(
        ids,
        [
            Segment(i, names.get(str(i)) if names else i // job.divisor, where=f"id {i}")
            for i in np.unique(ids).tolist()
            if i > 0
        ],
    )


def read_semantic_masks(annotations: Path, photos: FileIndex, job: Job, given: Given) -> Source:
    """Reads one mask of classes a photo, gray or with a palette; parts of a thing are segments."""
    return _read_folder(annotations, photos, partial(partial, _load_classes, job), True, given)


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
        if not classes.agnostic and category is not None and category["isthing"]:
            number, parts = cv2.connectedComponents(part.astype(np.uint8), connectivity=8)
            count = number - 1
        ids[part] = parts[part] + len(segments)
        for k in range(1, count + 1):
            where = f"class {value}, part {k}"
            segments.append(Segment(len(segments) + 1, value, where=where))
    return Annotation(ids, segments)


def read_binary_masks(annotations: Path, photos: FileIndex, job: Job, given: Given) -> Source:
    """Reads a file a segment: `STEM_K.png` or `STEM/K.png` for the photo STEM, not 0 inside.

    Higher K (a number, or else by name) is drawn later. `job.class_from`: "none", or "sidecar":
    `STEM.json`, K -> class name; ValueError for "divisor".
    """
    if job.class_from == "divisor":
        raise ValueError("binary masks have no ids: --class-from none or sidecar")
    index = FileIndex(annotations, MASK_SUFFIXES)
    stems = photos.by_stem()
    masks: dict[str, list[tuple[str, Path]]] = {}
    for name, path in index.files.items():
        whole = name.rsplit(".", 1)[0]
        by_name, by_folder = whole.rsplit("_", 1), whole.rsplit("/", 1)
        parts = by_folder if by_folder[0] in stems and len(by_folder) == 2 else by_name
        masks.setdefault(parts[0], []).append((parts[-1], path))
    pairs, problems = _pair(photos, masks, lambda files: str(files[0][1]))
    pictures, names = [], set()
    for name, photo, files in pairs:
        files.sort(key=lambda f: (not f[0].isdigit(), int(f[0]) if f[0].isdigit() else 0, f[0]))
        stem = index.root / name.rsplit(".", 1)[0]
        classes = stem.with_name(stem.name + ".png") if job.class_from == "sidecar" else None
        try:
            names.update(_sidecar(classes).values() if classes else ())
        except (ValueError, OSError):
            pass  # reported when the picture is checked
        load = partial(_load_binary, job, stem, files, classes)
        size = _size_of(files[0][1])
        pictures.append(Picture(name, photo, f"{stem}, {len(files)} masks", load, size))
    categories = None if job.class_from == "none" else (given or _named(names))
    return Source(pictures, categories, problems, OVERLAP_RULES[job.overlap])


def _size_of(path: Path) -> tuple[int, int] | None:
    """(height, width) from a mask's header; None if it cannot be read, which is reported later."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception:
        return None


def _load_binary(
    job: Job,
    stem: Path,
    files: list[tuple[str, Path]],
    sidecar: Path | None,
    size: tuple[int, int],
    classes: Classes,
) -> Annotation:
    def draw(path: Path, size: tuple[int, int]) -> np.ndarray:
        mask = read_mask(path, colour=True) != 0
        if mask.shape != tuple(size):
            raise ValueError(f"it is {size_text(mask.shape)}, the first {size_text(size)}")
        return mask

    names = _sidecar(sidecar) if sidecar else {}
    shapes = [
        Shape(names.get(key), f"mask {path.name}", partial(draw, path)) for key, path in files
    ]
    return painter(shapes, str(stem), job.overlap)(size, classes)
