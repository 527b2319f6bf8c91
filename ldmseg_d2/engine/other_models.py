"""Models of other repositories: imported only when a config asks for one of them.

Importing the original Mask2Former repository registers data sets and changes the metadata of
Detectron2's own: ``coco_2017_val_panoptic`` would lose 53 of its 133 ``thing_classes``, and with
them every other model's evaluation. What was registered before stays as it was.
"""

import copy
import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ldmseg_d2.data import DATASET_MAPPER_REGISTRY

logger = logging.getLogger(__name__)

REPOSITORY = "https://github.com/facebookresearch/Mask2Former"
# Meta-architectures of that repository.
MASK2FORMER_NAMES = ("MaskFormer",)
MAPPER = "QueryDatasetMapper"
# Keys that its function for configs overwrites.
KEPT_KEYS = (("INPUT", "DATASET_MAPPER_NAME"),)


def add_config_of(cfg: CfgNode, meta_arch: str) -> None:
    """Import what registers a meta-architecture, and add its config keys in place.

    Args:
        cfg: with Detectron2's and LDMSeg's keys.
        meta_arch: value of ``MODEL.META_ARCHITECTURE``; of another model than that repository's
            nothing is known here: whoever wrote it imports it.

    Raises:
        ImportError: the repository is not on the path.
    """
    if meta_arch not in MASK2FORMER_NAMES:
        return
    try:
        with unchanged_catalogs():
            module = importlib.import_module("mask2former")
    except ImportError as error:
        raise ImportError(
            f"Config key MODEL.META_ARCHITECTURE: {meta_arch!r} is a model of the Mask2Former "
            f"repository, which cannot be imported: {error}. Clone {REPOSITORY}, build its "
            "operator as its INSTALL.md says, and put its folder on PYTHONPATH; or use "
            "'HFMask2Former', which needs neither"
        ) from error
    kept = {keys: cfg[keys[0]][keys[1]] for keys in KEPT_KEYS}
    module.add_maskformer2_config(cfg)
    for (node, key), value in kept.items():
        cfg[node][key] = value


def use_our_mapper(cfg: CfgNode, meta_arch: str) -> None:
    """Give a model of that repository our data: its own mapper names are not registered here."""
    if meta_arch not in MASK2FORMER_NAMES:
        return
    if cfg.INPUT.DATASET_MAPPER_NAME not in DATASET_MAPPER_REGISTRY:
        logger.info("INPUT.DATASET_MAPPER_NAME is %s: the same data as all models", MAPPER)
        cfg.INPUT.DATASET_MAPPER_NAME = MAPPER


@contextmanager
def unchanged_catalogs() -> Iterator[None]:
    """Keep data sets and metadata as they are; new names stay registered.

    Names that this package registered are hidden inside, because the repository registers some of
    them (ADE20K's) as well, which Detectron2 refuses.
    """
    loaders, metadata = dict(DatasetCatalog.data), dict(MetadataCatalog.data)
    ours = {name for name, loader in loaders.items() if _module(loader).startswith("ldmseg_d2")}
    try:
        DatasetCatalog.data = {n: loader for n, loader in loaders.items() if n not in ours}
        MetadataCatalog.data = {
            n: copy.deepcopy(one) for n, one in metadata.items() if n not in ours
        }
        yield
    finally:
        DatasetCatalog.data = {**DatasetCatalog.data, **loaders}
        MetadataCatalog.data = {**MetadataCatalog.data, **metadata}


def _module(loader: object) -> str:
    """Name of the module in which a data set's loader was made."""
    return getattr(getattr(loader, "func", loader), "__module__", None) or ""
