"""Registers the data sets that this package knows under DETECTRON2_DATASETS.

COCO and ADE20K's semantic maps keep the names that Detectron2 itself registers at import;
`load_dataset_dicts` completes their dicts.
"""

import os
from typing import Any

from ..custom import register_custom_folders
from .ade20k import register_ade20k
from .camvid import register_camvid
from .cityscapes import register_cityscapes
from .panoptic_files import PHOTO_SUFFIXES, common_stems
from .register_panoptic import register_loader
from .scenes import register_scenes

SEGMENT_CATEGORIES = [{"id": 1, "name": "segment", "isthing": 1, "color": [220, 20, 60]}]


def datasets_root() -> str:
    """The folder of all data sets: DETECTRON2_DATASETS, else ./datasets, as in Detectron2."""
    return os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))


def register_all(root: str) -> None:
    """Registers scenes, CamVid, ADE20K, Cityscapes, the COCO sample, and your own data.

    Of the files in `root`, only the `dataset.json` of your own data are read. Called again, it
    replaces what it registered before.
    """
    register_scenes(root)
    register_scenes(root, name="scenes128", size=128)
    for register in (register_camvid, register_ade20k, register_cityscapes):
        register(root)
    sample = os.path.join(root, "coco", "class_agnostic")
    register_class_agnostic(
        "coco_class_agnostic_sample",
        image_root=os.path.join(sample, "images"),
        panoptic_root=os.path.join(sample, "panoptic"),
    )
    register_custom_folders(root, overwrite=True)


def load_class_agnostic(image_root: str, panoptic_root: str) -> list[dict[str, Any]]:
    """Lists photos (JPEG or PNG) with id PNGs of the same name, sorted; without classes and JSON.

    `image_id` is the name's number where it is one, else the name.
    """
    pairs = common_stems(
        {image_root: PHOTO_SUFFIXES, panoptic_root: (".png",)},
        f"expected photos in {image_root} and, with the same names, id PNGs in {panoptic_root}",
    )
    return [
        {
            "file_name": str(photo),
            "image_id": int(stem) if stem.isdigit() else stem,
            "pan_seg_file_name": str(ids),
        }
        for stem, (photo, ids) in pairs.items()
    ]


def register_class_agnostic(name: str, *, image_root: str, panoptic_root: str) -> None:
    """Registers photos and id PNGs without classes, evaluator type "class_agnostic_panoptic"."""
    register_loader(
        name,
        lambda: load_class_agnostic(image_root, panoptic_root),
        categories=SEGMENT_CATEGORIES,
        image_root=image_root,
        panoptic_root=panoptic_root,
        evaluator_type="class_agnostic_panoptic",
    )
