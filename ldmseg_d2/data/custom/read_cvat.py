"""Reads "CVAT for images 1.1": https://docs.cvat.ai/docs/other/xml_format

CVAT's COCO export is read by `read_coco`.
"""

from functools import partial
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from .data_report import Report
from .file_lookup import FileIndex
from .pictures import Categories, Found, Job, Picture
from .run_lengths import decode_cvat
from .shapes import Shape, box_corners, ellipse_points, paint, polygon_mask

DRAWN = ("polygon", "mask", "box", "ellipse")
IGNORED = ("points", "polyline", "cuboid", "skeleton")


def parse_xml(path: Path) -> Element:
    """Parses XML that may come from strangers: no document type, so no entities.

    ValueError names file and line.
    """
    content = path.read_bytes()
    if b"<!DOCTYPE" in content:
        raise ValueError(f"{path}: a document type, which CVAT does not write; the file is refused")
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: no valid XML ({error}); export it again") from error


def read_cvat(job: Job, photos: FileIndex, given: Categories, report: Report) -> Found:
    """Reads polygons, masks, boxes and ellipses; classes are the task's labels, and those used."""
    root = parse_xml(job.annotations)
    if root.tag != "annotations":
        raise ValueError(f"{job.annotations} is no CVAT export: its root is <{root.tag}>")
    if root.find("track") is not None:
        raise ValueError(
            f"{job.annotations} is exported as 'CVAT for video'; export as 'CVAT for images 1.1' "
            "or as COCO"
        )
    pictures = []
    colors = {
        label.findtext("name", ""): label.findtext("color")
        for label in root.findall("meta//labels/label")
    }
    for image in root.iter("image"):
        name = image.get("name", "")
        file = f"{job.annotations} ({name})"
        shapes = []
        for number, element in enumerate(image, start=1):
            kind, label, where = (
                element.tag,
                element.get("label"),
                f"shape {number} (<{element.tag}>)",
            )
            if kind in IGNORED:
                report.add("shape_ignored", file, f"{where} encloses no pixels")
            elif kind in DRAWN:
                colors.setdefault(label)
                draw, z_order = (
                    partial(_draw, kind, element.attrib),
                    _integer(element.get("z_order")),
                )
                shapes.append(Shape(label, where, draw, z_order, is_box=kind == "box"))
        size = _integer(image.get("height")), _integer(image.get("width"))
        load = partial(paint, shapes, file=file, overlap=job.overlap, report=report)
        pictures.append(
            Picture(name, photos.find(name), file, load, size if min(size) > 0 else None)
        )
    names = sorted(colors.keys() - {"", None})
    return pictures, [{"name": name, "color": colors[name]} for name in names]


def _integer(text: str | None) -> int:
    """The number; 0 for what is none."""
    return int(text) if text is not None and text.lstrip("-").isdigit() else 0


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
        box = tuple(int(v) for v in numbers("left", "top", "width", "height"))
        return decode_cvat([int(c) for c in values.get("rle", "").split(",")], box, size)
    if kind == "box":
        x, y, right, bottom = numbers("xtl", "ytl", "xbr", "ybr")
        return polygon_mask([box_corners(x, y, right - x, bottom - y, turn, centre=True)], size)
    return polygon_mask([ellipse_points(*numbers("cx", "cy", "rx", "ry"), turn)], size)
