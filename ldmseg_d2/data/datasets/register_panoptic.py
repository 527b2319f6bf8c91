"""Registers a data set in COCO panoptic format (photos, id PNGs, one JSON) with Detectron2.

Detectron2's own `register_coco_panoptic` fixes the photo's suffix to ".jpg" and the evaluator to
"coco_panoptic_seg", and reads neither semantic nor depth maps; otherwise this follows it:
https://github.com/facebookresearch/detectron2/blob/405ef0d4f466fb6fbc28fd219b6d03d5befb045a/detectron2/data/datasets/coco_panoptic.py
"""

import json
import os
from collections.abc import Callable
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
            the ids are the data set's own, unique, not necessarily contiguous.
    """
    names, colors = [c["name"] for c in categories], [list(c["color"]) for c in categories]
    contiguous = {int(c["id"]): i for i, c in enumerate(categories)}
    if len(contiguous) != len(categories):
        raise ValueError(f"categories need unique ids, got {[c['id'] for c in categories]}")
    return {
        "thing_classes": names,
        "stuff_classes": list(names),
        "thing_colors": colors,
        "stuff_colors": [list(c) for c in colors],
        "thing_dataset_id_to_contiguous_id": {
            int(c["id"]): i for i, c in enumerate(categories) if c["isthing"]
        },
        "stuff_dataset_id_to_contiguous_id": contiguous,
        "ignore_label": IGNORE_LABEL,
        "label_divisor": LABEL_DIVISOR,
    }


def load_panoptic_json(
    name: str, photo_name: Callable[[dict[str, Any]], str] | None, how_to_make: str
) -> list[dict[str, Any]]:
    """Reads a registered data set's JSON into Detectron2's list of dicts, in the order of the JSON.

    In `segments_info`, `category_id` is contiguous and `isthing` a bool. FileNotFoundError if the
    JSON, or a PNG of its first picture, does not exist; ValueError if it refers to what is unknown.
    """
    metadata = MetadataCatalog.get(name)
    path = metadata.panoptic_json
    if not PathManager.isfile(path):
        raise FileNotFoundError(f"{path} does not exist. To make it: {how_to_make}")
    with PathManager.open(path) as f:
        content = json.load(f)
    images = {image["id"]: image for image in content["images"]}

    dataset_dicts = []
    for annotation in content["annotations"]:
        label_name = annotation["file_name"]
        image = images.get(annotation["image_id"])
        if image is None:
            raise ValueError(
                f"{path}: annotation {label_name!r} is of image_id {annotation['image_id']!r}, "
                f"which its 'images' do not list. To make the file again: {how_to_make}"
            )
        try:
            segments_info = _contiguous_segments(annotation["segments_info"], metadata)
        except KeyError as error:
            raise ValueError(
                f"{path}: {label_name!r} holds category_id {error.args[0]}; registered are "
                f"{sorted(metadata.stuff_dataset_id_to_contiguous_id)}"
            ) from error
        photo = image["file_name"] if photo_name is None else photo_name(annotation)
        record = {
            "file_name": os.path.join(metadata.image_root, photo),
            "image_id": annotation["image_id"],
            "height": image["height"],
            "width": image["width"],
            "pan_seg_file_name": os.path.join(metadata.panoptic_root, label_name),
            "segments_info": segments_info,
        }
        for kind in ("sem_seg", "depth"):
            root = metadata.get(f"{kind}_root")
            if root is not None:
                stem = os.path.splitext(label_name)[0]
                record[f"{kind}_file_name"] = os.path.join(root, stem + ".png")
        dataset_dicts.append(record)
    if not dataset_dicts:
        raise ValueError(f"{path} holds no annotations. To make it again: {how_to_make}")
    # Whole folders are missing more often than files; those the mapper names.
    for key in ("pan_seg_file_name", "sem_seg_file_name", "depth_file_name"):
        file = dataset_dicts[0].get(key)
        if file is not None and not PathManager.isfile(file):
            raise FileNotFoundError(f"{file} does not exist. To make it: {how_to_make}")
    return dataset_dicts


def _contiguous_segments(segments: list[dict], metadata: Any) -> list[dict[str, Any]]:
    """The segments with contiguous `category_id` and `isthing`; KeyError for an unknown one."""
    things = metadata.thing_dataset_id_to_contiguous_id
    contiguous = metadata.stuff_dataset_id_to_contiguous_id  # of every class
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
    evaluator_type: str,
    depth_scale: float = 256.0,
    how_to_make: str,
    photo_name: Callable[[dict[str, Any]], str] | None = None,
    **folders: str,
) -> None:
    """Registers `name` in DatasetCatalog and MetadataCatalog; reads no file until it is used.

    Args:
        categories: see `panoptic_metadata`.
        evaluator_type: what `build_evaluator` dispatches on, e.g. "scenes_panoptic".
        depth_scale: depth PNG value per metre (KITTI: 256); set only with `depth_root`.
        how_to_make: the command that makes the data set, quoted where a file is missing.
        photo_name: from the JSON's annotation to the photo's path below `image_root`; None: the
            `file_name` of the JSON's `images` entry.
        folders: `panoptic_json` (path), `image_root`, `panoptic_root` (id PNGs, R + 256 G +
            65536 B), and optionally `sem_seg_root`, `depth_root` (PNGs with the id PNGs' names).
    """
    # Left out, not None, where there is no depth: Detectron2 asks `hasattr`.
    extra = {"depth_scale": depth_scale} if "depth_root" in folders else {}
    register_loader(
        name,
        lambda: load_panoptic_json(name, photo_name, how_to_make),
        categories=categories,
        evaluator_type=evaluator_type,
        **extra,
        **folders,
    )


def register_loader(
    name: str,
    load: Callable[[], list[dict[str, Any]]],
    *,
    categories: list[dict[str, Any]],
    **metadata: Any,
) -> None:
    """Registers a function that gives dataset dicts, with metadata of its classes and more.

    A data set of the same name is replaced.
    """
    for catalog in (DatasetCatalog, MetadataCatalog):
        catalog.pop(name, None)
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(**metadata, **panoptic_metadata(categories))
