"""Reads "CVAT for images 1.1": https://docs.cvat.ai/docs/other/xml_format

CVAT's COCO export is read by `read_coco`.
"""

from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from .problems import InputError, Problem
from .run_lengths import decode_cvat
from .shapes import OVERLAP_RULES, Shape, box_corners, ellipse_points, painter, polygon_mask
from .sources import FileIndex, Job, Picture, Source, is_unsafe

MAX_XML_BYTES = 2**30
DRAWN = ("polygon", "mask", "box", "ellipse")
IGNORED = ("points", "polyline", "cuboid", "skeleton")
# An attribute that no XML can have: the line on which the element begins.
LINE = "\0line"


def parse_xml(path: Path) -> Element:
    """Parses XML that may come from strangers: at most 1 GiB, no document type, so no entities.

    Each element has its line under the attribute `LINE`; InputError names file and line.
    """
    if path.stat().st_size > MAX_XML_BYTES:
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
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise InputError(
            f"{path} line {error.lineno} column {error.offset + 1}: no valid XML "
            f"({expat.ErrorString(error.code)}); export it again"
        ) from error
    return builder.close()


def read_cvat(annotations: Path, photos: FileIndex, job: Job, given: Any) -> Source:
    """Reads polygons, masks, boxes and ellipses; classes are the task's labels, and those used."""
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
    used: set[str] = set()
    for image in root.iter("image"):
        name = image.get("name", "")
        where = f"{annotations} line {image.get(LINE)}"
        if not name or is_unsafe(name):
            problems.append(Problem("unsafe_name", where, f"name is {name!r}"))
            continue
        file = f"{annotations} ({name})"
        shapes = _shapes(image, file, problems)
        used.update(s.category for s in shapes if s.category is not None)
        size = tuple(_integer(image.get(side)) for side in ("height", "width"))
        load = painter(shapes, file, job.overlap)
        known = size if min(size) > 0 else None
        pictures.append(Picture(name, photos.find(name), where, load, known))
    colors = {
        label.findtext("name", ""): label.findtext("color")
        for label in root.findall("meta//labels/label")
    }
    names = sorted((used | colors.keys()) - {""})
    categories = [{"name": name, "color": colors.get(name)} for name in names or ["segment"]]
    return Source(pictures, categories, problems, OVERLAP_RULES[job.overlap])


def _integer(text: str | None) -> int:
    """The number; 0 for what is none."""
    return int(text) if text is not None and text.lstrip("-").isdigit() else 0


def _shapes(image: Element, file: str, problems: list[Problem]) -> list[Shape]:
    shapes, boxes = [], 0
    for element in image:
        where = f"<{element.tag}> on line {element.get(LINE)}"
        if element.tag in IGNORED:
            problems.append(Problem("shape_ignored", file, f"{where} encloses no pixels"))
        if element.tag in DRAWN:
            boxes += element.tag == "box"
            draw = partial(_draw, element.tag, element.attrib)
            z_order = _integer(element.get("z_order"))
            shapes.append(Shape(element.get("label"), where, draw, z_order))
    if boxes:
        problems.append(Problem("box_as_segment", file, f"{boxes} segments are boxes"))
    return shapes


def _draw(kind: str, values: dict[str, str], size: tuple[int, int]) -> np.ndarray:
    def numbers(*keys: str) -> list[float]:
        missing = [key for key in keys if key not in values]
        if missing:
            raise ValueError(f"it has no attribute {missing[0]!r}")
        return [float(values[key]) for key in keys]

    turn = float(values.get("rotation", 0))
    if kind == "polygon":
        pairs = [p.split(",") for p in values.get("points", "").split(";")]
        return polygon_mask([[float(v) for x, y in pairs for v in (x, y)]], size)
    if kind == "mask":
        keys = ("left", "top", "width", "height")
        counts = [int(c) for c in values.get("rle", "").split(",")]
        return decode_cvat(counts, **dict(zip(keys, map(int, numbers(*keys)))), size=size)
    if kind == "box":
        x, y, right, bottom = numbers("xtl", "ytl", "xbr", "ybr")
        return polygon_mask([box_corners(x, y, right - x, bottom - y, turn, centre=True)], size)
    return polygon_mask([ellipse_points(*numbers("cx", "cy", "rx", "ry"), turn)], size)
