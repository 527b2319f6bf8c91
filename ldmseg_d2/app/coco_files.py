"""Saves a session as COCO panoptic JSON and PNG, in one zip with its photo, and reads it back.

The zip is a data set of one photo, as :func:`register_panoptic_dataset` and panopticapi read it::

    panoptic.json           images, annotations with segments_info, categories
    panoptic/NAME.png       ids, R + 256 G + 65536 B, 0 is empty
    images/NAME.png         the photo, at the same size
    kept/NAME.png           white where the annotator keeps pixels; not COCO's
"""

import io
import json
import os
import re
import zipfile
from typing import Any

import numpy as np
from PIL import Image

from ..data.annotations import index_segments, split_bytes
from .safe_image import (
    Limits,
    UploadError,
    check_bytes,
    decode_id_png,
    decode_mask_png,
    decode_photo,
)
from .session import Category, Session, SessionError

# Segments without a class get this one, with an id above all others.
UNNAMED = "segment"
MAX_FILES = 16


def safe_stem(file_name: str) -> str:
    """A file's name without folders and suffix, in characters that every system takes."""
    stem = os.path.splitext(re.split(r"[/\\]", file_name)[-1])[0]
    return re.sub(r"[^\w.-]+", "_", stem).strip("._")[:80] or "photo"


def save_session(session: Session) -> bytes:
    """A session's segments in COCO panoptic format.

    Returns:
        The bytes of a zip, see the module.

    Raises:
        SessionError: if there is no segment.
    """
    if not session.segment_ids():
        raise SessionError("There are no segments to save yet.")
    name = f"{session.name}.png"
    members = {
        "panoptic.json": json.dumps(_to_json(session, name), indent=1).encode(),
        f"panoptic/{name}": _png(split_bytes(session.ids)),
        f"images/{name}": _png(session.photo),
        f"kept/{name}": _png(session.given.astype(np.uint8) * 255),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, data in members.items():
            # Without the time of day: the same segments are the same bytes.
            archive.writestr(zipfile.ZipInfo(path), data, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def _png(pixels: np.ndarray) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, format="PNG", compress_level=3)
        return file.getvalue()


def _to_json(session: Session, name: str) -> dict[str, Any]:
    categories = [*session.categories]
    categories.append(Category(max((c.id for c in categories), default=0) + 1, UNNAMED, True))
    segments = []
    for segment in session.segment_ids():
        mask = session.ids == segment
        rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
        top, left = int(rows[0]), int(columns[0])
        segments.append(
            {
                "id": segment,
                "category_id": categories[session.classes.get(segment, -1)].id,
                "area": int(mask.sum()),
                "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
                "iscrowd": 0,
            }
        )
    height, width = session.ids.shape
    return {
        "info": {"description": "Annotated with the page of ldmseg_d2"},
        "images": [{"id": 1, "file_name": name, "height": height, "width": width}],
        "annotations": [{"image_id": 1, "file_name": name, "segments_info": segments}],
        "categories": [
            {"id": c.id, "name": c.name, "isthing": int(c.isthing), "color": _color(c.id)}
            for c in categories
        ],
    }


def _color(category_id: int) -> list[int]:
    """Some colour, which COCO's categories must have."""
    return [category_id * factor % 256 for factor in (89, 151, 211)]


def load_session(
    files: dict[str, bytes],
    *,
    categories: list[Category],
    current: Session | None = None,
    limits: Limits,
) -> tuple[Session, str]:
    """Read what :func:`save_session` wrote, or the JSON and PNG of any COCO panoptic annotation.

    Args:
        files: bytes by name: one zip; or a JSON, its PNG and, optionally, the photo.
        categories: the page's; classes are recognised by their names.
        current: the session that is open: its photo is used where the files hold none.
        limits: of each file, those in a zip included.

    Returns:
        The session, and a sentence about what was not taken over, or "". Where the photo is that of
        `current`, it is `current`, and can be undone.

    Raises:
        UploadError: files that are missing, damaged, too large or do not fit one another.
    """
    for name, data in files.items():
        check_bytes(data, name, limits)
    zips = [name for name in files if name.lower().endswith(".zip")]
    if zips:
        files = _unpack(zips[0], files[zips[0]], limits)
    json_name, content = _find_json(files, limits)
    annotation, ids_name = _find_annotation(content, files, json_name)
    ids = decode_id_png(files[ids_name], ids_name, limits)
    try:
        listed = annotation.get("segments_info")
        labels, segments = index_segments(ids, listed, ids_name)
        classes, unknown = _read_classes(segments, content, categories, listed is not None)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UploadError(f"{json_name} is no COCO panoptic JSON: {error}") from error
    photo_name, photo = _find_photo(files, ids_name, limits)
    if photo is None:
        if current is None:
            raise UploadError("There is no photo with these segments: open it first.")
        session = current
    else:
        session = Session(photo, safe_stem(photo_name), categories)
    if session.ids.shape != ids.shape:
        raise UploadError(
            f"{ids_name} has {ids.shape[1]} x {ids.shape[0]} pixels, but the photo has "
            f"{session.ids.shape[1]} x {session.ids.shape[0]}: they do not belong together."
        )
    kept = np.ones(ids.shape, dtype=bool)
    kept_name = _beside(files, "kept", ids_name)
    if kept_name is not None:
        kept = decode_mask_png(files[kept_name], kept_name, limits)
        if kept.shape != ids.shape:
            raise UploadError(f"{kept_name} and {ids_name} differ in size.")
    session.replace(labels, classes, kept)
    note = f"Classes unknown here became segments without one: {unknown}." if unknown else ""
    return session, note


def _unpack(name: str, data: bytes, limits: Limits) -> dict[str, bytes]:
    """The files of a zip, in memory: no path in it is ever used as a path here."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            if len(members) > MAX_FILES:
                raise UploadError(
                    f"{name} holds {len(members)} files; a saved annotation has four. Of a whole "
                    "data set, load one JSON and PNG."
                )
            # zipfile reads no more than the size that a member declares.
            large = [m.filename for m in members if m.file_size > limits.max_bytes]
            if large:
                raise UploadError(
                    f"{large[0]} in {name} has more than {limits.max_bytes / 2**20:g} MB; start "
                    "the page with a larger --max-upload-mb."
                )
            return {m.filename: archive.read(m) for m in members}
    except UploadError:
        raise
    # A damaged zip raises BadZipFile, zlib.error, NotImplementedError or RuntimeError (encrypted).
    except Exception as error:
        raise UploadError(f"{name} cannot be read as a zip: {error}") from error


def _find_json(files: dict[str, bytes], limits: Limits) -> tuple[str, dict[str, Any]]:
    names = [name for name in files if name.lower().endswith(".json")]
    if len(names) != 1:
        raise UploadError(
            "Load the zip that Save makes, or choose a COCO panoptic JSON together with its PNG "
            f"(found {len(names)} JSON files)."
        )
    try:
        content = json.loads(files[names[0]])
        if not isinstance(content["annotations"], list):
            raise TypeError("'annotations' is no list")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UploadError(f"{names[0]} is no COCO panoptic JSON: {error!r}.") from error
    return names[0], content


def _find_annotation(
    content: dict[str, Any], files: dict[str, bytes], json_name: str
) -> tuple[dict[str, Any], str]:
    """The one annotation whose PNG is there, and that PNG's key."""
    pngs = [name for name in files if name.lower().endswith(".png")]
    # Those in a folder of that name last: they win over the photo of the same name.
    pngs = {safe_stem(n): n for n in sorted(pngs, key=lambda n: _folder(n) == "panoptic")}
    for annotation in content["annotations"]:
        if isinstance(annotation, dict):
            stem = safe_stem(str(annotation.get("file_name", "")))
            if stem in pngs:
                return annotation, pngs[stem]
    raise UploadError(f"None of the PNGs that {json_name} names is among the files: load it too.")


def _find_photo(
    files: dict[str, bytes], ids_name: str, limits: Limits
) -> tuple[str, np.ndarray | None]:
    """The photo among the files, or None; a photo that must be reduced fits no segments."""
    name = _beside(files, "images", ids_name)
    if name is None:
        others = [n for n in files if n != ids_name and not n.lower().endswith((".json", ".zip"))]
        others = [n for n in others if _folder(n) != "kept"]
        if not others:
            return "", None
        name = others[0]
    photo, note = decode_photo(files[name], name, limits)
    if note:
        raise UploadError(
            f"{name} has a side of more than {limits.max_side} pixels: start the page with a "
            "larger --max-side to load its segments."
        )
    return name, photo


def _beside(files: dict[str, bytes], folder: str, ids_name: str) -> str | None:
    for name in files:
        if _folder(name) == folder and safe_stem(name) == safe_stem(ids_name):
            return name
    return None


def _folder(name: str) -> str:
    """Name of the folder that a member of a zip lies in, or ""."""
    return "/".join(["", *name.split("/")]).split("/")[-2]


def _read_classes(
    segments: list[dict[str, Any]],
    content: dict[str, Any],
    categories: list[Category],
    listed: bool,
) -> tuple[dict[int, int], str]:
    """Contiguous class of each label 1..N, by name; and the names that the page does not have."""
    if not listed:
        return {}, ""
    names = {c["id"]: str(c["name"]) for c in content.get("categories", [])}
    known = {category.name: i for i, category in enumerate(categories)}
    classes, unknown = {}, set()
    for label, segment in enumerate(segments, start=1):
        name = names.get(segment["category_id"], f"category {segment['category_id']}")
        if name in known:
            classes[label] = known[name]
        elif name != UNNAMED:
            unknown.add(name)
    return classes, ", ".join(sorted(unknown)[:10])
