"""Registers folders that hold a `dataset.json` of `tools/prepare_custom.py`."""

import json
import logging
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..datasets.register_panoptic import (
    panoptic_metadata,
    register_panoptic_dataset,
    split_folders,
)

logger = logging.getLogger(__name__)

DATASET_FILE = "dataset.json"
FORMAT_NAME = "ldmseg_d2 custom data set"
SPLITS = ("train", "val")
HOW_TO_MAKE = "python tools/prepare_custom.py, see docs/CUSTOM_DATA.md"


def read_dataset_file(folder: str | Path) -> dict[str, Any]:
    """Reads `folder/dataset.json`, which `tools/prepare_custom.py` wrote.

    It holds `class_agnostic`, COCO's `categories`, `splits` (name -> number of pictures),
    `semantic` (its PNGs are there), and `depth_scale` where there is depth. FileNotFoundError if it
    is missing, ValueError if it is no such file.
    """
    path = Path(folder) / DATASET_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. To make it: {HOW_TO_MAKE}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT_NAME:
            raise ValueError(f"its format is {content['format']!r}, expected {FORMAT_NAME!r}")
        panoptic_metadata(content["categories"])
        content["splits"] = {split: content["splits"].get(split, 0) for split in SPLITS}
        content["class_agnostic"], content["semantic"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} does not describe a data set ({type(error).__name__}: {error}). "
            f"To make it again: {HOW_TO_MAKE}"
        ) from error
    return content


def register_custom(folder: str | Path, *, name: str | None = None) -> list[str]:
    """Registers `{name}_{split}` for every split of a prepared folder; reads `dataset.json` only.

    `name` is the folder's own unless given. Returns the names, e.g. `["garden_train"]`, for
    `cfg.DATASETS`; ValueError, and none is registered, if one of them is there already.
    """
    root = Path(folder)
    name = root.resolve().name if name is None else name
    content = read_dataset_file(root)
    names = {split: f"{name}_{split}" for split in SPLITS if content["splits"][split]}
    taken = [n for n in names.values() if n in DatasetCatalog]
    if taken:
        raise ValueError(f"{taken} are registered already: give {root} another name")
    scale, agnostic = content.get("depth_scale"), content["class_agnostic"]
    for split, registered in names.items():
        register_panoptic_dataset(
            registered,
            categories=content["categories"],
            **split_folders(root, split, semantic=content["semantic"], depth=scale is not None),
            depth_scale=float(scale or 256.0),
            evaluator_type="class_agnostic_panoptic" if agnostic else "coco_panoptic_seg",
            how_to_make=HOW_TO_MAKE,
        )
        MetadataCatalog.get(registered).set(custom_root=str(root))
    return list(names.values())


def register_custom_folders(root: str | Path, *, overwrite: bool = False) -> list[str]:
    """Registers every `root/<name>/dataset.json`; returns the names that are new.

    A damaged one is left out with a warning. `overwrite` registers names of custom data sets again.
    """
    registered = []
    for path in sorted(Path(root).glob(f"*/{DATASET_FILE}")):
        folder = path.parent
        names = [f"{folder.name}_{split}" for split in SPLITS]
        for old in names if overwrite else ():
            # Never one of the package's own names.
            if MetadataCatalog.get(old).get("custom_root") is not None:
                DatasetCatalog.pop(old, None)
                MetadataCatalog.pop(old)
        # Importing the package must work whatever else lies beside the data sets.
        try:
            registered += register_custom(folder)
        except (OSError, ValueError) as error:
            # The names are taken where the function is called a second time: nothing to say.
            if not any(name in DatasetCatalog for name in names):
                logger.warning("not registered: %s", error)
    return registered
