"""Dataset dicts of registered data sets: loaded, checked, completed, with depth beside them."""

import difflib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts

from .datasets import datasets_root

logger = logging.getLogger(__name__)


def load_dataset_dicts(
    names: Sequence[str],
    *,
    depth_roots: Mapping[str, tuple[str, float]] | None = None,
    class_agnostic: bool = False,
) -> list[dict[str, Any]]:
    """Loads registered data sets, one after the other; pictures without segments are kept.

    Args:
        names: registered names, as in `cfg.DATASETS.TRAIN`.
        depth_roots: by name, the arguments of `attach_depth`, which replaces a data set's own.
        class_agnostic: data sets of different classes may be joined (else ValueError); all
            segments are of category 0 then, and semantic maps are left out.

    Returns:
        Detectron2's dataset dicts, each with an `image_id`; segments have `isthing`, and dicts with
        depth their `depth_scale`. FileNotFoundError if a data set is not where DETECTRON2_DATASETS
        says, ValueError with near matches if a name is not registered.
    """
    if not names:
        raise ValueError("no data set given: cfg.DATASETS.TRAIN or cfg.DATASETS.TEST is empty")
    for name in names:
        _check_registered(name)
    classes = {name: tuple(MetadataCatalog.get(name).get("stuff_classes") or ()) for name in names}
    differ = len(set(classes.values())) > 1
    if differ and not class_agnostic:
        raise ValueError(
            "data sets that are used together need the same classes in the same order, got "
            + "; ".join(f"{name}: {len(c)} classes {list(c[:3])}..." for name, c in classes.items())
            + ". Only a model without classes takes them all: MODEL.LDMSEG.CLASSIFIER 'none', and "
            "no 'semantic' in MODEL.LDMSEG.TASKS"
        )
    dicts = []
    for name in names:
        loaded = _load_one(name)
        root = (depth_roots or {}).get(name)
        dicts += loaded if root is None else attach_depth(loaded, *root)
    return [_without_classes(d) for d in dicts] if differ else dicts


def dataset_dicts_with_depth(cfg: CfgNode, names: str | Sequence[str]) -> list[dict[str, Any]]:
    """Loads one data set or several as the config's model takes them, see `load_dataset_dicts`."""
    names = [names] if isinstance(names, str) else names
    return load_dataset_dicts(
        names, depth_roots=read_depth_roots(cfg), class_agnostic=not _needs_classes(cfg)
    )


def _needs_classes(cfg: CfgNode) -> bool:
    """Whether the model learns classes: all do but LDMSeg's own with neither of their two uses."""
    if cfg.MODEL.META_ARCHITECTURE in ("LDMSegAutoencoder", "LDMSegDepthAutoencoder"):
        return False
    if cfg.MODEL.META_ARCHITECTURE != "LDMSeg":
        return True
    return cfg.MODEL.LDMSEG.CLASSIFIER != "none" or "semantic" in cfg.MODEL.LDMSEG.TASKS


def _without_classes(record: dict[str, Any]) -> dict[str, Any]:
    """A copy whose segments are all of category 0 (`isthing` stays), without a semantic map."""
    record = {k: v for k, v in record.items() if k != "sem_seg_file_name"}
    if "segments_info" in record:
        record["segments_info"] = [{**s, "category_id": 0} for s in record["segments_info"]]
    return record


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
        raise FileNotFoundError(
            f"data set {name!r} cannot be loaded ({where}, read when the package was imported): "
            f"{error}. docs/DATASETS.md says how to get it"
        ) from error
    return _complete(dicts, name)


def _complete(dicts: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Adds what some of Detectron2's own loaders leave out; the given dicts are not changed.

    Cityscapes' segments lack `isthing`, and semantic data sets `image_id`.
    """
    metadata = MetadataCatalog.get(name)
    extra = {} if metadata.get("depth_scale") is None else {"depth_scale": metadata.depth_scale}
    things = set(metadata.get("thing_dataset_id_to_contiguous_id", {}).values())
    result = [{**extra, **record} for record in dicts]
    for record in result:
        segments = record.get("segments_info", ())
        if any("isthing" not in s for s in segments):
            record["segments_info"] = [
                {"isthing": s["category_id"] in things, **s} for s in segments
            ]
    if any("image_id" not in record for record in result):
        for record, image_id in zip(result, _image_ids([d["file_name"] for d in dicts])):
            record.setdefault("image_id", image_id)
    return result


def _image_ids(photos: list[str]) -> list[str]:
    """Photos' names, or where two are the same their paths below the common folder."""
    paths = [PurePath(photo).with_suffix("") for photo in photos]
    if len({path.name for path in paths}) == len(paths):
        return [path.name for path in paths]
    common = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(common).as_posix() for path in paths]


def read_depth_roots(cfg: CfgNode) -> dict[str, tuple[str, float]]:
    """INPUT.LDMSEG.DEPTH_ROOTS, checked: by data set, the folder and the PNG value of one metre.

    A relative folder is taken below DETECTRON2_DATASETS.
    """
    roots: dict[str, tuple[str, float]] = {}
    # Configs of other models may lack LDMSeg's keys.
    for entry in cfg.INPUT.get("LDMSEG", {}).get("DEPTH_ROOTS", []):
        try:
            name, folder, scale = entry[0], str(entry[1]), float(entry[2])
            if scale <= 0:
                raise ValueError("the value of one metre is above 0")
        except (IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f"INPUT.LDMSEG.DEPTH_ROOTS holds {entry!r}; an entry is [data set, folder, PNG "
                'value of one metre], e.g. ["coco_2017_train_panoptic", "coco/depth", 256.0]'
            ) from error
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
    """
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
        result.append(record)
        key = next((tail for tail in _tails(photo) if tail in pngs), None)
        if key is None:
            without.append(photo)
            continue
        depth = os.path.join(folder, key + ".png")
        if key in photo_of:
            raise ValueError(
                f"{depth} belongs to {photo_of[key]} and to {photo}: put depth PNGs in folders "
                "named as the photos' are"
            )
        photo_of[key] = photo
        record.update(depth_file_name=depth, depth_scale=float(scale))
    if not photo_of:
        raise FileNotFoundError(
            f"none of the {len(pngs)} PNGs in {folder} (INPUT.LDMSEG.DEPTH_ROOTS) is named as one "
            f"of the {len(without)} photos is, e.g. as {without[:1]}"
        )
    logger.info("depth for %d of %d photos from %s", len(photo_of), len(result), folder)
    if without:
        logger.warning(
            "%d of %d photos have no depth PNG in %s, e.g. %s: they serve the other tasks only",
            *(len(without), len(result), folder, without[0]),
        )
    return result


def _tails(photo: str) -> Iterator[str]:
    """Ends of a path without its suffix, the longest first: a/b/x, b/x, x."""
    path = PurePath(photo).with_suffix("")
    parts = path.parts[1:] if path.is_absolute() else path.parts
    for start in range(len(parts)):
        yield os.path.join(*parts[start:])
