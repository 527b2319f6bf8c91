"""Reads folders of mask PNGs: segment ids, semantic classes, or one binary mask a segment."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ..annotations import join_bytes
from .classes import Classes, load_json
from .pictures import Annotation, FileIndex, Picture, Segment, Source, size_text, unannotated
from .problems import Problem
from .shapes import OVERLAP_RULES, Shape, paint

__all__ = ["CLASS_SOURCES", "read_binary_masks", "read_id_masks", "read_semantic_masks"]

CLASS_SOURCES = ("none", "sidecar", "divisor")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")


def _read_mask(path: Path, *, colour: bool) -> np.ndarray:
    """Integers HxW: gray values, palette indices, or R + 256 G + 65536 B where `colour` allows.

    Raises:
        ValueError, OSError: if it cannot be read or has other channels; names the file.
    """
    try:
        with Image.open(path) as image:
            mode, pixels = image.mode, np.asarray(image)
    # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
    except Exception as error:
        raise ValueError(f"mask {path} cannot be read ({type(error).__name__}: {error})") from error
    if pixels.ndim == 2 and mode != "F":
        return pixels.astype(np.int32)
    if colour and mode == "RGB":
        return join_bytes(pixels)
    allowed = "gray (8 or 16 bit)" + (" or RGB with id = R + 256 G + 65536 B" if colour else "")
    raise ValueError(f"mask {path} has PIL mode {mode!r}, expected {allowed}")


def _sidecar(path: Path) -> dict[str, str]:
    """The classes of a mask from the JSON beside it, id -> name.

    Raises:
        ValueError, OSError: if it is missing or no such JSON; names the file.
    """
    sidecar = path.with_suffix(".json")
    content = load_json(sidecar)
    if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
        raise ValueError(f'{sidecar} is no object like {{"1": "car", "2": "sky"}} (id: class)')
    return content


def _pair(
    photos: FileIndex, masks: dict[str, Any], name_of: Callable[[Any], str]
) -> tuple[list[tuple[str, Path, Any]], list[Problem]]:
    """Photos (relative path, file) with what `masks` holds for their stems, and problems.

    Args:
        photos: the photos.
        masks: what belongs to a stem, by relative path without suffix.
        name_of: how messages name it.
    """
    problems: list[Problem] = []
    pairs = []
    stems = photos.by_stem()
    for stem, files in stems.items():
        if len(files) > 1:
            names = ", ".join(f.name for f in files)
            problems.append(Problem("stem_twice", stem, f"photos {names} share one name"))
        if stem in masks:
            pairs.append((files[0].relative_to(photos.root).as_posix(), files[0], masks[stem]))
    for stem in masks.keys() - stems.keys():
        problems.append(Problem("mask_unused", name_of(masks[stem]), "there is no photo of it"))
    return pairs, sorted(problems, key=lambda p: p.file)


def _one_mask_each(masks: str | Path) -> dict[str, Path]:
    return {stem: files[0] for stem, files in FileIndex(masks, MASK_SUFFIXES).by_stem().items()}


def read_id_masks(
    annotations: str | Path,
    photos: FileIndex,
    *,
    class_from: str = "none",
    divisor: int = 1000,
    given: list[dict[str, Any]] | None = None,
    void: tuple[int, ...] = (),
    **_: Any,
) -> Source:
    """Reads one id mask a photo, with the photo's name: every id above 0 is a segment.

    Args:
        annotations: folder of the masks: 8- or 16-bit gray, or RGB with R + 256 G + 65536 B.
        photos: the photos.
        class_from: "none", "sidecar" (JSON beside the mask, id -> class name) or "divisor"
            (class id = id // divisor).
        divisor: see `class_from`.
        given: the classes of `--classes`; None: they are those that the masks have.
        void: values that are void as 0 is.
    """
    pairs, problems = _pair(photos, _one_mask_each(annotations), str)
    pictures = []
    for name, photo, mask in pairs:
        load = _id_loader(mask, class_from, divisor, void)
        pictures.append(Picture(name, photo, str(mask), load))
    categories: list[dict[str, Any]] | None = given
    if class_from == "none":
        categories = None
    elif given is None:
        keys = _keys_of(pictures, lambda annotation: [s.category for s in annotation.segments])
        categories = _named(keys)
    return Source(pictures, categories, problems + unannotated(photos, pictures))


def _id_loader(mask: Path, class_from: str, divisor: int, void: tuple[int, ...]):
    """A picture's `load` for an id mask."""

    def load(size: tuple[int, int], classes: Any) -> Annotation:
        ids = _read_mask(mask, colour=True)
        ids[np.isin(ids, void)] = 0
        found = [int(i) for i in np.unique(ids) if i > 0]
        if class_from == "none":
            return Annotation(ids, None)
        if class_from == "divisor":
            return Annotation(ids, [Segment(i, i // divisor, where=f"id {i}") for i in found])
        names = _sidecar(mask)
        segments = [Segment(i, names.get(str(i)), where=f"id {i}") for i in found]
        return Annotation(ids, segments)

    return load


def _keys_of(pictures: list[Picture], keys: Callable[[Annotation], list]) -> set:
    """All classes that the masks have; masks that cannot be read are reported later."""
    found: set = set()
    for picture in pictures:
        try:
            found.update(keys(picture.load((0, 0), Classes(None))))
        except (ValueError, OSError):
            continue
    return found - {None}


def _named(keys: set) -> list[dict[str, Any]]:
    """Classes from names, or from ids, in order; at least one, so that classes are known."""
    if not keys:
        return [{"name": "segment"}]
    if all(isinstance(k, int) for k in keys):
        return [{"id": k, "name": f"class_{k}"} for k in sorted(keys)]
    return [{"name": str(k)} for k in sorted(keys)]


def read_semantic_masks(
    annotations: str | Path,
    photos: FileIndex,
    *,
    given: list[dict[str, Any]] | None = None,
    void: tuple[int, ...] = (255,),
    **_: Any,
) -> Source:
    """Reads one mask of class ids a photo; connected parts of a thing class are its segments.

    Args:
        annotations: folder of the masks: 8- or 16-bit gray, or with a palette.
        photos: the photos.
        given: the classes of `--classes`; None: they are the values that the masks have.
        void: values without a class.
    """
    pairs, problems = _pair(photos, _one_mask_each(annotations), str)
    pictures = [
        Picture(name, photo, str(mask), _semantic_loader(mask, void)) for name, photo, mask in pairs
    ]
    categories = given
    if given is None:
        categories = _named(_keys_of(pictures, lambda a: [s.category for s in a.segments]))
    return Source(pictures, categories, problems + unannotated(photos, pictures))


def _semantic_loader(mask: Path, void: tuple[int, ...]):
    """A picture's `load` for a mask of classes."""

    def load(size: tuple[int, int], classes: Classes) -> Annotation:
        values = _read_mask(mask, colour=False)
        ids = np.zeros(values.shape, dtype=np.int32)
        segments: list[Segment] = []
        for value in np.unique(values).tolist():
            if value in void:
                continue
            part = values == value
            category = classes.find(value)
            if classes.agnostic or category is None or not category["isthing"]:
                components, count = part.astype(np.int32), 1
            else:
                number, components = cv2.connectedComponents(part.astype(np.uint8), connectivity=8)
                count = number - 1
            first = len(segments)
            ids[part] = components[part] + first
            segments += [
                Segment(first + k, value, where=f"class {value}, part {k}")
                for k in range(1, count + 1)
            ]
        return Annotation(ids, segments)

    return load


def read_binary_masks(
    annotations: str | Path,
    photos: FileIndex,
    *,
    class_from: str = "none",
    given: list[dict[str, Any]] | None = None,
    overlap: str = "order",
    **_: Any,
) -> Source:
    """Reads a file a segment: `STEM_K.png` or `STEM/K.png` for the photo STEM, not 0 inside.

    Args:
        annotations: folder of the masks; higher K (a number, or else by name) is drawn later.
        photos: the photos.
        class_from: "none", or "sidecar": `STEM.json`, K -> class name.
        given: the classes of `--classes`; None: they are those that the sidecars name.
        overlap: a key of `OVERLAP_RULES`.

    Raises:
        ValueError: for "divisor".
    """
    if class_from == "divisor":
        raise ValueError("binary masks have no ids: --class-from none or sidecar")
    index = FileIndex(annotations, MASK_SUFFIXES)
    stems = photos.by_stem()
    masks: dict[str, list[tuple[str, Path]]] = {}
    for name, path in index.files.items():
        whole = name.rsplit(".", 1)[0]
        by_name, by_folder = whole.rsplit("_", 1), whole.rsplit("/", 1)
        parts = by_folder if by_folder[0] in stems and len(by_folder) == 2 else by_name
        masks.setdefault(parts[0], []).append((parts[-1], path))
    for files in masks.values():
        files.sort(key=lambda f: (not f[0].isdigit(), int(f[0]) if f[0].isdigit() else 0, f[0]))
    pairs, problems = _pair(photos, masks, lambda files: str(files[0][1]))
    pictures = []
    names: set[str] = set()
    for name, photo, files in pairs:
        stem = index.root / name.rsplit(".", 1)[0]
        if class_from == "sidecar":
            try:
                names.update(_sidecar(stem.with_name(stem.name + ".png")).values())
            except (ValueError, OSError):
                pass  # reported when the picture is loaded
        load = _binary_loader(stem, files, class_from, overlap)
        size = _size_of(files[0][1])
        pictures.append(Picture(name, photo, f"{stem}, {len(files)} masks", load, size))
    categories = None if class_from == "none" else (given or _named(names))
    problems += unannotated(photos, pictures)
    return Source(pictures, categories, problems, OVERLAP_RULES[overlap])


def _size_of(path: Path) -> tuple[int, int] | None:
    """(height, width) from a mask's header; None if it cannot be read, which is reported later."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception:
        return None


def _binary_loader(stem: Path, files: list[tuple[str, Path]], class_from: str, overlap: str):
    """A picture's `load` for binary masks."""

    def draw_file(path: Path) -> Callable[[tuple[int, int]], np.ndarray]:
        def draw(size: tuple[int, int]) -> np.ndarray:
            mask = _read_mask(path, colour=True) != 0
            if mask.shape != tuple(size):
                raise ValueError(f"it is {size_text(mask.shape)}, the first {size_text(size)}")
            return mask

        return draw

    def load(size: tuple[int, int], classes: Any) -> Annotation:
        names = {}
        if class_from == "sidecar":
            names = _sidecar(stem.with_name(stem.name + ".png"))
        shapes = [
            Shape(names.get(key), f"mask {path.name}", draw_file(path)) for key, path in files
        ]
        return paint(shapes, size, file=str(stem), overlap=overlap)

    return load
