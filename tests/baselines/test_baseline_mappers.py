"""What the mappers of the baselines add, against naive loops over the segments."""

import numpy as np
import pytest
import torch
from data.conftest import tiny  # noqa: F401  a fixture
from data.helpers import BOX, DOT, tiny_config

from ldmseg_d2.baselines import add_baseline_config
from ldmseg_d2.data import build_dataset_mapper, load_dataset_dicts

pytestmark = pytest.mark.usefixtures("tiny")


def record_of(name, *, is_train=True, min_area=1):
    cfg = tiny_config()
    add_baseline_config(cfg)
    cfg.INPUT.DATASET_MAPPER_NAME, cfg.INPUT.LDMSEG.MIN_SEGMENT_AREA = name, min_area
    cfg.INPUT.GAUSSIAN_SIGMA = 2
    return build_dataset_mapper(cfg, is_train=is_train)(load_dataset_dicts(["tiny"])[2])


def test_instances_are_the_things():
    record = record_of("InstancesDatasetMapper")
    instances, ids = record["instances"], record["segment_ids"]
    things = [s for s in record["segments_info"] if s["isthing"]]
    assert instances.image_size == tuple(ids.shape)
    assert instances.gt_classes.tolist() == [BOX, BOX, DOT]
    for k, thing in enumerate(things):
        mask = ids == thing["id"]
        assert torch.equal(instances.gt_masks.tensor[k], mask)
        ys, xs = np.nonzero(mask.numpy())
        box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert instances.gt_boxes.tensor[k].tolist() == box


def test_queries_have_stuff_as_well():
    record = record_of("QueryDatasetMapper")
    instances, segments = record["instances"], record["segments_info"]
    assert instances.gt_classes.tolist() == [s["category_id"] for s in segments]
    assert instances.gt_masks.sum(dim=(1, 2)).tolist() == [s["area"] for s in segments]


def test_centers_and_offsets():
    record = record_of("PanopticDeepLabDatasetMapper")
    ids = record["segment_ids"]
    things = {s["id"] for s in record["segments_info"] if s["isthing"]}
    for id_ in things:
        ys, xs = np.nonzero((ids == id_).numpy())
        cy, cx = ys.mean(), xs.mean()
        assert record["center"][round(cy), round(cx)] == 1.0
        assert np.allclose(record["offset"][0, ys, xs], cy - ys, atol=1e-4)
        assert np.allclose(record["offset"][1, ys, xs], cx - xs, atol=1e-4)
    is_thing = torch.tensor([i in things for i in ids.flatten().tolist()]).view(ids.shape)
    assert torch.equal(record["offset_weights"][0] > 0, is_thing)
    assert torch.equal(record["center_weights"][0] > 0, ids > 0)


def test_a_picture_without_things_or_without_annotations():
    plain = record_of("PanopticDatasetMapper", is_train=False)
    for name in ("InstancesDatasetMapper", "QueryDatasetMapper", "PanopticDeepLabDatasetMapper"):
        assert set(record_of(name, is_train=False)) == set(plain)
        empty = record_of(name, min_area=100)
        assert [s["isthing"] for s in empty["segments_info"]] == [False]
    assert not empty["offset_weights"].any() and not empty["center"].any()
    instances = record_of("InstancesDatasetMapper", min_area=100)["instances"]
    assert instances.gt_masks.tensor.shape == (0, 24, 24)
