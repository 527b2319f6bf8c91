"""Reads photos and annotation PNGs, and relabels the segments of one picture.

Everything here works on numpy arrays of one picture; `dataset_mapper.py` puts the pieces together.
Segment ids of a data set may be as large as 2^24 - 1, while Detectron2's transforms are exact for
uint8 only: for other types they resize with `torch.nn.functional.interpolate`, whose "nearest"
knows no int32 and rounds down, half a pixel away from PIL's. Hence `index_segments` before the
transforms and `split_bytes` around them.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from PIL import Image

__all__ = [
    "index_segments",
    "join_bytes",
    "keep_segments",
    "read_gray_png",
    "read_id_png",
    "read_photo",
    "split_bytes",
]

# The largest label that fits one uint8 channel. 255 itself is left out because augmentations that
# pad (T.FixedSizeCrop) fill segmentations with 255, which must not look like a segment.
MAX_BYTE_LABEL = 254


@contextmanager
def _naming(path: str, what: str) -> Iterator[None]:
    """Turns whatever a decoder raises into one error that names the file."""
    try:
        yield
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


def read_photo(path: str, image_format: str = "RGB") -> np.ndarray:
    """Reads a photo, turned upright by its EXIF orientation.

    Args:
        path: a JPEG, PNG or whatever else PIL reads.
        image_format: order of the channels, "RGB" or "BGR".

    Returns:
        uint8 HxWx3.

    Raises:
        FileNotFoundError, ValueError: naming the path, if it is missing or damaged.
    """
    with _naming(path, "photo"):
        return detection_utils.read_image(path, format=image_format)


def read_id_png(path: str) -> np.ndarray:
    """Reads a COCO panoptic PNG: id = R + 256 G + 65536 B.

    Returns:
        int32 HxW, ids in 0..2^24 - 1; 0 is void.

    Raises:
        FileNotFoundError, ValueError: naming the path, if it is missing, damaged or not RGB.
    """
    with _naming(path, "panoptic PNG"), PathManager.open(path, "rb") as file:
        image = Image.open(file)
        mode, pixels = image.mode, np.asarray(image)
    if mode != "RGB":
        raise ValueError(
            f"panoptic PNG {path} has PIL mode {mode!r}, expected 'RGB' with "
            "id = R + 256 G + 65536 B; panopticapi.utils.id2rgb makes such a picture from ids"
        )
    return join_bytes(pixels)


def read_gray_png(path: str, what: str) -> np.ndarray:
    """Reads a single-channel PNG: semantic classes (uint8) or depth (uint16).

    Args:
        path: the file.
        what: what it is, for the error messages, e.g. "depth PNG".

    Returns:
        int32 HxW.

    Raises:
        FileNotFoundError, ValueError: naming the path, if it is missing, damaged or has channels.
    """
    with _naming(path, what), PathManager.open(path, "rb") as file:
        pixels = np.asarray(Image.open(file))
    if pixels.ndim != 2:
        raise ValueError(f"{what} {path} has shape {pixels.shape}, expected one channel (HxW)")
    return pixels.astype(np.int32)


def split_bytes(values: np.ndarray) -> np.ndarray:
    """Splits integers into bytes, lowest first, as COCO's panoptic PNGs do.

    Args:
        values: integers HxW, 0..2^24 - 1.

    Returns:
        uint8 HxWx3: any geometric transform that is exact for a uint8 picture is exact for it.
    """
    values = values.astype(np.uint32)
    return np.stack([values & 255, (values >> 8) & 255, values >> 16], axis=-1).astype(np.uint8)


def join_bytes(pixels: np.ndarray) -> np.ndarray:
    """The inverse of `split_bytes`: uint8 HxWx3 to int32 HxW."""
    return (
        pixels[..., 0].astype(np.int32)
        + (pixels[..., 1].astype(np.int32) << 8)
        + (pixels[..., 2].astype(np.int32) << 16)
    )


def index_segments(
    id_map: np.ndarray, segments_info: list[dict[str, Any]] | None, path: str
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Replaces a picture's ids by 1..N, and checks that they are those of `segments_info`.

    Args:
        id_map: int32 HxW, 0 is void.
        segments_info: the picture's segments, each with `id`; the i-th becomes label i + 1.
            None (class-agnostic data): every id above 0 is a thing of category 0.
        path: the id map's file, for the error messages.

    Returns:
        Labels (uint8 HxW where N <= 254, else int32 HxW) and the list of N segments.

    Raises:
        ValueError: if ids are repeated, not positive, missing in the map or in the list.
    """
    # Few runs, many pixels: sorting and looking up run values is much faster than pixels.
    flat = np.ascontiguousarray(id_map).reshape(-1)
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(starts, append=flat.size)
    run_ids = flat[starts]
    found, inverse = np.unique(run_ids, return_inverse=True)
    if segments_info is None:
        segments_info = [
            {"id": int(i), "category_id": 0, "isthing": True} for i in found.tolist() if i
        ]
    else:
        _check_ids(set(found.tolist()) - {0}, [int(s["id"]) for s in segments_info], path)
    label_of_id = {int(s["id"]): i for i, s in enumerate(segments_info, start=1)}
    dtype = np.uint8 if len(segments_info) <= MAX_BYTE_LABEL else np.int32
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
            f"ids {_few(only_png)} are in the PNG but not in segments_info "
            f"(segments_info has {_few(sorted(in_json))}, the PNG {_few(sorted(in_png))}). "
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
        segments: the N segments, `segments[i]` for label i + 1: `category_id`, and optionally
            `isthing` (True where it is missing) and `iscrowd`.
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
