"""The one place that opens photos, segment PNGs, semantic PNGs and depth PNGs.

Also the relabelling of one picture's segments. Ids of a data set go up to 2^24 - 1, while
Detectron2's transforms are exact for uint8 only (for other types "nearest" rounds down, half a
pixel away from PIL's): hence `index_segments` before the transforms and `split_bytes` around them.
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from PIL import Image


@contextmanager
def _opened(path: str | os.PathLike, what: str) -> Iterator[Image]:
    """Opens a picture; whatever a decoder raises becomes one error that names the file.

    Pillow's own limit, `Image.MAX_IMAGE_PIXELS`, refuses pictures that are too large.
    """
    path = os.fspath(path)
    try:
        with PathManager.open(path, "rb") as file, Image.open(file) as image:
            yield image
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{what} {path} does not exist; is the data set complete under DETECTRON2_DATASETS?"
        ) from error
    # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
    except Exception as error:
        raise ValueError(
            f"{what} {path} cannot be read ({type(error).__name__}: {error}); "
            "the file is damaged or incomplete: copy or make it again"
        ) from error


def read_photo(path: str | os.PathLike, image_format: str = "RGB") -> np.ndarray:
    """Reads a photo as uint8 HxWx3, "RGB" or "BGR", turned upright by its EXIF orientation.

    Missing: FileNotFoundError, damaged: ValueError, both naming the file; so do all readers here.
    """
    with _opened(path, "photo") as image:
        image = detection_utils._apply_exif_orientation(image)
        return np.array(detection_utils.convert_PIL_to_numpy(image, image_format))


def read_mask(
    path: str | os.PathLike, what: str = "mask", *, colour: bool, gray: bool = True
) -> np.ndarray:
    """Reads integers, int32 HxW: gray values, palette indices, or R + 256 G + 65536 B.

    `what` it is, e.g. "depth PNG", is for the messages. ValueError for RGB pictures (ids) unless
    `colour`, and for pictures of one channel unless `gray`.
    """
    with _opened(path, what) as image:
        mode, pixels = image.mode, np.array(image)
    if gray and pixels.ndim == 2 and mode != "F":
        return pixels.astype(np.int32)
    if colour and mode == "RGB":
        return join_bytes(pixels)
    allowed = ["one channel (gray, 8 or 16 bit)"] * gray
    allowed += ["'RGB' with id = R + 256 G + 65536 B (panopticapi.utils.id2rgb)"] * colour
    raise ValueError(
        f"{what} {os.fspath(path)} has PIL mode {mode!r}, expected {' or '.join(allowed)}"
    )


def read_id_png(path: str | os.PathLike) -> np.ndarray:
    """Reads a COCO panoptic PNG, id = R + 256 G + 65536 B, as int32 HxW; errors: `read_mask`."""
    return read_mask(path, "panoptic PNG", colour=True, gray=False)


def read_gray_png(path: str | os.PathLike, what: str) -> np.ndarray:
    """Reads semantic classes (uint8) or depth (uint16) as int32 HxW; errors: `read_mask`."""
    return read_mask(path, what, colour=False)


def split_bytes(values: np.ndarray) -> np.ndarray:
    """Splits integers HxW, 0..2^24 - 1, into uint8 HxWx3, lowest first: COCO's panoptic PNGs.

    Any geometric transform that is exact for a uint8 picture is exact for the result.
    """
    values = values.astype(np.uint32)
    return np.stack([values & 255, (values >> 8) & 255, values >> 16], axis=-1).astype(np.uint8)


def join_bytes(pixels: np.ndarray) -> np.ndarray:
    """The inverse of `split_bytes`: uint8 HxWx3 to int32 HxW."""
    r, g, b = (pixels[..., channel].astype(np.int32) for channel in range(3))
    return r + (g << 8) + (b << 16)


def index_segments(
    id_map: np.ndarray, segments_info: list[dict[str, Any]] | None, path: str
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Replaces a picture's ids by 1..N, and checks that they are those of `segments_info`.

    Args:
        id_map: int32 HxW, 0 is void.
        segments_info: the picture's segments, each with `id`; the i-th becomes label i + 1.
            None (class-agnostic data): every id above 0 is a thing of category 0.
        path: of the id map, for the ValueError about ids that are not the same in both.

    Returns:
        Labels (uint8 HxW where N <= 255, else int32 HxW) and the list of N segments.
    """
    # Few runs, many pixels: sorting and looking up run values is much faster than pixels.
    flat = np.ascontiguousarray(id_map).reshape(-1)
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(starts, append=flat.size)
    found, inverse = np.unique(flat[starts], return_inverse=True)
    if segments_info is None:
        segments_info = [
            {"id": int(i), "category_id": 0, "isthing": True} for i in found.tolist() if i
        ]
    else:
        _check_ids(set(found.tolist()) - {0}, [int(s["id"]) for s in segments_info], path)
    label_of_id = {int(s["id"]): i for i, s in enumerate(segments_info, start=1)}
    dtype = np.uint8 if len(segments_info) <= 255 else np.int32
    labels = np.array([label_of_id.get(i, 0) for i in found.tolist()], dtype=dtype)
    return np.repeat(labels[inverse.reshape(-1)], lengths).reshape(id_map.shape), segments_info


def _check_ids(in_png: set[int], in_json: list[int], path: str) -> None:
    """Raises ValueError unless both hold the same ids."""
    wrong = sorted(i for i, number in Counter(in_json).items() if i <= 0 or number > 1)
    if wrong:
        raise ValueError(
            f"segments_info of {path} holds ids {wrong} that are not positive or not unique; "
            "0 is void: give every segment an id of its own above 0"
        )
    only_json = sorted(set(in_json) - in_png)
    only_png = sorted(in_png - set(in_json))
    if only_json or only_png:
        raise ValueError(
            f"{path} does not match its segments_info: "
            f"ids {_few(only_json)} are in segments_info but not in the PNG, "
            f"ids {_few(only_png)} are in the PNG but not in segments_info. "
            "Either the JSON belongs to another PNG, or the PNG was saved lossily or with a "
            "palette: write both again, e.g. with panopticapi's converters"
        )


def _few(ids: list[int]) -> str:
    """Prints at most ten ids."""
    return str(ids) if len(ids) <= 10 else f"[{', '.join(map(str, ids[:10]))}, ... {len(ids)} ids]"


def keep_segments(
    labels: np.ndarray, segments: list[dict[str, Any]], min_area: int
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Drops crowds and small segments to void and numbers the others 1..K, in the same order.

    Args:
        labels: integers HxW in 0..N, 0 is void.
        segments: of label i + 1 at i: `category_id`, perhaps `isthing` (else True), `iscrowd`.
        min_area: pixels that a segment must have; 1 or less: every visible one is kept.

    Returns:
        Segment ids (int64 HxW) and their segments_info: `id`, `category_id`, `isthing`, `area`.
    """
    areas = np.bincount(labels.reshape(-1), minlength=len(segments) + 1).tolist()
    new_id = np.zeros(len(segments) + 1, dtype=np.int64)
    kept = []
    for label, segment in enumerate(segments, start=1):
        if areas[label] < max(min_area, 1) or segment.get("iscrowd", 0):
            continue
        new_id[label] = len(kept) + 1
        kept.append(
            {
                "id": len(kept) + 1,
                "category_id": int(segment["category_id"]),
                "isthing": bool(segment.get("isthing", True)),
                "area": areas[label],
            }
        )
    return new_id[labels], kept
