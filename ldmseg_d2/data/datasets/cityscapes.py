"""Cityscapes, 19 classes, as cityscapesscripts' csCreatePanopticImgs writes it.

Detectron2's `cityscapes_fine_panoptic_*` read the same files, but want labelTrainIds PNGs as well,
fail where the path holds a dot, and say neither `isthing` of a segment nor, in their metadata, the
semantic class of things. https://github.com/mcordts/cityscapesScripts
"""

import os
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES

from .register_panoptic import (
    IGNORE_LABEL,
    LABEL_DIVISOR,
    load_panoptic_json,
    panoptic_metadata,
)

__all__ = ["load_cityscapes", "register_cityscapes"]

HOW_TO_MAKE = (
    "pip install cityscapesscripts && "
    "CITYSCAPES_DATASET=$DETECTRON2_DATASETS/cityscapes csCreatePanopticImgs"
)
SPLITS = ("train", "val")


def load_cityscapes(
    panoptic_json: str, *, image_root: str, panoptic_root: str, metadata: dict[str, Any]
) -> list[dict[str, Any]]:
    """Reads the panoptic JSON of a split; photos lie in a folder for each city.

    Args:
        panoptic_json: gtFine/cityscapes_panoptic_{split}.json.
        image_root: leftImg8bit/{split}.
        panoptic_root: gtFine/cityscapes_panoptic_{split}.
        metadata: the two id maps of `panoptic_metadata`.

    Returns:
        See `load_panoptic_json`; `image_id` is "city_sequence_frame".

    Raises:
        FileNotFoundError, ValueError: see `load_panoptic_json`.
    """
    dicts = load_panoptic_json(
        panoptic_json,
        image_root=image_root,
        panoptic_root=panoptic_root,
        metadata=metadata,
        how_to_make=HOW_TO_MAKE,
    )
    for record in dicts:
        # The JSON's own file_name is of no file: city_sequence_frame_gtFine_leftImg8bit.png.
        image_id = record["image_id"]
        name = f"{image_id}_leftImg8bit.png"
        record["file_name"] = os.path.join(image_root, image_id.split("_")[0], name)
    return dicts


def register_cityscapes(root: str) -> None:
    """Registers `cityscapes_panoptic_{train,val}`; reads no file.

    Args:
        root: DETECTRON2_DATASETS, the folder that holds cityscapes/.
    """
    # In the order of their trainId, which is the contiguous class.
    metadata = panoptic_metadata(CITYSCAPES_CATEGORIES)
    folder = os.path.join(root, "cityscapes")
    for split in SPLITS:
        name = f"cityscapes_panoptic_{split}"
        places = {
            "image_root": os.path.join(folder, "leftImg8bit", split),
            "panoptic_root": os.path.join(folder, "gtFine", name),
        }
        panoptic_json = os.path.join(folder, "gtFine", f"{name}.json")
        DatasetCatalog.register(
            name,
            lambda path=panoptic_json, places=places: load_cityscapes(
                path, metadata=metadata, **places
            ),
        )
        MetadataCatalog.get(name).set(
            panoptic_json=panoptic_json,
            evaluator_type="cityscapes_panoptic_seg",
            ignore_label=IGNORE_LABEL,
            label_divisor=LABEL_DIVISOR,
            **places,
            **metadata,
        )
