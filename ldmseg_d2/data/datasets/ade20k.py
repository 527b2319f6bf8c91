"""ADE20K, 150 classes (MIT scene parsing): from its own PNGs to COCO panoptic format.

Files, names and categories are those of Mask2Former's layout:
https://github.com/facebookresearch/Mask2Former/blob/main/datasets/README.md
The instance PNGs are described at
https://github.com/CSAILVision/placeschallenge/tree/master/instancesegmentation
"""

import logging
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data.datasets.builtin_meta import ADE20K_SEM_SEG_CATEGORIES
from PIL import Image

from ..annotations import read_gray_png, read_id_png
from .panoptic_files import (
    check_labels,
    common_stems,
    map_in_order,
    segment_entries,
    write_ids,
    write_split,
)
from .register_panoptic import register_panoptic_dataset

logger = logging.getLogger(__name__)

FOLDER = "ADEChallengeData2016"
HOW_TO_MAKE = "python tools/prepare_dataset.py ade20k --root $DETECTRON2_DATASETS"
SPLITS = {"train": "training", "val": "validation"}
NUM_CLASSES = 150
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
    """Registers `ade20k_panoptic_{train,val}` below DETECTRON2_DATASETS; reads no file.

    Detectron2 registers `ade20k_sem_seg_{train,val}` of the same folder itself.
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
        classes, numbers: integers HxW, the instance PNG's R (1..100, 0 is no instance) and G.

    Returns:
        Ids (int32 HxW, 0 void; 1..150 stuff, 256 and more things) and `segment_entries`.
    """
    ids = np.where(classes > 0, _THING_LABEL[classes] * 256 + numbers, _STUFF_ID[labels])
    categories = {i: (i if i < 256 else i // 256) - 1 for i in np.unique(ids).tolist()}
    return ids.astype(np.int32), segment_entries(ids, categories)


def convert_ade20k(root: str, *, semantic_only: bool = False, num_workers: int = 1) -> None:
    """Converts `root/ADEChallengeData2016`, which holds what MIT's two archives unpack to.

    Reads `images/`, `annotations/` and `annotations_instance/`, each with `training/` and
    `validation/`. Writes `annotations_detectron2/` (classes 0..149, 255 "other"), and unless
    `semantic_only`, `ade20k_panoptic_{split}/` (id PNGs) and last `ade20k_panoptic_{split}.json`.
    `semantic_only` does without annotations_instance, and serves `ade20k_sem_seg_*` alone.
    """
    folder = Path(root) / FOLDER
    kinds = {"images": (".jpg",), "annotations": (".png",), "annotations_instance": (".png",)}
    if semantic_only:
        del kinds["annotations_instance"]
    hint = (
        "unpack ADEChallengeData2016.zip and annotations_instance.tar (not with --semantic-only) "
        f"of http://sceneparsing.csail.mit.edu in {folder.parent}, so that they fill {folder}"
    )
    stems = {
        split: list(common_stems({folder / k / name: kinds[k] for k in kinds}, hint))
        for split, name in SPLITS.items()
    }
    for split in SPLITS:
        (folder / "annotations_detectron2" / SPLITS[split]).mkdir(parents=True, exist_ok=True)
        convert = partial(_convert_picture, folder, split, semantic_only)
        if semantic_only:
            list(map_in_order(convert, stems[split], num_workers))
        else:
            name = f"ade20k_panoptic_{split}"
            (folder / name).mkdir(exist_ok=True)
            write_split(
                folder / f"{name}.json",
                convert,
                stems[split],
                categories=ADE20K_CATEGORIES,
                num_workers=num_workers,
            )
        logger.info("ade20k %s: %d pictures", split, len(stems[split]))


def _convert_picture(
    folder: Path, split: str, semantic_only: bool, stem: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Writes a picture's PNGs; returns its two entries of the JSON."""
    directory, name = SPLITS[split], f"{stem}.png"
    path = folder / "annotations" / directory / name
    photo = folder / "images" / directory / f"{stem}.jpg"
    labels = read_gray_png(path, "semantic PNG")
    height, width = check_labels(labels, path, photo, NUM_CLASSES, "0..150, 0 for other")
    # 0 becomes 255 by wrapping around.
    shifted = (labels - 1).astype(np.uint8)
    Image.fromarray(shifted).save(folder / "annotations_detectron2" / directory / name)
    image = {"id": stem, "file_name": f"{stem}.jpg", "height": height, "width": width}
    annotation: dict[str, Any] = {"image_id": stem, "file_name": name}
    if not semantic_only:
        path = folder / "annotations_instance" / directory / name
        channels = read_id_png(path)
        classes, numbers = channels & 255, channels >> 8 & 255
        check_labels(classes, path, photo, len(THING_LABELS), "R is the instance's class, 0..100")
        ids, annotation["segments_info"] = merge_annotations(labels, classes, numbers)
        write_ids(folder / f"ade20k_panoptic_{split}" / name, ids)
    return image, annotation
