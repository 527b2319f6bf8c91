"""Dataset dicts of registered data sets: loaded, checked, completed, with depth beside them."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts

from .depth import attach_depth, read_depth_roots

__all__ = ["dataset_dicts_with_depth", "load_dataset_dicts"]

# How to get data sets that Detectron2 itself registers: a name's beginning, and what to do.
HOW_TO_GET = {
    "coco_2017": "download COCO 2017 photos and panoptic annotations (https://cocodataset.org) to "
    "coco/{train2017,val2017,panoptic_train2017,panoptic_val2017,annotations}; the panoptic PNGs "
    "are two more archives inside that of the annotations",
    "cityscapes_fine": "unpack leftImg8bit and gtFine to cityscapes/, `pip install "
    "cityscapesscripts`, then run csCreateTrainIdLabelImgs and csCreatePanopticImgs with "
    "CITYSCAPES_DATASET set to that folder; cityscapes_panoptic_{train,val} need only the latter, "
    "and allow a dot in the path",
    "ade20k_sem_seg": "unpack ADEChallengeData2016.zip, then run `python tools/prepare_ade20k.py "
    "--semantic-only --root $DETECTRON2_DATASETS`",
}


def load_dataset_dicts(
    names: Sequence[str], *, depth_roots: Mapping[str, tuple[str, float]] | None = None
) -> list[dict[str, Any]]:
    """Loads registered data sets, one after the other; pictures without segments are kept.

    Args:
        names: registered names, as in `cfg.DATASETS.TRAIN`; all with the same classes.
        depth_roots: by name, the folder of depth PNGs and the value of one metre that replace the
            data set's own depth, see `attach_depth`.

    Returns:
        Detectron2's dataset dicts, each with an `image_id`; segments have `isthing`, and dicts
        with depth their `depth_scale`.

    Raises:
        ValueError: if `names` is empty, a name is not registered (near matches are named), or the
            classes differ.
        FileNotFoundError: if a data set is not where DETECTRON2_DATASETS says.
    """
    if not names:
        raise ValueError("no data set given: cfg.DATASETS.TRAIN or cfg.DATASETS.TEST is empty")
    for name in names:
        _check_registered(name)
    classes = {name: tuple(MetadataCatalog.get(name).get("stuff_classes") or ()) for name in names}
    if len(set(classes.values())) > 1:
        raise ValueError(
            "data sets that are used together need the same classes in the same order, got "
            + "; ".join(f"{name}: {len(c)} classes {list(c[:3])}..." for name, c in classes.items())
        )
    dicts = []
    for name in names:
        loaded = _load_one(name)
        root = (depth_roots or {}).get(name)
        dicts += loaded if root is None else attach_depth(loaded, *root)
    return dicts


def dataset_dicts_with_depth(cfg: CfgNode, names: str | Sequence[str]) -> list[dict[str, Any]]:
    """Loads data sets with the depth that `cfg.INPUT.LDMSEG.DEPTH_ROOTS` gives them.

    Args:
        cfg: reads INPUT.LDMSEG.DEPTH_ROOTS.
        names: one registered name, or several as in `load_dataset_dicts`.

    Returns:
        See `load_dataset_dicts`; `depth_file_name` and `depth_scale` where there is depth.

    Raises:
        ValueError, FileNotFoundError: see `load_dataset_dicts`, `attach_depth` and
            `read_depth_roots`.
    """
    names = [names] if isinstance(names, str) else names
    return load_dataset_dicts(names, depth_roots=read_depth_roots(cfg))


def _check_registered(name: str) -> None:
    """Raises ValueError, with names that look alike, unless `name` is registered."""
    if name in DatasetCatalog:
        return
    names = DatasetCatalog.list()
    near = [n for n in names if name and name in n][:5]  # "camvid": "camvid_panoptic_val"
    near = near or difflib.get_close_matches(name, names, n=5, cutoff=0.5)
    raise ValueError(
        f"data set {name!r} is not registered"
        + (f"; did you mean one of {near}? " if near else ". ")
        + "DatasetCatalog.list() lists all names; docs/CUSTOM_DATA.md says how to register your own"
    )


def _load_one(name: str) -> list[dict[str, Any]]:
    try:
        dicts = get_detection_dataset_dicts([name], filter_empty=False, check_consistency=False)
    # Detectron2's own loaders assert that files exist, with nothing but the path as message.
    except (FileNotFoundError, AssertionError) as error:
        root = os.environ.get("DETECTRON2_DATASETS")
        where = f"DETECTRON2_DATASETS={root}" if root else "no DETECTRON2_DATASETS: ./datasets"
        how = next((h for prefix, h in HOW_TO_GET.items() if name.startswith(prefix)), None)
        raise FileNotFoundError(
            f"data set {name!r} cannot be loaded ({where}, read when the package was imported): "
            f"{error}." + (f" To get it: {how}" if how else "")
        ) from error
    return _complete(dicts, name)


def _complete(dicts: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Adds what some of Detectron2's own loaders leave out; the given dicts are not changed.

    Cityscapes' segments lack `isthing`, and semantic data sets `image_id`: the photo's name then,
    or, where two have the same, its path below the photos' common folder.
    """
    metadata = MetadataCatalog.get(name)
    extra = {} if metadata.get("depth_scale") is None else {"depth_scale": metadata.depth_scale}
    things = metadata.get("thing_dataset_id_to_contiguous_id")
    classes = None if things is None else set(things.values())
    image_ids = None
    result = []
    for index, record in enumerate(dicts):
        record = {**extra, **record}
        segments = record.get("segments_info")
        if classes is not None and any("isthing" not in s for s in segments or ()):
            record["segments_info"] = [
                {"isthing": s["category_id"] in classes, **s} for s in segments
            ]
        if "image_id" not in record:
            image_ids = image_ids or _image_ids([d["file_name"] for d in dicts])
            record["image_id"] = image_ids[index]
        result.append(record)
    return result


def _image_ids(photos: list[str]) -> list[str]:
    """Unique names of photos: the same wherever the data set lies."""
    paths = [PurePath(photo).with_suffix("") for photo in photos]
    if len({path.name for path in paths}) == len(paths):
        return [path.name for path in paths]
    common = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(common).as_posix() for path in paths]
