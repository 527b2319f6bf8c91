"""What readers give: pictures that load their annotation when asked.

A reader is a function (job, photos, given classes, report) -> (pictures, classes found); a job has
the options of `tools/prepare_custom.py`, by their names there.
"""

from argparse import Namespace as Job
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .class_list import Classes

__all__ = ["Annotation", "Categories", "Found", "Job", "Picture", "Segment", "size_text"]

Categories = list[dict[str, Any]] | None  # as for `Classes`


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
    overlap: int = 0  # pixels that more than one segment claimed


@dataclass
class Picture:
    """A photo and the way to its annotation.

    `load` goes from the photo's (height, width) and the classes to the annotation; ValueError or
    OSError where that cannot be read.
    """

    name: str  # the photo's path as the source names it, "/" between folders
    photo: Path | None  # None: there is no file
    where: str  # how messages name the annotation
    load: Callable[[tuple[int, int], Classes], Annotation] | None = None
    size: tuple[int, int] | None = None  # (height, width), where the source says it
    depth: Path | None = None


Found = tuple[list[Picture], Categories]


def size_text(size: tuple[int, int]) -> str:
    """(height, width) as people write it: "640x480" is 640 wide."""
    return f"{size[1]}x{size[0]}"
