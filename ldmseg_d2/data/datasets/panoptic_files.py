"""What all conversions to COCO panoptic format share: pairing files, segments, PNGs, the JSON."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from scipy.ndimage import find_objects

from ..annotations import read_photo, split_bytes

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
T = TypeVar("T")


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


def check_size(values: np.ndarray, path: Path, photo: Path) -> None:
    """Raises ValueError unless an annotation HxW has its photo's size."""
    height, width = read_photo(photo).shape[:2]
    if values.shape != (height, width):
        raise ValueError(
            f"{path} is {values.shape[1]}x{values.shape[0]} pixels, but {photo} is {width}x{height}"
        )


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
    for value in categories:
        if value in place:
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


def map_in_order(
    function: Callable[[Any], T], items: Iterable[Any], num_workers: int
) -> Iterator[T]:
    """Yields function(item) for each item, in order, from so many processes."""
    if num_workers <= 1:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(num_workers) as pool:
        yield from pool.map(function, items, chunksize=16)
