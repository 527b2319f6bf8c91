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

from ..data import DATASET_MAPPER_REGISTRY

logger = logging.getLogger(__name__)

REPOSITORY = "https://github.com/facebookresearch/Mask2Former"
# Its meta-architecture. Who wrote another one imports it.
META_ARCH = "MaskFormer"
MAPPER = "QueryDatasetMapper"


def add_foreign_config(cfg: CfgNode, meta_arch: str) -> None:
    """Import what registers a foreign meta-architecture, and add its config keys in place.

    Where ``meta_arch``, the value of ``MODEL.META_ARCHITECTURE``, is no such one, nothing happens;
    where its repository is not on the path, ImportError says what to do.
    """
    if meta_arch != META_ARCH:
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
    mapper = cfg.INPUT.DATASET_MAPPER_NAME
    module.add_maskformer2_config(cfg)  # overwrites it
    cfg.INPUT.DATASET_MAPPER_NAME = mapper


def use_our_mapper(cfg: CfgNode, meta_arch: str) -> None:
    """Give a foreign model our data: its own mapper names are not registered here."""
    if meta_arch == META_ARCH and cfg.INPUT.DATASET_MAPPER_NAME not in DATASET_MAPPER_REGISTRY:
        logger.info("INPUT.DATASET_MAPPER_NAME is %s: the same data as all models", MAPPER)
        cfg.INPUT.DATASET_MAPPER_NAME = MAPPER


@contextmanager
def unchanged_catalogs() -> Iterator[None]:
    """Keep data sets and metadata as they are; new names stay registered.

    Names that this package registered are hidden inside, because the repository registers some of
    them (ADE20K's) as well, which Detectron2 refuses.
    """
    loaders, metadata = dict(DatasetCatalog.data), dict(MetadataCatalog.data)
    theirs = {name for name, loader in loaders.items() if not _is_ours(loader)}
    try:
        DatasetCatalog.data = {name: loaders[name] for name in theirs}
        MetadataCatalog.data = {n: copy.deepcopy(m) for n, m in metadata.items() if n in theirs}
        yield
    finally:
        DatasetCatalog.data = {**DatasetCatalog.data, **loaders}
        MetadataCatalog.data = {**MetadataCatalog.data, **metadata}


def _is_ours(loader: object) -> bool:
    """Whether this package made a data set's loader."""
    return str(getattr(getattr(loader, "func", loader), "__module__", "")).startswith("ldmseg_d2")
