"""Fixtures: data sets that are registered for one test."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from ldmseg_d2.data.datasets.register_panoptic import register_panoptic_dataset

from .helpers import CATEGORIES, write_tiny


@pytest.fixture
def catalogs():
    """Restores Detectron2's catalogs after a test that registers."""
    datasets, metadata = dict(DatasetCatalog.data), dict(MetadataCatalog.data)
    yield
    DatasetCatalog.data, MetadataCatalog.data = datasets, metadata


@pytest.fixture
def tiny(tmp_path, catalogs):
    """The folder of a tiny panoptic data set of 5 pictures (32x24), registered as "tiny"."""
    root = write_tiny(tmp_path / "tiny")
    register_panoptic_dataset(
        "tiny",
        categories=CATEGORIES,
        image_root=str(root / "photos"),
        panoptic_root=str(root / "panoptic"),
        panoptic_json=str(root / "panoptic.json"),
        depth_root=str(root / "depth"),
        evaluator_type="coco_panoptic_seg",
        how_to_make="write_tiny(root)",
    )
    return root
