"""Generated scenes: a small panoptic data set with depth that anyone can make offline.

`generate_scene` draws one picture, `write_scenes` writes a split, `register_scenes` registers both.
What is where is in `scenes_layout.py`, shapes in `scenes_shapes.py`, pixels in `scenes_render.py`.
"""

import json
import logging
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..annotations import split_bytes
from .panoptic_files import segment_entries, write_split
from .register_panoptic import IGNORE_LABEL, register_panoptic_dataset, split_folders
from .scenes_layout import sample_layout
from .scenes_render import STUFF, min_area, render
from .scenes_shapes import Draws

logger = logging.getLogger(__name__)

# Raise it with any change to a picture or a label: files of another version are not reused.
GENERATOR_VERSION = 1
MIN_SIZE = 64
DEPTH_SCALE = 256.0  # depth PNG value per metre, as in KITTI
SPLITS = ("train", "val")
FOLDERS = ("", "panoptic_", "semantic_", "depth_")

SCENES_CATEGORIES: list[dict[str, Any]] = [
    {"id": 1, "name": "person", "isthing": 1, "color": [220, 20, 60]},
    {"id": 2, "name": "car", "isthing": 1, "color": [0, 60, 200]},
    {"id": 3, "name": "house", "isthing": 1, "color": [230, 150, 60]},
    {"id": 4, "name": "tree", "isthing": 1, "color": [20, 110, 40]},
    {"id": 5, "name": "cow", "isthing": 1, "color": [150, 90, 60]},
    {"id": 6, "name": "balloon", "isthing": 1, "color": [200, 60, 200]},
    {"id": 7, "name": "sky", "isthing": 0, "color": [110, 180, 240]},
    {"id": 8, "name": "mountain", "isthing": 0, "color": [120, 110, 140]},
    {"id": 9, "name": "grass", "isthing": 0, "color": [140, 210, 90]},
    {"id": 10, "name": "road", "isthing": 0, "color": [90, 90, 96]},
    {"id": 11, "name": "water", "isthing": 0, "color": [40, 130, 160]},
]
_CATEGORIES = {category["name"]: category for category in SCENES_CATEGORIES}


@dataclass(frozen=True)
class Scene:
    """A picture and its labels, all of one square size."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    segment_ids: np.ndarray  # (H, W) int32; 0 is void, 1..K are the segments
    # K dicts: `id`, `category_id` (1..C), `isthing`, `iscrowd`, `area`, `bbox` (x, y, w, h)
    segments_info: list[dict[str, Any]]
    sem_seg: np.ndarray  # (H, W) uint8, category less 1; 255 is void
    depth: np.ndarray  # (H, W) float32 metres in steps of 1/256, at most 240; 0: none (sky)


def generate_scene(*, seed: int, index: int, size: int = 64) -> Scene:
    """Draws scene number `index` of the stream `seed`: the same bytes on every machine.

    The layout depends on (seed, index) alone; at another size (64 or more), only objects at the
    edge of the least visible area come or go.
    """
    draws = Draws([seed, index])
    rendered = render(sample_layout(draws), draws, size)
    depth = rendered.stuff_depth.copy()
    free = np.ones((size, size), bool)
    masks: list[tuple[np.ndarray, str, bool]] = []
    for layer in rendered.layers:
        depth[layer.visible] = layer.depth
        free &= ~layer.visible
        if layer.item.name is not None:
            masks.append((layer.visible, layer.item.name, layer.item.iscrowd))
    for i, name in enumerate(STUFF):
        mask = (rendered.stuff == i) & free
        # A sliver of stuff stays void: nothing can be drawn in its place.
        if np.count_nonzero(mask) >= min_area(size):
            masks.append((mask, name, False))

    segment_ids = np.zeros((size, size), np.int32)
    sem_seg = np.full((size, size), IGNORE_LABEL, np.uint8)
    for number, (mask, name, _) in enumerate(masks, start=1):
        segment_ids[mask] = number
        sem_seg[mask] = _CATEGORIES[name]["id"] - 1
    category_of = {i: _CATEGORIES[name]["id"] for i, (_, name, _) in enumerate(masks, start=1)}
    segments_info = segment_entries(segment_ids, category_of)
    for segment, (_, name, iscrowd) in zip(segments_info, masks):
        segment.update(isthing=_CATEGORIES[name]["isthing"], iscrowd=int(iscrowd))
    metres = depth.astype(np.float32) / np.float32(DEPTH_SCALE)
    return Scene(rendered.image, segment_ids, segments_info, sem_seg, metres)


def split_seed(seed: int, split: str) -> int:
    """The stream of a split: "train" and "val" share no scene."""
    state = np.random.SeedSequence([seed, SPLITS.index(split)]).generate_state(1, np.uint64)
    return int(state[0])


def panoptic_id(segment_id: int) -> int:
    """The 24-bit id in the PNG of segment 1..K: spread out, so that the PNG can be looked at."""
    # An odd factor permutes the residues of 2^24, so ids stay unique and 0 stays void.
    return segment_id * 0x9E3779 % (1 << 24)


def write_scenes(
    root: str | os.PathLike,
    split: str,
    *,
    num_images: int,
    size: int = 64,
    seed: int,
    num_workers: int = 1,
    overwrite: bool = False,
) -> Path:
    """Writes a split in COCO panoptic format; returns the path of the JSON.

    Under `root`, files 000000000000.png and so on in `<split>/` (photos), `panoptic_<split>/`
    (ids, R + 256 G + 65536 B), `semantic_<split>/` (uint8, 255 ignored), `depth_<split>/` (uint16,
    metres x 256, 0 invalid), and `panoptic_<split>.json`, last: with it the split is complete. The
    files do not depend on the number of workers.

    A split that was made with the same arguments is left as it is; one that was made with others
    is a FileExistsError unless `overwrite`.
    """
    if size < MIN_SIZE:
        raise ValueError(
            f"size is {size} pixels; scenes need {MIN_SIZE} or more: below it a person at the "
            "usual distance has too few pixels for a segment"
        )
    info = {
        "description": "Generated scenes of ldmseg_d2",
        "version": GENERATOR_VERSION,
        "split": split,
        "seed": seed,
        "size": size,
        "num_images": num_images,
    }
    json_path = Path(root) / f"panoptic_{split}.json"
    if json_path.is_file() and not overwrite:
        there = json.loads(json_path.read_text()).get("info")
        if there == info:
            logger.info("%s is there already, with the same arguments: nothing to do", json_path)
            return json_path
        raise FileExistsError(
            f"{json_path} is there with {there}; asked for is {info}. "
            "Pass overwrite=True (--overwrite) to replace it, or choose another folder."
        )
    json_path.unlink(missing_ok=True)
    folders = [Path(root) / (prefix + split) for prefix in FOLDERS]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob("[0-9]" * 12 + ".png"):
            stale.unlink()
    write_split(
        json_path,
        partial(_write_scene, folders, split_seed(seed, split), size),
        list(range(num_images)),
        categories=SCENES_CATEGORIES,
        num_workers=num_workers,
        info=info,
    )
    logger.info("wrote %d pictures and %s", num_images, json_path)
    return json_path


def _write_scene(
    folders: list[Path], stream: int, size: int, index: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Writes the four PNGs of a scene; returns its two entries of the JSON."""
    scene = generate_scene(seed=stream, index=index, size=size)
    ids = np.array([panoptic_id(k) for k in range(len(scene.segments_info) + 1)], np.int64)
    encoded = split_bytes(ids[scene.segment_ids])
    depth = (scene.depth * np.float32(DEPTH_SCALE)).astype(np.uint16)
    name = f"{index:012d}.png"
    # cv2 writes channels as B, G, R.
    contents = (scene.image[..., ::-1], encoded[..., ::-1], scene.sem_seg, depth)
    for folder, content in zip(folders, contents):
        if not cv2.imwrite(str(folder / name), content, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
            raise OSError(f"could not write {folder / name}")
    keys = ("category_id", "iscrowd", "area", "bbox")
    segments = [{"id": panoptic_id(s["id"])} | {k: s[k] for k in keys} for s in scene.segments_info]
    image = {"id": index, "file_name": name, "height": size, "width": size}
    return image, {"image_id": index, "file_name": name, "segments_info": segments}


def register_scenes(root: str, *, name: str = "scenes", size: int = MIN_SIZE) -> None:
    """Registers `<name>_train` and `<name>_val` below `root`; reads no file.

    `size` is that of the command in the error for missing files.
    """
    for split in SPLITS:
        register_panoptic_dataset(
            f"{name}_{split}",
            categories=SCENES_CATEGORIES,
            **split_folders(os.path.join(root, name), split, depth=True),
            evaluator_type="scenes_panoptic",
            how_to_make="python tools/prepare_dataset.py scenes "
            f"--root {root} --name {name} --size {size}",
            depth_scale=DEPTH_SCALE,
        )
