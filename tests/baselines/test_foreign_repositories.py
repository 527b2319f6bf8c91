"""The original Mask2Former repository: imported only when asked for, and harmless to the rest."""

import sys

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY

from ldmseg_d2.engine.config_reader import ConfigError, load_config

COCO, ADE20K = "coco_2017_val_panoptic", "ade20k_panoptic_train"
CONFIG = """
MODEL: {META_ARCHITECTURE: "MaskFormer", MASK_FORMER: {NUM_OBJECT_QUERIES: 7}}
INPUT: {DATASET_MAPPER_NAME: "coco_panoptic_lsj"}
"""
# As the repository does at import: it registers a model, cuts COCO's things, registers ADE20K under
# a name that is ours, and adds keys of which two are ours as well.
PACKAGE = """
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY

coco = MetadataCatalog.get("coco_2017_val_panoptic")
things = list(coco.thing_classes)[:80]
del coco.thing_classes
coco.set(thing_classes=things)
DatasetCatalog.register("ade20k_panoptic_train", lambda: [])
MetadataCatalog.get("ade20k_panoptic_train").set(thing_classes=["theirs"])
DatasetCatalog.register("coco_2017_val_panoptic_with_sem_seg", lambda: [])
META_ARCH_REGISTRY.register(type("MaskFormer", (), {}))


def add_maskformer2_config(cfg):
    cfg.INPUT.DATASET_MAPPER_NAME = "mask_former_semantic"
    cfg.MODEL.MASK_FORMER = CfgNode({"NUM_OBJECT_QUERIES": 100})
"""


def test_its_config_loads_with_our_data_and_metadata(tmp_path, monkeypatch, catalogs):
    config_file = tmp_path / "theirs.yaml"
    config_file.write_text(CONFIG)
    with pytest.raises(ConfigError, match="PYTHONPATH.*HFMask2Former"):
        load_config(str(config_file))
    (tmp_path / "mask2former.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    # No other model imports it.
    load_config(opts=["MODEL.META_ARCHITECTURE", "PanopticFPN"])
    assert "mask2former" not in sys.modules
    things, loader = list(MetadataCatalog.get(COCO).thing_classes), DatasetCatalog.data[ADE20K]
    try:
        cfg = load_config(str(config_file))
        assert "MaskFormer" in META_ARCH_REGISTRY
    finally:
        sys.modules.pop("mask2former", None)
        META_ARCH_REGISTRY._obj_map.pop("MaskFormer", None)
    assert cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES == 7
    assert cfg.INPUT.DATASET_MAPPER_NAME == "QueryDatasetMapper"
    assert MetadataCatalog.get(COCO).thing_classes == things and len(things) == 133
    assert MetadataCatalog.get(ADE20K).thing_classes != ["theirs"]
    assert DatasetCatalog.data[ADE20K] is loader
    assert "coco_2017_val_panoptic_with_sem_seg" in DatasetCatalog
