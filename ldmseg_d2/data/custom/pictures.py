"""What readers give: pictures that load their annotation when asked.

A reader is a function (job, photos, report) -> (pictures, classes found).
"""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .class_list import Classes

Job = Namespace  # the options of `tools/prepare_custom.py`, by their names there
Categories = list[dict[str, Any]] | None  # as for `Classes`


@dataclass
class Segment:
    """A segment of an id map."""

    id: int  # its value in the map, above 0
    category: str | int | None  # the class's name, else its id; None: no class
    iscrowd: bool = False  # many objects under one mask, as in COCO: void in training
    where: str = ""  # how messages name it


# An id map, int32 (H, W), 0 is void; and its segments, None: every id is one without a class.
Annotation = tuple[np.ndarray, list[Segment] | None]


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


def known_size(height: Any, width: Any) -> tuple[int, int] | None:
    """(height, width), if that is what an export says."""
    fits = isinstance(height, int) and isinstance(width, int) and min(height, width) > 0
    return (height, width) if fits else None


def size_text(size: tuple[int, int]) -> str:
    """(height, width) as people write it: "640x480" is 640 wide."""
    return f"{size[1]}x{size[0]}"
