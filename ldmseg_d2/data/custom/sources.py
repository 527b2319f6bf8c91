"""What readers are asked for and what they give: pictures that load their annotation when asked.

A reader is a function (annotations, photos, job, given classes) -> `Source`; see `prepare.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from .class_list import Classes
from .problems import Problem

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Job:
    """The options of `tools/prepare_custom.py`, by their names there.

    Raises:
        ValueError: for numbers out of range.
    """

    format: str  # a key of READERS
    annotations: Path  # file or folder
    photos: Path | None = None  # folder; None only for "prepared"
    masks: Path | None = None  # "coco-panoptic": folder of the PNGs
    val_annotations: Path | None = None
    val_photos: Path | None = None
    output: Path | None = None  # None: check only
    fix: bool = False  # mend what is wrong, and drop tiny segments and pictures without any
    overwrite: bool = False  # replace a data set that the tool wrote
    link_photos: bool = False
    classes: Path | None = None  # a file for `read_classes`
    stuff: tuple[str, ...] = ()
    class_from: str = "none"
    divisor: int = 1000
    void: tuple[int, ...] | None = None  # None: 255 in semantic masks
    overlap: str = "order"
    num_bits: int = 7  # at most 2^num_bits - 1 segments a picture
    min_area: int = 10  # pixels; smaller segments are reported
    val_fraction: float = 0.0  # share of pictures, by a hash of seed and name
    seed: int = 0
    depth: Path | None = None  # folder of depth PNGs with the photos' names
    depth_scale: float = 256.0  # their value per metre

    def __post_init__(self) -> None:
        for name, allowed, fits in (
            ("num-bits", "1..16", 1 <= self.num_bits <= 16),
            ("val-fraction", "0 to below 1", 0 <= self.val_fraction < 1),
            ("depth-scale", "above 0", self.depth_scale > 0),
            ("divisor", "at least 1", self.divisor >= 1),
        ):
            if not fits:
                value = getattr(self, name.replace("-", "_"))
                raise ValueError(f"--{name} is {value}, allowed is {allowed}")
        if self.fix and self.output is None:
            raise ValueError("--fix writes a corrected copy: it needs --output")


@dataclass
class Segment:
    """A segment of an id map."""

    id: int  # its value in the map, above 0
    category: str | int | None  # the class's name, else its id; None: no class
    iscrowd: bool = False  # many objects under one mask, as in COCO: void in training
    where: str = ""  # how messages name it


@dataclass
class Annotation:
    """An id map with its segments."""

    ids: np.ndarray  # int32 (H, W), 0 is void
    segments: list[Segment] | None  # None: every id is a segment without a class
    problems: list[Problem] = field(default_factory=list)
    overlap: int = 0  # pixels that more than one segment claimed


@dataclass
class Picture:
    """A photo and the way to its annotation.

    `load` goes from the (height, width) to draw at and the classes to the annotation; it raises
    ValueError or OSError where that cannot be read.
    """

    name: str  # the photo's path as the source names it, "/" between folders
    photo: Path | None  # None: there is no file
    where: str  # how messages name the annotation
    load: Callable[[tuple[int, int], Classes], Annotation]
    size: tuple[int, int] | None = None  # (height, width), where the source says it
    split: str | None = None  # "train" or "val", where the source decides it
    depth: Path | None = None


@dataclass
class Source:
    """All that a reader found."""

    pictures: list[Picture]
    categories: list[dict[str, Any]] | None  # as for `Classes`
    problems: list[Problem] = field(default_factory=list)  # about files that are no picture
    overlap_rule: str | None = None  # None: the format has no overlaps
    depth_scale: float | None = None  # where the source has depth


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
