"""Generated mosaics: pictures with an exact number of segments, to see how many a model can hold.

A mosaic is a Voronoi diagram of jittered grid points in which every cell is a segment with a colour
of its own. There are no classes and no void.
"""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .builtin import register_class_agnostic

__all__ = ["generate_mosaic", "log_uniform_counts", "register_mosaics", "write_mosaics"]

logger = logging.getLogger(__name__)

# Raise it with any change to a picture: files of another version are not reused.
GENERATOR_VERSION = 1
# Pixels of a picture for each segment, at least: smaller cells could have none.
MIN_PIXELS_A_SEGMENT = 9
JITTER = 0.3  # of a grid cell, to each side
NOISE = 6.0  # standard deviation of a pixel's colour, of 255
# Steps of the three-dimensional additive recurrence whose points keep their distance (Roberts,
# https://extremelearning.com.au/unreasonable-effectiveness-of-quasirandom-sequences/).
COLOUR_STEPS = 1.2207440846057596 ** -np.arange(1.0, 4.0)


def generate_mosaic(
    *, seed: int, index: int, num_segments: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws mosaic number `index` of the stream `seed`.

    Args:
        seed, index: 0 or more.
        num_segments: K, 1 or more, at most size^2 / 9.
        size: side of the square picture, pixels.

    Returns:
        The photo (size, size, 3) uint8 RGB, and ids (size, size) int64, each of 1..K present.

    Raises:
        ValueError: more segments than fit.

    Example:
        >>> photo, ids = generate_mosaic(seed=0, index=0, num_segments=20, size=32)
        >>> len(np.unique(ids))
        20
    """
    if not 1 <= num_segments <= size**2 // MIN_PIXELS_A_SEGMENT:
        raise ValueError(
            f"{num_segments} segments do not fit a mosaic of {size}x{size} pixels: allowed are "
            f"1..{size**2 // MIN_PIXELS_A_SEGMENT}"
        )
    rng = np.random.default_rng([seed, index])
    side = int(np.ceil(np.sqrt(num_segments)))
    cells = rng.permutation(side**2)[:num_segments]
    points = np.stack([cells // side, cells % side], axis=1) + 0.5  # [K, 2] in grid cells
    points += rng.uniform(-JITTER, JITTER, points.shape)
    axis = (np.arange(size) + 0.5) * side / size
    pixels = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    nearest = ((pixels - points) ** 2).sum(axis=-1).argmin(axis=1).reshape(size, size)
    # The pixel of each point is its own, also where a neighbour's point shares most of it.
    rows, columns = (points * size / side).astype(int).T
    nearest[rows, columns] = np.arange(num_segments)
    colours = (rng.random(3) + np.outer(rng.permutation(num_segments), COLOUR_STEPS)) % 1.0
    photo = 20 + 215 * colours[nearest] + rng.normal(0, NOISE, (size, size, 3))
    return photo.clip(0, 255).astype(np.uint8), nearest.astype(np.int64) + 1


def log_uniform_counts(num: int, least: int, most: int, *, seed: int) -> list[int]:
    """Numbers of segments in least..most, uniform in their logarithm."""
    rng = np.random.default_rng([seed, least, most])
    values = np.exp(rng.uniform(np.log(least), np.log(most + 1), num))
    return np.clip(values.astype(int), least, most).tolist()


def write_mosaics(root: str | os.PathLike, counts: Sequence[int], *, size: int, seed: int) -> Path:
    """Writes photos to `root`/photos and id PNGs (id = R + 256 G) to `root`/panoptic.

    Args:
        root: folder, made where missing.
        counts: number of segments of each picture.
        size, seed: see `generate_mosaic`.

    Returns:
        `root`. Pictures that are there with the same arguments are left as they are.

    Raises:
        FileExistsError: if pictures with other arguments are there.
    """
    root = Path(root)
    info = {"version": GENERATOR_VERSION, "size": size, "seed": seed, "counts": list(counts)}
    info_path = root / "mosaics.json"
    if info_path.is_file():
        if json.loads(info_path.read_text()) != info:
            raise FileExistsError(
                f"{root} holds mosaics with another size, seed or number of segments: delete it or "
                "choose another folder"
            )
        return root
    for folder in (root / "photos", root / "panoptic"):
        folder.mkdir(parents=True, exist_ok=True)
        # Of a run that was interrupted, perhaps with other arguments.
        for stale in folder.glob("*.png"):
            stale.unlink()
    for index, count in enumerate(counts):
        photo, ids = generate_mosaic(seed=seed, index=index, num_segments=count, size=size)
        encoded = np.stack([ids % 256, ids // 256, np.zeros_like(ids)], axis=-1).astype(np.uint8)
        name = f"{index:06d}.png"
        Image.fromarray(photo).save(root / "photos" / name, compress_level=1)
        Image.fromarray(encoded).save(root / "panoptic" / name, compress_level=1)
    # Last: with it the folder is complete.
    temporary = info_path.with_suffix(".tmp")
    temporary.write_text(json.dumps(info))
    os.replace(temporary, info_path)
    logger.info("wrote %d mosaics to %s", len(counts), root)
    return root


def register_mosaics(name: str, root: str | os.PathLike) -> None:
    """Registers what `write_mosaics` wrote: a data set without classes."""
    root = Path(root)
    register_class_agnostic(
        name, image_root=str(root / "photos"), panoptic_root=str(root / "panoptic")
    )
