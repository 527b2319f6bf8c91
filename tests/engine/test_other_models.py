"""The original Mask2Former repository: imported only when asked for, and harmless to the rest."""

import sys

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY

from ldmseg_d2.data import DATASET_MAPPER_REGISTRY
from ldmseg_d2.engine.config_reader import ConfigError, load_config

COCO = "coco_2017_val_panoptic"
CONFIG = """
MODEL:
  META_ARCHITECTURE: "MaskFormer"
  MASK_FORMER:
    NUM_OBJECT_QUERIES: 7
INPUT:
  DATASET_MAPPER_NAME: "coco_panoptic_lsj"
"""
# As the repository does at import: it registers a model, cuts COCO's things, registers ADE20K under
# a name that is ours, and adds keys of which two are ours as well.
PACKAGE = """
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn

coco = MetadataCatalog.get("coco_2017_val_panoptic")
things = list(coco.thing_classes)[:80]
del coco.thing_classes
coco.set(thing_classes=things)
DatasetCatalog.register("ade20k_panoptic_train", lambda: [])
MetadataCatalog.get("ade20k_panoptic_train").set(thing_classes=["theirs"])
DatasetCatalog.register("coco_2017_val_panoptic_with_sem_seg", lambda: [])


@META_ARCH_REGISTRY.register()
class MaskFormer(nn.Module):
    pass


def add_maskformer2_config(cfg):
    cfg.INPUT.DATASET_MAPPER_NAME = "mask_former_semantic"
    cfg.SOLVER.OPTIMIZER = "ADAMW_OF_THEIRS"
    cfg.MODEL.MASK_FORMER = CfgNode({"NUM_OBJECT_QUERIES": 100})
"""


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "theirs.yaml"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture
def repository(tmp_path, monkeypatch, catalogs):
    """A package ``mask2former`` on the path."""
    (tmp_path / "repository" / "mask2former").mkdir(parents=True)
    (tmp_path / "repository" / "mask2former" / "__init__.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path / "repository")
    yield
    sys.modules.pop("mask2former", None)
    META_ARCH_REGISTRY._obj_map.pop("MaskFormer", None)


def test_its_config_loads_with_our_data_and_metadata(config_file, repository):
    things = list(MetadataCatalog.get(COCO).thing_classes)
    loader = DatasetCatalog.data["ade20k_panoptic_train"]
    ours = list(MetadataCatalog.get("ade20k_panoptic_train").thing_classes)
    assert len(things) == 133
    cfg = load_config(config_file)
    assert "MaskFormer" in META_ARCH_REGISTRY
    assert cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES == 7
    assert cfg.INPUT.DATASET_MAPPER_NAME in DATASET_MAPPER_REGISTRY
    assert MetadataCatalog.get(COCO).thing_classes == things
    assert MetadataCatalog.get("ade20k_panoptic_train").thing_classes == ours
    assert DatasetCatalog.data["ade20k_panoptic_train"] is loader
    assert "coco_2017_val_panoptic_with_sem_seg" in DatasetCatalog
    # A second config: the package is imported already.
    assert load_config(config_file).MODEL.MASK_FORMER.NUM_OBJECT_QUERIES == 7


def test_a_mapper_of_ours_is_kept(config_file, repository):
    cfg = load_config(config_file, ["INPUT.DATASET_MAPPER_NAME", "PanopticDatasetMapper"])
    assert cfg.INPUT.DATASET_MAPPER_NAME == "PanopticDatasetMapper"


def test_without_the_repository_the_error_says_what_to_do(config_file):
    with pytest.raises(ConfigError, match="PYTHONPATH.*HFMask2Former"):
        load_config(config_file)


def test_other_models_import_nothing(repository):
    load_config("configs/scenes/ldmseg_scenes64.yaml")
    load_config(opts=["MODEL.META_ARCHITECTURE", "PanopticFPN"])
    assert "mask2former" not in sys.modules
