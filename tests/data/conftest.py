"""Fixtures: data sets that are registered for one test."""

import pytest

from ldmseg_d2.data.datasets.register_panoptic import register_panoptic_dataset

from .helpers import CATEGORIES, write_tiny


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
