"""Cityscapes, 19 classes, as cityscapesscripts' csCreatePanopticImgs writes it.

Detectron2's `cityscapes_fine_panoptic_*` read the same files, but want labelTrainIds PNGs as well,
fail where the path holds a dot, and say neither `isthing` of a segment nor, in their metadata, the
semantic class of things. https://github.com/mcordts/cityscapesScripts
"""

import os
from typing import Any

from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES

from .register_panoptic import register_panoptic_dataset

HOW_TO_MAKE = (
    "pip install cityscapesscripts && "
    "CITYSCAPES_DATASET=$DETECTRON2_DATASETS/cityscapes csCreatePanopticImgs"
)


def _photo_name(annotation: dict[str, Any]) -> str:
    """In a folder for each city. The JSON's own name is of no file: ..._gtFine_leftImg8bit.png."""
    image_id = annotation["image_id"]  # city_sequence_frame
    return os.path.join(image_id.split("_")[0], f"{image_id}_leftImg8bit.png")


def register_cityscapes(root: str) -> None:
    """Registers `cityscapes_panoptic_{train,val}` below DETECTRON2_DATASETS; reads no file."""
    folder = os.path.join(root, "cityscapes")
    for split in ("train", "val"):
        name = f"cityscapes_panoptic_{split}"
        register_panoptic_dataset(
            name,
            # In the order of their trainId, which is the contiguous class.
            categories=CITYSCAPES_CATEGORIES,
            image_root=os.path.join(folder, "leftImg8bit", split),
            panoptic_root=os.path.join(folder, "gtFine", name),
            panoptic_json=os.path.join(folder, "gtFine", f"{name}.json"),
            photo_name=_photo_name,
            evaluator_type="cityscapes_panoptic_seg",
            how_to_make=HOW_TO_MAKE,
        )
