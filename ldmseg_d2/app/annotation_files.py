"""Saves a session as COCO panoptic JSON and PNG, in one zip with its photo, and reads it back.

The zip is a data set of one photo, as panopticapi reads it; docs/ANNOTATING.md says what is in it.
"""

import io
import json
import os
import re
import zipfile
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from panopticapi.utils import id2rgb, rgb2id
from PIL import Image
from pycocotools import mask as mask_util

from ..data.annotations import index_segments
from ..visualization import segment_colors
from .annotation_session import NO_CLASS, Category, Session, SessionError
from .uploads import Limits, UploadError, decode_photo, decode_png, unpack_zip

# Segments without a class get this one, with an id above all others.
UNNAMED = "segment"


def safe_stem(file_name: str) -> str:
    """A file's name without folders and suffix, in characters that every system takes."""
    stem = os.path.splitext(re.split(r"[/\\]", file_name)[-1])[0]
    return re.sub(r"[^\w.-]+", "_", stem).strip("._")[:80] or "photo"


def save_annotation(session: Session) -> bytes:
    """The bytes of a zip; SessionError: there is no segment."""
    if not session.segment_ids():
        raise SessionError("There are no segments to save yet.")
    name = f"{session.name}.png"
    members = {
        "panoptic.json": json.dumps(_to_json(session, name), indent=1).encode(),
        f"panoptic/{name}": _png(id2rgb(session.ids)),
        f"images/{name}": _png(session.photo),
        f"kept/{name}": _png(session.kept.astype(np.uint8) * 255),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, data in members.items():
            # Without the time of day: the same segments are the same bytes.
            archive.writestr(zipfile.ZipInfo(path), data, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", compress_level=3)
    return file.getvalue()


def _to_json(session: Session, name: str) -> dict[str, Any]:
    unnamed = Category(max((c.id for c in session.categories), default=0) + 1, UNNAMED)
    categories = [*session.categories, unnamed]
    segments = []
    for segment in session.segment_ids():
        rle = mask_util.encode(np.asfortranarray(session.ids == segment, dtype=np.uint8))
        category = categories[session.classes.get(segment, NO_CLASS)]
        box = [int(side) for side in mask_util.toBbox(rle)]
        segments.append({"id": segment, "category_id": category.id, "bbox": box, "iscrowd": 0})
        segments[-1]["area"] = int(mask_util.area(rle))
    height, width = session.ids.shape
    return {
        "images": [{"id": 1, "file_name": name, "height": height, "width": width}],
        "annotations": [{"image_id": 1, "file_name": name, "segments_info": segments}],
        "categories": [
            {**vars(c), "isthing": int(c.isthing), "color": segment_colors([c.id])[0].tolist()}
            for c in categories
        ],
    }


def load_annotation(
    files: dict[str, bytes], categories: list[Category], current: Session | None, limits: Limits
) -> tuple[Session, str]:
    """Read what :func:`save_annotation` wrote, or the JSON and PNG of a COCO panoptic annotation.

    `files` are bytes by name: one zip; or a JSON, its PNG and, optionally, the photo. Without a
    photo the `current` session is changed. Returns the session, and a sentence about classes that
    were not taken over, or "". UploadError: files that do not do.
    """
    for name, data in files.items():
        limits.check(len(data), name)
    zip_name = next((name for name in files if name.lower().endswith(".zip")), None)
    if zip_name is not None:
        files = unpack_zip(files[zip_name], zip_name, limits)
    ids_name, labels, class_names = _read_segments(files)
    others = [n for n in files if n != ids_name and not n.lower().endswith((".json", ".zip"))]
    others.sort(key=lambda name: safe_stem(name) != safe_stem(ids_name))  # its own first
    photo_name = next((n for n in others if _folder(n) != "kept"), None)
    kept_name = next((n for n in others if _folder(n) == "kept"), None)
    session, kept = current, np.ones(labels.shape, dtype=bool)
    if photo_name is not None:
        photo, reduced = decode_photo(files[photo_name], photo_name, limits)
        if reduced:
            raise UploadError(
                f"{photo_name} has a side of more than {limits.max_side} pixels: start the page "
                "with a larger --max-side to load its segments."
            )
        session = Session(photo, safe_stem(photo_name), categories)
    if session is None:
        raise UploadError("There is no photo with these segments: open it first.")
    if kept_name is not None:
        kept = decode_png(files[kept_name], kept_name, "L") > 0
    if not session.ids.shape == labels.shape == kept.shape:
        sizes = [f"{w} x {h}" for h, w in (labels.shape, session.ids.shape, kept.shape)]
        raise UploadError(
            f"{ids_name} has {sizes[0]} pixels, the photo {sizes[1]} and what is kept {sizes[2]}: "
            "they do not belong together."
        )
    places = {category.name: i for i, category in enumerate(categories)}
    classes = {i: places[name] for i, name in class_names.items() if name in places}
    session.take_result(labels, classes, kept=kept)
    unknown = sorted(set(class_names.values()) - {UNNAMED, *places})[:10]
    note = f"Classes unknown here became segments without one: {', '.join(unknown)}."
    return session, note if unknown else ""


def _read_segments(files: dict[str, bytes]) -> tuple[str, np.ndarray, dict[int, str]]:
    """The PNG's name, its segments as labels 1..N (H, W), and the class name of each."""
    names = [name for name in files if name.lower().endswith(".json")]
    if len(names) != 1:
        raise UploadError(
            "Load the zip that Save makes, or choose a COCO panoptic JSON together with its PNG "
            f"(found {len(names)} JSON files)."
        )
    pngs = [name for name in files if name.lower().endswith(".png")]
    # Those in a folder of that name last: they win over the photo of the same name.
    pngs = {safe_stem(n): n for n in sorted(pngs, key=lambda n: _folder(n) == "panoptic")}
    try:
        content = json.loads(files[names[0]])
        listed = {safe_stem(one["file_name"]): one for one in content["annotations"]}
        stem = next((stem for stem in listed if stem in pngs), None)
        if stem is None:
            raise UploadError(f"None of the PNGs that {names[0]} names is there: load it too.")
        ids = rgb2id(decode_png(files[pngs[stem]], pngs[stem], "RGB"))
        labels, segments = index_segments(ids, listed[stem]["segments_info"], pngs[stem])
        names_by_id = {c["id"]: str(c["name"]) for c in content.get("categories", [])}
        class_names = {
            label: names_by_id.get(s["category_id"], f"category {s['category_id']}")
            for label, s in enumerate(segments, start=1)
        }
    except UploadError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UploadError(f"{names[0]} is no COCO panoptic JSON: {error!r}.") from error
    return pngs[stem], labels, class_names


def _folder(name: str) -> str:
    """Name of the folder that a member of a zip lies in."""
    return PurePosixPath(name).parent.name
