"""Generated mosaics: pictures with an exact number of segments, to see how many a model can hold.

A mosaic is a Voronoi diagram of jittered grid points in which every cell is a segment with a colour
of its own. There are no classes and no void.
"""

import json
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ldmseg_d2.data.datasets.builtin import register_class_agnostic
from ldmseg_d2.engine.reporting import write_results
from ldmseg_d2.evaluation import ClassAgnosticPanopticEvaluator
from ldmseg_d2.evaluation.class_agnostic_evaluator import class_agnostic_quality

# Data sets and their numbers of pictures.
MOSAICS = {"mosaics_train": 1500, "mosaics_val": 84}
MOST_SEGMENTS = 255
# Pixels of a picture for each segment, at least: smaller cells could have none.
MIN_PIXELS_A_SEGMENT = 9
JITTER = 0.3  # of a grid cell, to each side
NOISE = 6.0  # standard deviation of a pixel's colour, of 255
# Steps of the three-dimensional additive recurrence whose points keep their distance (Roberts,
# https://extremelearning.com.au/unreasonable-effectiveness-of-quasirandom-sequences/).
COLOUR_STEPS = 1.2207440846057596 ** -np.arange(1.0, 4.0)
# Most segments of a picture of each bin but the last, which has no limit.
EDGES = (4, 8, 16, 32, 64, 127)
COUNTS = ("1-4", "5-8", "9-16", "17-32", "33-64", "65-127", "128-")


def generate_mosaic(
    *, seed: int, index: int, num_segments: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws mosaic number `index` of the stream `seed`.

    Returns:
        The photo (size, size, 3) uint8 RGB, and ids (size, size) int64: all of 1..num_segments.
    """
    if num_segments * MIN_PIXELS_A_SEGMENT > size**2:
        raise ValueError(
            f"{num_segments} segments do not fit a mosaic of {size}x{size} pixels, which is "
            f"INPUT.LDMSEG.IMAGE_SIZE: allowed are {size**2 // MIN_PIXELS_A_SEGMENT}"
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


def prepare_mosaics(cfg: CfgNode, output: Path) -> None:
    """Write and register those of ``MOSAICS`` that a config names, without classes, in `output`.

    Numbers of segments are log-uniform in 1..255: as many pictures have 4 to 15 as 16 to 63.
    Pictures that are there with the same arguments stay; with others it raises ValueError.
    """
    size = cfg.INPUT.LDMSEG.IMAGE_SIZE
    for seed, (name, number) in enumerate(MOSAICS.items()):
        if name not in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
            continue
        info, root = {"number": number, "size": size, "seed": seed}, output / name
        path, photos, panoptic = root / "mosaics.json", root / "photos", root / "panoptic"
        if path.is_file() and json.loads(path.read_text()) != info:
            raise ValueError(f"{root} holds other mosaics than {info}: choose another --output")
        if not path.is_file():
            photos.mkdir(parents=True, exist_ok=True)
            panoptic.mkdir(exist_ok=True)
            counts = np.exp(np.linspace(0, np.log(MOST_SEGMENTS), number)).round().astype(int)
            counts = np.random.default_rng(seed).permutation(counts)
            for index, count in enumerate(counts.tolist()):
                photo, ids = generate_mosaic(seed=seed, index=index, num_segments=count, size=size)
                encoded = np.stack([ids, 0 * ids, 0 * ids], axis=-1).astype(np.uint8)
                file = f"{index:06d}.png"
                Image.fromarray(photo).save(photos / file, compress_level=1)
                Image.fromarray(encoded).save(panoptic / file, compress_level=1)
            # Last: with it the folder is complete.
            write_results(path, info)
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)
        register_class_agnostic(name, image_root=str(photos), panoptic_root=str(panoptic))


class CountsEvaluator(ClassAgnosticPanopticEvaluator):
    """Class-agnostic PQ of the pictures that have 1 to 4 segments, 5 to 8, and so on."""

    def evaluate(self) -> dict[str, dict[str, float]]:
        """``{"counts": PQ by bin}``, in percent; bins without a picture are left out."""
        bins: dict[str, list] = {}
        for truth, num_segments, ids in self.compared(self._predictions):
            label = COUNTS[np.searchsorted(EDGES, num_segments)]
            bins.setdefault(label, []).append((truth, num_segments, ids))
        return {"counts": {k: class_agnostic_quality(images)["PQ"] for k, images in bins.items()}}
