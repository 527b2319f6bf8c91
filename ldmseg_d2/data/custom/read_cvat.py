"""Reads "CVAT for images 1.1": https://docs.cvat.ai/docs/other/xml_format

CVAT's COCO export is read by `read_coco`.
"""

import os
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from .pictures import Annotation, FileIndex, Picture, Source, is_unsafe, unannotated
from .problems import InputError, Problem
from .run_lengths import decode_cvat
from .shapes import OVERLAP_RULES, Shape, box_corners, ellipse_points, paint, polygon_mask

__all__ = ["parse_xml", "read_cvat"]

MAX_XML_BYTES = 2**30
DRAWN = ("polygon", "mask", "box", "ellipse")
IGNORED = ("points", "polyline", "cuboid", "skeleton")
# An attribute that no XML can have: the line on which the element begins.
LINE = "\0line"


def parse_xml(path: str | Path) -> Element:
    """Parses XML that may come from strangers: no document type, so no entities.

    Args:
        path: the file, at most 1 GiB.

    Returns:
        The root; each element has its line under the attribute `LINE`.

    Raises:
        InputError: naming file and line, if it is no XML or has a document type.
        FileNotFoundError: if there is no such file.
    """
    if os.path.getsize(path) > MAX_XML_BYTES:
        raise InputError(f"{path} is larger than {MAX_XML_BYTES >> 20} MiB: export fewer pictures")
    parser, builder = expat.ParserCreate(), TreeBuilder()

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag, {**attributes, LINE: str(parser.CurrentLineNumber)})

    def refuse(*_: Any) -> None:
        raise InputError(
            f"{path} line {parser.CurrentLineNumber}: a document type or entity, which CVAT does "
            "not write; the file is refused"
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        with open(path, "rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise InputError(
            f"{path} line {error.lineno} column {error.offset + 1}: no valid XML "
            f"({expat.ErrorString(error.code)}); export it again"
        ) from error
    return builder.close()


def read_cvat(
    annotations: str | Path, photos: FileIndex, *, overlap: str = "order", **_: Any
) -> Source:
    """Reads polygons, masks, boxes and ellipses.

    Args:
        annotations: `annotations.xml`.
        photos: folder of the photos.
        overlap: a key of `OVERLAP_RULES`.

    Returns:
        The source; its classes are the task's labels, else those that occur.

    Raises:
        InputError, FileNotFoundError: if the XML as a whole cannot be read.
    """
    root = parse_xml(annotations)
    if root.tag != "annotations":
        raise InputError(f"{annotations} is no CVAT export: its root is <{root.tag}>")
    if root.find("track") is not None:
        raise InputError(
            f"{annotations} line {root.find('track').get(LINE)}: exported as 'CVAT for video'; "
            "export as 'CVAT for images 1.1' or as COCO"
        )
    problems: list[Problem] = []
    pictures = []
    used: dict[str, None] = {}
    for image in root.iter("image"):
        name = image.get("name", "")
        where = f"{annotations} line {image.get(LINE)}"
        if not name or is_unsafe(name):
            problems.append(Problem("unsafe_name", where, f"name is {name!r}"))
            continue
        shapes = _shapes(image, f"{annotations} ({name})", problems)
        used.update(dict.fromkeys(s.category for s in shapes if s.category is not None))

        def load(size: tuple, _, drawn: list[Shape] = shapes, file: str = name) -> Annotation:
            return paint(drawn, size, file=file, overlap=overlap)

        size = tuple(_integer(image.get(side)) for side in ("height", "width"))
        pictures.append(
            Picture(name, photos.find(name), where, load, size if min(size) > 0 else None)
        )
    labels = [
        {"name": label.findtext("name", ""), "color": label.findtext("color")}
        for label in root.findall("meta//labels/label")
    ]
    known = {label["name"]: label for label in labels if label["name"]}
    categories = list({**{n: {"name": n} for n in used}, **known}.values())
    categories.sort(key=lambda c: c["name"])
    problems += unannotated(photos, pictures)
    return Source(pictures, categories or [{"name": "segment"}], problems, OVERLAP_RULES[overlap])


def _integer(text: str | None) -> int:
    """The number; 0 for what is none."""
    return int(text) if text is not None and text.isdigit() else 0


def _shapes(image: Element, file: str, problems: list[Problem]) -> list[Shape]:
    shapes, boxes = [], 0
    for element in image:
        where = f"<{element.tag}> on line {element.get(LINE)}"
        if element.tag in IGNORED:
            problems.append(Problem("shape_ignored", file, f"{where} encloses no pixels"))
        if element.tag not in DRAWN:
            continue
        boxes += element.tag == "box"
        text = element.get("z_order", "0")
        z_order = int(text) if text.lstrip("-").isdigit() else 0
        shapes.append(Shape(element.get("label"), where, _drawing(element), z_order))
    if boxes:
        problems.append(Problem("box_as_segment", file, f"{boxes} segments are boxes"))
    return shapes


def _drawing(element: Element):
    """A shape's `draw`."""
    values = element.attrib

    def number(key: str) -> float:
        if key not in values:
            raise ValueError(f"it has no attribute {key!r}")
        return float(values[key])

    def draw(size: tuple[int, int]) -> np.ndarray:
        turn = float(values.get("rotation", 0))
        if element.tag == "polygon":
            pairs = [p.split(",") for p in values.get("points", "").split(";")]
            return polygon_mask([[float(v) for x, y in pairs for v in (x, y)]], size)
        if element.tag == "mask":
            box = {key: int(number(key)) for key in ("left", "top", "width", "height")}
            counts = [int(c) for c in values.get("rle", "").split(",")]
            return decode_cvat(counts, **box, size=size)
        if element.tag == "box":
            x, y = number("xtl"), number("ytl")
            sides = number("xbr") - x, number("ybr") - y
            return polygon_mask([box_corners(x, y, *sides, turn, centre=True)], size)
        centre = number("cx"), number("cy")
        return polygon_mask([ellipse_points(*centre, number("rx"), number("ry"), turn)], size)

    return draw
