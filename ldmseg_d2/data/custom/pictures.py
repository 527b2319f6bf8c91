"""What every reader gives: pictures that load their annotation when it is asked for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from .classes import Classes
from .problems import Problem

__all__ = [
    "Annotation",
    "FileIndex",
    "Picture",
    "Segment",
    "Source",
    "is_unsafe",
    "size_text",
    "unannotated",
]

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass
class Segment:
    """A segment of an id map.

    Args:
        id: its value in the map, above 0.
        category: the class's name, or its id where the source has no names; None: no class.
        iscrowd: many objects under one mask, as in COCO: void in training.
        where: how messages name it.
    """

    id: int
    category: str | int | None
    iscrowd: bool = False
    where: str = ""


@dataclass
class Annotation:
    """An id map with its segments.

    Args:
        ids: int32 (H, W), 0 is void.
        segments: as the source lists them; None: every id is a segment without a class.
        problems: what was wrong with single segments.
        overlap: pixels that more than one segment claimed.
    """

    ids: np.ndarray
    segments: list[Segment] | None
    problems: list[Problem] = field(default_factory=list)
    overlap: int = 0


@dataclass
class Picture:
    """A photo and the way to its annotation.

    Args:
        name: the photo's path as the source names it, "/" between folders.
        photo: the file; None: there is none.
        where: how messages name the annotation.
        load: from the (height, width) to draw at and the classes to the annotation; raises
            ValueError or OSError where it cannot be read.
        size: (height, width) that the source says it has; None: it does not say.
        split: "train" or "val", where the source decides it.
        depth: depth PNG that belongs to the photo, where the source has one.
    """

    name: str
    photo: Path | None
    where: str
    load: Callable[[tuple[int, int], Classes], Annotation]
    size: tuple[int, int] | None = None
    split: str | None = None
    depth: Path | None = None


@dataclass
class Source:
    """All that a reader found.

    Args:
        pictures: in the order of the source.
        categories: `name`, and optionally `id`, `isthing`, `color`; None: there are no classes.
        problems: about files that are no picture.
        overlap_rule: how overlapping segments were resolved; None: the format has no overlaps.
        depth_scale: depth PNG value per metre, where the source has depth.
    """

    pictures: list[Picture]
    categories: list[dict[str, Any]] | None
    problems: list[Problem] = field(default_factory=list)
    overlap_rule: str | None = None
    depth_scale: float | None = None


def is_unsafe(name: str) -> bool:
    """Whether a file name from an export could lead out of its folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or ":" in name[:3] or "\0" in name


def size_text(size: tuple[int, int]) -> str:
    """(height, width) as people write it: "640x480" is 640 wide."""
    return f"{size[1]}x{size[0]}"


class FileIndex:
    """The files below a folder; names from an export are looked up here, never opened.

    Args:
        root: the folder.
        suffixes: lower case, with dot; other files are not seen.
    """

    def __init__(self, root: str | Path, suffixes: tuple[str, ...] = PHOTO_SUFFIXES):
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"{root} is not a folder; expected one with {suffixes} files")
        files = sorted(p for p in self.root.rglob("*") if p.suffix.lower() in suffixes)
        self.files = {p.relative_to(self.root).as_posix(): p for p in files if p.is_file()}
        self._by_base: dict[str, list[Path]] = {}
        for path in self.files.values():
            self._by_base.setdefault(path.name, []).append(path)

    def find(self, name: str) -> Path | None:
        """The file of this relative path; else the only file with this last component."""
        name = str(PurePosixPath(name.replace("\\", "/")))
        if name in self.files:
            return self.files[name]
        same = self._by_base.get(PurePosixPath(name).name, [])
        return same[0] if len(same) == 1 else None

    def by_stem(self) -> dict[str, list[Path]]:
        """The files by relative path without suffix."""
        found: dict[str, list[Path]] = {}
        for name, path in self.files.items():
            found.setdefault(str(PurePosixPath(name).with_suffix("")), []).append(path)
        return found


def unannotated(photos: FileIndex, pictures: list[Picture]) -> list[Problem]:
    """A problem for each photo that no picture is of."""
    used = {picture.photo for picture in pictures}
    return [
        Problem("photo_unannotated", name, "there is no annotation of it")
        for name, path in photos.files.items()
        if path not in used
    ]
