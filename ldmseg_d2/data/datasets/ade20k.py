"""ADE20K, 150 classes (MIT scene parsing): from its own PNGs to COCO panoptic format.

Files, names and categories are those of Mask2Former's layout:
https://github.com/facebookresearch/Mask2Former/blob/main/datasets/README.md
The instance PNGs are described at
https://github.com/CSAILVision/placeschallenge/tree/master/instancesegmentation
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data.datasets.builtin_meta import ADE20K_SEM_SEG_CATEGORIES
from PIL import Image
from scipy import ndimage

from ..panoptic_annotations import read_gray_png, read_id_png, split_bytes
from .register_panoptic import register_panoptic_dataset

__all__ = ["ADE20K_CATEGORIES", "convert_ade20k", "merge_annotations", "register_ade20k"]

logger = logging.getLogger(__name__)

FOLDER = "ADEChallengeData2016"
HOW_TO_MAKE = "python tools/prepare_ade20k.py --root $DETECTRON2_DATASETS"
SPLITS = {"train": "training", "val": "validation"}
NUM_CLASSES = 150
IGNORE_LABEL = 255
DOWNLOAD = {
    "images": "ADEChallengeData2016.zip",
    "annotations": "ADEChallengeData2016.zip",
    "annotations_instance": "annotations_instance.tar (or pass --semantic-only)",
}
# Labels (1..150) of the 100 classes that have instances. Class i (1..100) of the instance PNGs is
# the i-th of them: categoryMapping.txt of the challenge is in this order.
# fmt: off
THING_LABELS = (
    8, 9, 11, 13, 15, 16, 19, 20, 21, 23, 24, 25, 28, 31, 32, 33, 34, 36, 37, 38, 39, 40, 42, 43,
    44, 45, 46, 48, 50, 51, 54, 56, 57, 58, 59, 63, 65, 66, 67, 68, 70, 71, 72, 73, 74, 75, 76, 77,
    79, 81, 82, 83, 84, 86, 87, 88, 89, 90, 91, 93, 94, 96, 98, 99, 103, 104, 105, 108, 109, 111,
    112, 113, 116, 117, 119, 120, 121, 122, 124, 125, 126, 127, 128, 130, 131, 133, 134, 135, 136,
    137, 138, 139, 140, 143, 144, 145, 147, 148, 149, 150,
)
# fmt: on


def _color(index: int) -> list[int]:
    """PASCAL VOC's colour map: the index's bits, dealt to R, G and B, highest first."""
    color = [0, 0, 0]
    for bit in range(8):
        color[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return color


# The category id is the label less 1, as in Mask2Former's files; names as in Detectron2.
ADE20K_CATEGORIES: list[dict[str, Any]] = [
    {"id": i, "name": name, "isthing": int(i + 1 in THING_LABELS), "color": _color(i + 1)}
    for i, name in enumerate(ADE20K_SEM_SEG_CATEGORIES)
]
# Label and instance class to what they become; 0 is "other" and no instance.
_STUFF_ID = np.array([0] + [0 if c["isthing"] else c["id"] + 1 for c in ADE20K_CATEGORIES])
_THING_LABEL = np.array([0, *THING_LABELS])


def register_ade20k(root: str) -> None:
    """Registers `ade20k_panoptic_{train,val}`; reads no file.

    Detectron2 registers `ade20k_sem_seg_{train,val}` of the same folder itself.

    Args:
        root: DETECTRON2_DATASETS, the folder that holds ADEChallengeData2016.
    """
    folder = os.path.join(root, FOLDER)
    for split, directory in SPLITS.items():
        register_panoptic_dataset(
            f"ade20k_panoptic_{split}",
            categories=ADE20K_CATEGORIES,
            image_root=os.path.join(folder, "images", directory),
            panoptic_root=os.path.join(folder, f"ade20k_panoptic_{split}"),
            panoptic_json=os.path.join(folder, f"ade20k_panoptic_{split}.json"),
            sem_seg_root=os.path.join(folder, "annotations_detectron2", directory),
            image_suffix=".jpg",
            evaluator_type="ade20k_panoptic_seg",
            how_to_make=HOW_TO_MAKE,
        )


def merge_annotations(
    labels: np.ndarray, classes: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Paints instances over the stuff of a semantic map.

    Pixels of a thing's label without an instance become void: whose they are is not known.

    Args:
        labels: integers HxW, the semantic map: 1..150, 0 is "other".
        classes: integers HxW, the instance PNG's R: 1..100, 0 is no instance.
        numbers: integers HxW, its G: the instance's number in the picture.

    Returns:
        Ids (int32 HxW, 0 void; 1..150 stuff, 256 and more things) and COCO's segments_info: `id`,
        `category_id` (0..149), `area` (pixels), `bbox` (x, y, width, height), `iscrowd` 0.
    """
    ids = np.where(classes > 0, _THING_LABEL[classes] * 256 + numbers, _STUFF_ID[labels])
    found, inverse = np.unique(ids, return_inverse=True)
    inverse = inverse.reshape(ids.shape)
    areas = np.bincount(inverse.reshape(-1))
    segments = []
    for index, (ys, xs) in enumerate(ndimage.find_objects(inverse + 1)):
        value = int(found[index])
        if value == 0:
            continue
        segments.append(
            {
                "id": value,
                "category_id": (value if value < 256 else value // 256) - 1,
                "area": int(areas[index]),
                "bbox": [xs.start, ys.start, xs.stop - xs.start, ys.stop - ys.start],
                "iscrowd": 0,
            }
        )
    return ids.astype(np.int32), segments


def convert_ade20k(
    root: str,
    *,
    splits: Sequence[str] = tuple(SPLITS),
    semantic_only: bool = False,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Converts `root/ADEChallengeData2016`, which holds what MIT's two archives unpack to.

    Reads `images/`, `annotations/` and `annotations_instance/`, each with `training/` and
    `validation/`. Writes `annotations_detectron2/` (classes 0..149, 255 "other"), and unless
    `semantic_only`, `ade20k_panoptic_{split}/` (id PNGs) and last `ade20k_panoptic_{split}.json`,
    so that an interrupted run leaves no JSON behind.

    Args:
        root: DETECTRON2_DATASETS.
        splits: of "train" and "val".
        semantic_only: do without annotations_instance; serves `ade20k_sem_seg_*` alone.
        num_workers: processes; the files do not depend on it.
        progress: called with (pictures done, pictures), counted over all splits.

    Returns:
        Pictures written, by split.

    Raises:
        FileNotFoundError: if a folder, a photo or an annotation is missing.
        ValueError: if a split is unknown, values are out of range or sizes differ.
    """
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown or not splits:
        raise ValueError(f"splits are {list(splits)}; allowed are {list(SPLITS)}")
    folder = Path(root) / FOLDER
    stems = {split: _stems(folder, SPLITS[split], semantic_only) for split in splits}
    total = sum(map(len, stems.values()))
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    for split in splits:
        _convert_split(folder, split, stems[split], semantic_only, num_workers, step)
        logger.info("ade20k %s: %d pictures", split, len(stems[split]))
    return {split: len(stems[split]) for split in splits}


def _stems(folder: Path, directory: str, semantic_only: bool) -> list[str]:
    """Names of a split's pictures, sorted, after a check that each has all its files."""
    kinds = {"images": ".jpg", "annotations": ".png", "annotations_instance": ".png"}
    if semantic_only:
        del kinds["annotations_instance"]
    stems = {}
    for kind, suffix in kinds.items():
        place = folder / kind / directory
        stems[kind] = {p.stem for p in place.glob("*" + suffix)}
        if not stems[kind]:
            raise FileNotFoundError(
                f"{place} does not exist or holds no {suffix} files: unpack {DOWNLOAD[kind]} of "
                f"http://sceneparsing.csail.mit.edu in {folder.parent}, so that it fills {folder}"
            )
    everywhere = set.intersection(*stems.values())
    for kind, found in stems.items():
        alone = sorted(found - everywhere)
        if alone:
            lacking = next(k for k in kinds if alone[0] not in stems[k])
            raise FileNotFoundError(
                f"{folder / kind / directory / (alone[0] + kinds[kind])} has no partner of the "
                f"same name in {folder / lacking / directory} ({len(alone)} files like that): "
                f"unpack {DOWNLOAD[lacking]} again"
            )
    return sorted(everywhere)


def _convert_split(
    folder: Path,
    split: str,
    stems: list[str],
    semantic_only: bool,
    num_workers: int,
    step: Callable[[], None],
) -> None:
    json_path = folder / f"ade20k_panoptic_{split}.json"
    (folder / "annotations_detectron2" / SPLITS[split]).mkdir(parents=True, exist_ok=True)
    if not semantic_only:
        # An older JSON must not survive beside new PNGs if this run is interrupted.
        json_path.unlink(missing_ok=True)
        (folder / f"ade20k_panoptic_{split}").mkdir(exist_ok=True)
    images, annotations, painted, agreeing = [], [], 0, 0
    convert = partial(_convert_picture, folder, split, semantic_only)
    for result in _map(convert, stems, num_workers):
        images.append(result["image"])
        annotations.append(result["annotation"])
        painted += result["painted"]
        agreeing += result["agreeing"]
        step()
    if semantic_only:
        return
    if painted:
        # Both come from the same polygons: far below 1, the files do not belong together.
        share = agreeing / painted
        level = logging.WARNING if share < 0.8 else logging.INFO
        logger.log(level, "ade20k %s: semantic maps agree on %.3f of instances", split, share)
    content = {"images": images, "annotations": annotations, "categories": ADE20K_CATEGORIES}
    partial_path = json_path.with_suffix(".json.partial")
    partial_path.write_text(json.dumps(content))
    os.replace(partial_path, json_path)


def _map(convert: Callable[[str], dict], stems: list[str], num_workers: int) -> Iterator[dict]:
    """Yields the results in order."""
    if num_workers <= 1:
        yield from map(convert, stems)
        return
    with ProcessPoolExecutor(num_workers) as pool:
        yield from pool.map(convert, stems, chunksize=16)


def _convert_picture(folder: Path, split: str, semantic_only: bool, stem: str) -> dict[str, Any]:
    """Writes a picture's PNGs; returns its entries of the JSON and counts of instance pixels."""
    directory, name = SPLITS[split], f"{stem}.png"
    path = folder / "annotations" / directory / name
    labels = read_gray_png(str(path), "semantic PNG")
    photo = folder / "images" / directory / f"{stem}.jpg"
    _check(labels, path, photo, NUM_CLASSES, "annotations hold 0..150, 0 for other")
    # 0 becomes 255 by wrapping around.
    shifted = (labels - 1).astype(np.uint8)
    Image.fromarray(shifted).save(folder / "annotations_detectron2" / directory / name)
    height, width = labels.shape
    image = {"id": stem, "file_name": f"{stem}.jpg", "height": height, "width": width}
    annotation: dict[str, Any] = {"image_id": stem, "file_name": name}
    if semantic_only:
        return {"image": image, "annotation": annotation, "painted": 0, "agreeing": 0}
    path = folder / "annotations_instance" / directory / name
    channels = read_id_png(str(path))
    classes, numbers = channels & 255, channels >> 8 & 255
    _check(classes, path, photo, len(THING_LABELS), "R is the instance's class, 0..100")
    ids, annotation["segments_info"] = merge_annotations(labels, classes, numbers)
    Image.fromarray(split_bytes(ids)).save(folder / f"ade20k_panoptic_{split}" / name)
    inside = classes > 0
    return {
        "image": image,
        "annotation": annotation,
        "painted": int(inside.sum()),
        "agreeing": int((inside & (labels == _THING_LABEL[classes])).sum()),
    }


def _check(values: np.ndarray, path: Path, photo: Path, largest: int, meaning: str) -> None:
    """Raises ValueError unless values are in 0..largest and of the photo's size."""
    if values.max() > largest:
        raise ValueError(f"{path} holds {int(values.max())}, expected at most {largest}: {meaning}")
    with Image.open(photo) as picture:
        size = picture.size
    if values.shape != size[::-1]:
        raise ValueError(
            f"{path} is {values.shape[1]}x{values.shape[0]} pixels, "
            f"but {photo} is {size[0]}x{size[1]}"
        )
