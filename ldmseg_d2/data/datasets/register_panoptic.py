"""Registers a data set in COCO panoptic format (photos, id PNGs, one JSON) with Detectron2.

Detectron2's own `register_coco_panoptic` fixes the photo's suffix to ".jpg" and the evaluator to
"coco_panoptic_seg", and reads neither semantic nor depth maps; otherwise this follows it:
https://github.com/facebookresearch/detectron2/blob/405ef0d4f466fb6fbc28fd219b6d03d5befb045a/detectron2/data/datasets/coco_panoptic.py
"""

import json
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

IGNORE_LABEL = 255
LABEL_DIVISOR = 1000


def panoptic_metadata(categories: list[dict[str, Any]]) -> dict[str, Any]:
    """Derives the class metadata that Detectron2's panoptic evaluators and visualizer read.

    There is one contiguous space for all classes, 0..C-1 in the order of `categories`, as in
    Detectron2's "coco_2017_*_panoptic": `thing_classes` and `stuff_classes` are the same list.
    The thing map holds things only; the stuff map holds every class, because the semantic
    evaluator inverts it for all of them (Mask2Former does the same for ADE20K).

    Args:
        categories: COCO style, `{"id": int, "name": str, "isthing": 0 or 1, "color": [r, g, b]}`;
            the ids are the data set's own, unique (ValueError), not necessarily contiguous.
    """
    ids = [int(c["id"]) for c in categories]
    if not ids or len(set(ids)) != len(ids):
        raise ValueError(f"categories need at least one entry and unique ids, got ids {ids}")
    names = [c["name"] for c in categories]
    colors = [list(c["color"]) for c in categories]
    return {
        "thing_classes": names,
        "stuff_classes": list(names),
        "thing_colors": colors,
        "stuff_colors": [list(c) for c in colors],
        "thing_dataset_id_to_contiguous_id": {
            int(c["id"]): i for i, c in enumerate(categories) if c["isthing"]
        },
        "stuff_dataset_id_to_contiguous_id": {i: k for k, i in enumerate(ids)},
    }


def load_panoptic_json(
    panoptic_json: str,
    *,
    image_root: str,
    panoptic_root: str,
    metadata: dict[str, Any],
    sem_seg_root: str | None = None,
    depth_root: str | None = None,
    photo_name: Callable[[dict[str, Any], str], str] | None = None,
    how_to_make: str,
) -> list[dict[str, Any]]:
    """Reads a COCO panoptic JSON into Detectron2's list of dicts, in the order of the JSON.

    Args:
        panoptic_json: path of the JSON: `images`, `annotations` (with `segments_info`).
        image_root, panoptic_root: folders of the photos and of the id PNGs (R + 256 G + 65536 B).
        metadata: the two id maps of `panoptic_metadata`.
        sem_seg_root, depth_root: folders of PNGs with the id PNGs' names, or None.
        photo_name: from the JSON's annotation to the photo's path below `image_root`; None: the
            `file_name` of the JSON's `images` entry.
        how_to_make: the command that makes the data set, quoted where the JSON is missing.

    Returns:
        One dict an annotation: `file_name`, `image_id` (as in the JSON), `height`, `width`,
        `pan_seg_file_name`, `segments_info` (the JSON's, with `category_id` contiguous and
        `isthing` a bool), and `sem_seg_file_name`, `depth_file_name` where a folder is given.

    Raises:
        FileNotFoundError: if the JSON, or a PNG of its first picture, does not exist.
        ValueError: if the JSON refers to an image or a category that is unknown, or holds nothing.
    """
    if not PathManager.isfile(panoptic_json):
        raise FileNotFoundError(f"{panoptic_json} does not exist. To make it: {how_to_make}")
    with PathManager.open(panoptic_json) as f:
        content = json.load(f)
    images = {image["id"]: image for image in content["images"]}

    dataset_dicts = []
    for annotation in content["annotations"]:
        label_name = annotation["file_name"]
        image = images.get(annotation["image_id"])
        if image is None:
            raise ValueError(
                f"{panoptic_json}: annotation {label_name!r} is of image_id "
                f"{annotation['image_id']!r}, which its 'images' do not list. "
                f"To make the file again: {how_to_make}"
            )
        stem = os.path.splitext(label_name)[0]
        name = image["file_name"] if photo_name is None else photo_name(annotation, stem)
        try:
            segments_info = _contiguous_segments(annotation["segments_info"], metadata)
        except KeyError as error:
            raise ValueError(
                f"{panoptic_json}: {label_name!r} holds category_id {error.args[0]}; registered "
                f"are {sorted(metadata['stuff_dataset_id_to_contiguous_id'])}"
            ) from error
        record = {
            "file_name": os.path.join(image_root, name),
            "image_id": annotation["image_id"],
            "height": image["height"],
            "width": image["width"],
            "pan_seg_file_name": os.path.join(panoptic_root, label_name),
            "segments_info": segments_info,
        }
        if sem_seg_root is not None:
            record["sem_seg_file_name"] = os.path.join(sem_seg_root, stem + ".png")
        if depth_root is not None:
            record["depth_file_name"] = os.path.join(depth_root, stem + ".png")
        dataset_dicts.append(record)
    if not dataset_dicts:
        raise ValueError(f"{panoptic_json} holds no annotations. To make it again: {how_to_make}")
    # Whole folders are missing more often than files; those the mapper names.
    for key in ("pan_seg_file_name", "sem_seg_file_name", "depth_file_name"):
        path = dataset_dicts[0].get(key)
        if path is not None and not PathManager.isfile(path):
            raise FileNotFoundError(f"{path} does not exist. To make it: {how_to_make}")
    return dataset_dicts


def _contiguous_segments(segments: list[dict], metadata: dict[str, Any]) -> list[dict[str, Any]]:
    """The segments with contiguous `category_id` and `isthing`; KeyError for an unknown one."""
    things = metadata["thing_dataset_id_to_contiguous_id"]
    contiguous = metadata["stuff_dataset_id_to_contiguous_id"]  # of every class
    return [
        {**s, "category_id": contiguous[s["category_id"]], "isthing": s["category_id"] in things}
        for s in segments
    ]


def split_folders(
    root: str | os.PathLike, split: str, *, semantic: bool = True, depth: bool = False
) -> dict[str, str]:
    """Where a split lies in the folders that this package writes, for the function below."""
    folders = {
        "image_root": split,
        "panoptic_root": f"panoptic_{split}",
        "panoptic_json": f"panoptic_{split}.json",
        **({"sem_seg_root": f"semantic_{split}"} if semantic else {}),
        **({"depth_root": f"depth_{split}"} if depth else {}),
    }
    return {key: os.path.join(root, name) for key, name in folders.items()}


def register_panoptic_dataset(
    name: str,
    *,
    categories: list[dict[str, Any]],
    panoptic_json: str,
    evaluator_type: str,
    depth_scale: float = 256.0,
    how_to_make: str,
    photo_name: Callable[[dict[str, Any], str], str] | None = None,
    **folders: str,
) -> None:
    """Registers `name` in DatasetCatalog and MetadataCatalog; reads no file until it is used.

    Args:
        categories: see `panoptic_metadata`.
        panoptic_json, how_to_make, photo_name, folders: see `load_panoptic_json`.
        evaluator_type: what `build_evaluator` dispatches on, e.g. "scenes_panoptic".
        depth_scale: depth PNG value per metre (KITTI: 256); set only with `depth_root`.
    """
    load = partial(
        load_panoptic_json,
        panoptic_json,
        metadata=panoptic_metadata(categories),
        photo_name=photo_name,
        how_to_make=how_to_make,
        **folders,
    )
    # Left out, not None, where there is no depth: Detectron2 asks `hasattr`.
    extra = {**folders, **({"depth_scale": depth_scale} if "depth_root" in folders else {})}
    register_loader(
        name,
        load,
        categories=categories,
        panoptic_json=panoptic_json,
        evaluator_type=evaluator_type,
        **extra,
    )


def register_loader(
    name: str,
    load: Callable[[], list[dict[str, Any]]],
    *,
    categories: list[dict[str, Any]],
    **metadata: Any,
) -> None:
    """Registers a function that gives dataset dicts, with the metadata of its classes and more."""
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        ignore_label=IGNORE_LABEL,
        label_divisor=LABEL_DIVISOR,
        **metadata,
        **panoptic_metadata(categories),
    )
