"""Depth beside any data set: a folder of 16-bit PNGs that are named as the photos are."""

import logging
import os
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from .datasets import datasets_root

__all__ = ["attach_depth", "read_depth_roots"]

logger = logging.getLogger(__name__)


def read_depth_roots(cfg: CfgNode) -> dict[str, tuple[str, float]]:
    """Reads and checks INPUT.LDMSEG.DEPTH_ROOTS.

    Returns:
        By data set: the folder (a relative one is taken below DETECTRON2_DATASETS) and the PNG
        value of one metre.

    Raises:
        ValueError: if an entry is not [registered name, folder, number above 0], or a name is
            there twice.
    """
    roots: dict[str, tuple[str, float]] = {}
    # Configs of other models may lack LDMSeg's keys.
    for entry in cfg.INPUT.get("LDMSEG", {}).get("DEPTH_ROOTS", []):
        try:
            name, folder, scale = entry
            scale = float(scale)
            wrong = not (isinstance(name, str) and isinstance(folder, str) and 0 < scale < 1e9)
        except (TypeError, ValueError):
            wrong = True
        if wrong:
            raise ValueError(
                f"INPUT.LDMSEG.DEPTH_ROOTS holds {entry!r}; an entry is [data set, folder, PNG "
                'value of one metre], e.g. ["coco_2017_train_panoptic", "coco/depth", 256.0]'
            )
        if name in roots or name not in DatasetCatalog:
            problem = "twice" if name in roots else "but no such data set is registered"
            raise ValueError(f"INPUT.LDMSEG.DEPTH_ROOTS names {name!r} {problem}")
        roots[name] = (os.path.join(datasets_root(), os.path.expanduser(folder)), scale)
    return roots


def attach_depth(
    dataset_dicts: list[dict[str, Any]], folder: str, scale: float
) -> list[dict[str, Any]]:
    """Adds `depth_file_name` and `depth_scale` to photos that have a depth PNG in `folder`.

    A PNG belongs to the photo whose path, without its suffix, ends as the PNG's path below `folder`
    does: `folder/x.png` or `folder/train/aachen/x.png` to `.../train/aachen/x.jpg`. Where several
    fit, the longest does. Photos without a PNG lose a depth that their dict may have had, and
    serve the other tasks; how many they are is logged.

    Args:
        dataset_dicts: Detectron2's, with `file_name`; they are not changed.
        folder: of 16-bit PNGs, at any depth; a value is metres x `scale`, 0 is invalid.
        scale: the PNG value of one metre (KITTI: 256, millimetres: 1000).

    Returns:
        The dicts, in the same order.

    Raises:
        FileNotFoundError: if the folder does not exist, or no photo has a PNG there.
        ValueError: if a PNG belongs to two photos.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"the folder of depth PNGs {folder} (INPUT.LDMSEG.DEPTH_ROOTS) does not exist"
        )
    pngs = {
        os.path.relpath(os.path.join(place, name), folder)[: -len(".png")]
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.endswith(".png")
    }
    photo_of: dict[str, str] = {}
    result, without = [], []
    for record in dataset_dicts:
        photo = record["file_name"]
        record = {k: v for k, v in record.items() if k not in ("depth_file_name", "depth_scale")}
        key = next((tail for tail in _tails(photo) if tail in pngs), None)
        if key is None:
            without.append(photo)
        elif key in photo_of:
            raise ValueError(
                f"{os.path.join(folder, key)}.png belongs to {photo_of[key]} and to {photo}: "
                "put depth PNGs in folders named as the photos' are"
            )
        else:
            photo_of[key] = photo
            depth = os.path.join(folder, key + ".png")
            record.update(depth_file_name=depth, depth_scale=float(scale))
        result.append(record)
    if not photo_of:
        example = f"{next(_tails(without[-1]))}.png" if without else "a PNG"
        raise FileNotFoundError(
            f"none of the {len(pngs)} PNGs in {folder} is named as one of the {len(without)} "
            f"photos is; expected, below that folder, {example} or the end of this path"
        )
    logger.info("depth for %d of %d photos from %s", len(photo_of), len(result), folder)
    if without:
        logger.warning(
            "%d of %d photos have no depth PNG in %s, e.g. %s: they serve the other tasks only",
            len(without),
            len(result),
            folder,
            without[0],
        )
    return result


def _tails(photo: str) -> Iterator[str]:
    """Ends of a path without its suffix, the longest first: a/b/x, b/x, x."""
    path = PurePath(photo).with_suffix("")
    parts = path.parts[1:] if path.is_absolute() else path.parts
    for start in range(len(parts)):
        yield os.path.join(*parts[start:])
