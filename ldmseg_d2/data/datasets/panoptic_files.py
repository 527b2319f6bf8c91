"""What all conversions to COCO panoptic format share: pairing files, segments, PNGs, the JSON."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.utils.logger import log_every_n_seconds
from PIL import Image
from scipy.ndimage import find_objects

from ..annotations import read_photo, split_bytes

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")


def common_stems(
    folders: Mapping[str | Path, tuple[str, ...]], hint: str
) -> dict[str, tuple[Path, ...]]:
    """The files of several folders (each with its suffixes, lower case) that belong together.

    Returns:
        By name without suffix, sorted: a file of each folder, in their order. FileNotFoundError,
        which ends in `hint`, if a folder is missing or empty, or a file has no partner.
    """
    found: dict[Path, dict[str, Path]] = {}
    for folder, suffixes in folders.items():
        folder = Path(folder)
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        found[folder] = {p.stem: p for p in files if p.suffix.lower() in suffixes}
        if not found[folder]:
            raise FileNotFoundError(
                f"{folder} does not exist or holds no {'/'.join(suffixes)} files: {hint}"
            )
    stems = set.intersection(*map(set, found.values()))
    for files in found.values():
        alone = sorted(files.keys() - stems)
        if alone:
            lacking = next(f for f in found if alone[0] not in found[f])
            raise FileNotFoundError(
                f"{files[alone[0]]} has no partner of the same name in {lacking} "
                f"({len(alone)} files like that): {hint}"
            )
    return {stem: tuple(files[stem] for files in found.values()) for stem in sorted(stems)}


def check_labels(
    values: np.ndarray, path: Path, photo: Path, largest: int, meaning: str
) -> tuple[int, int]:
    """Height, width; ValueError unless labels are 0..largest and have the photo's size."""
    if values.max() > largest:
        raise ValueError(f"{path} holds {int(values.max())}, expected at most {largest}: {meaning}")
    height, width = read_photo(photo).shape[:2]
    if values.shape != (height, width):
        raise ValueError(
            f"{path} is {values.shape[1]}x{values.shape[0]} pixels, but {photo} is {width}x{height}"
        )
    return height, width


def segment_entries(ids: np.ndarray, categories: Mapping[int, int]) -> list[dict[str, Any]]:
    """COCO's segments_info of an id map: `id`, `category_id`, `area`, `bbox`, `iscrowd` (0).

    Args:
        ids: integers HxW, 0 is void.
        categories: the category of every id that may occur, in the order of the result.
    """
    found, index, areas = np.unique(ids, return_inverse=True, return_counts=True)
    boxes = find_objects(index.reshape(ids.shape) + 1)
    place = {int(value): k for k, value in enumerate(found) if value}
    entries = []
    for value in filter(place.__contains__, categories):
        ys, xs = boxes[place[value]]
        entries.append(
            {
                "id": int(value),
                "category_id": int(categories[value]),
                "area": int(areas[place[value]]),
                "bbox": [xs.start, ys.start, xs.stop - xs.start, ys.stop - ys.start],
                "iscrowd": 0,
            }
        )
    return entries


def write_ids(path: Path, ids: np.ndarray) -> None:
    """Writes an id map HxW as a COCO panoptic PNG."""
    Image.fromarray(split_bytes(ids)).save(path)


def write_json(path: Path, content: dict[str, Any], **options: Any) -> None:
    """Writes JSON: whole, or not at all; `options` of `json.dumps`."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, **options), encoding="utf-8")
    os.replace(partial, path)


def write_split(
    json_path: Path,
    convert: Callable[[Any], tuple[dict[str, Any], dict[str, Any]]],
    items: list[Any],
    *,
    categories: list[dict[str, Any]],
    num_workers: int = 1,
    **content: Any,
) -> None:
    """Converts each item to its entries of `images` and `annotations`, and last writes the JSON.

    An older JSON does not survive beside new PNGs if this is interrupted.
    """
    json_path.unlink(missing_ok=True)
    images, annotations = zip(*map_in_order(convert, items, num_workers))
    content |= {"images": images, "annotations": annotations, "categories": categories}
    write_json(json_path, content)


def map_in_order(
    function: Callable[[Any], Any], items: list[Any], num_workers: int
) -> Iterator[Any]:
    """Yields function(item) for each item, in order, from so many processes; logs how far it is."""
    if num_workers <= 1:
        yield from _logged(map(function, items), len(items))
        return
    with ProcessPoolExecutor(num_workers) as pool:
        yield from _logged(pool.map(function, items, chunksize=16), len(items))


def _logged(results: Iterable[Any], total: int) -> Iterator[Any]:
    for done, result in enumerate(results, start=1):
        yield result
        log_every_n_seconds(logging.INFO, f"{done} of {total} pictures", n=10, name=__name__)
