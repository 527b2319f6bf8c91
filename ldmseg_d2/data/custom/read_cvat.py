"""Reads "CVAT for images 1.1": https://docs.cvat.ai/docs/other/xml_format

CVAT's COCO export is read by `read_coco`.
"""

from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from .data_report import Report
from .file_lookup import FileIndex
from .pictures import Found, Job, Picture, known_size
from .run_lengths import decode_cvat
from .shapes import Shape, box_corners, ellipse_points, painted, polygon_mask

DRAWN = ("polygon", "mask", "box", "ellipse")
IGNORED = ("points", "polyline", "cuboid", "skeleton")


def parse_xml(path: Path) -> ElementTree.Element:
    """The root of an XML that may come from strangers: no document type, so no entities."""
    content = path.read_bytes()
    if b"<!DOCTYPE" in content:
        raise ValueError(f"{path}: a document type, which CVAT does not write; the file is refused")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: no valid XML ({error}); export it again") from error
    if root.tag != "annotations":
        raise ValueError(f"{path} is no CVAT export: its root is <{root.tag}>")
    if root.find("track") is not None:
        raise ValueError(
            f"{path} is exported as 'CVAT for video'; export as 'CVAT for images 1.1' or as COCO"
        )
    return root


def read_cvat(job: Job, photos: FileIndex, report: Report) -> Found:
    """Reads polygons, masks, boxes and ellipses; classes are the task's labels, and those used."""
    root = parse_xml(job.annotations)
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
            where = f"shape {number} (<{element.tag}>)"
            if element.tag in IGNORED:
                report.add("shape_ignored", file, f"{where} encloses no pixels")
            elif element.tag in DRAWN:
                label, draw = element.get("label"), partial(_draw, element)
                colors.setdefault(label)
                z_order = int(element.get("z_order", 0))
                shapes.append(Shape(label, where, draw, z_order, is_box=element.tag == "box"))
        size = known_size(int(image.get("height", 0)), int(image.get("width", 0)))
        picture = Picture(name, photos.find(name), file, size=size)
        pictures.append(painted(picture, shapes, job, report))
    names = sorted(colors.keys() - {"", None})
    return pictures, [{"name": name, "color": colors[name]} for name in names]


def _draw(element: ElementTree.Element, size: tuple[int, int]) -> np.ndarray:
    def numbers(*keys: str) -> list[float]:
        missing = [key for key in keys if key not in element.attrib]
        if missing:
            raise ValueError(f"it has no attribute {missing[0]!r}")
        return [float(element.get(key)) for key in keys]

    kind, turn = element.tag, float(element.get("rotation", 0))
    if kind == "polygon":
        pairs = [p.split(",") for p in element.get("points", "").split(";")]
        return polygon_mask([[float(v) for x, y in pairs for v in (x, y)]], size)
    if kind == "mask":
        box = tuple(int(v) for v in numbers("left", "top", "width", "height"))
        return decode_cvat([int(c) for c in element.get("rle", "").split(",")], box, size)
    if kind == "box":
        x, y, right, bottom = numbers("xtl", "ytl", "xbr", "ybr")
        return polygon_mask([box_corners(x, y, right - x, bottom - y, turn, centre=True)], size)
    return polygon_mask([ellipse_points(*numbers("cx", "cy", "rx", "ry"), turn)], size)
