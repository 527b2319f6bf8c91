"""Registers the data sets that this package knows under DETECTRON2_DATASETS.

COCO and ADE20K's semantic maps keep the names that Detectron2 itself registers at import;
`load_dataset_dicts` completes their dicts.
"""

import os
from functools import partial
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

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


def register_all(root: str, *, overwrite: bool = False) -> None:
    """Registers scenes, CamVid, ADE20K, Cityscapes, the COCO sample, and your own data.

    Of the files in `root`, only the `dataset.json` of your own data are read. `overwrite` registers
    known names again, under this root; else they stay as they are.
    """
    sample = os.path.join(root, "coco", "class_agnostic")
    for prefix, splits, register in (
        ("scenes", ("train", "val"), partial(register_scenes, root)),
        ("scenes128", ("train", "val"), partial(register_scenes, root, name="scenes128", size=128)),
        ("camvid_panoptic", ("train", "val", "test"), partial(register_camvid, root)),
        ("ade20k_panoptic", ("train", "val"), partial(register_ade20k, root)),
        ("cityscapes_panoptic", ("train", "val"), partial(register_cityscapes, root)),
        (
            "coco_class_agnostic",
            ("sample",),
            partial(
                register_class_agnostic,
                "coco_class_agnostic_sample",
                image_root=os.path.join(sample, "images"),
                panoptic_root=os.path.join(sample, "panoptic"),
            ),
        ),
    ):
        names = [f"{prefix}_{split}" for split in splits]
        for name in names if overwrite else ():
            DatasetCatalog.pop(name, None)
            MetadataCatalog.pop(name, None)
        if not any(name in DatasetCatalog for name in names):
            register()
    register_custom_folders(root, overwrite=overwrite)


def load_class_agnostic(image_root: str, panoptic_root: str) -> list[dict[str, Any]]:
    """Lists photos (JPEG or PNG) with id PNGs of the same name, sorted; without classes and JSON.

    Dicts hold `file_name`, `image_id` (the name's number where it is one, else the name) and
    `pan_seg_file_name`.
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
