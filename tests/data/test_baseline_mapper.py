"""What the mappers of the baselines add, against naive loops over the segments."""

import numpy as np
import pytest
import torch

from ldmseg_d2.data import build_dataset_mapper, load_dataset_dicts

from .helpers import BOX, DOT, tiny_config


def record_of(name, tiny, *, is_train=True, **kwargs):
    cfg = tiny_config(**kwargs)
    cfg.INPUT.DATASET_MAPPER_NAME = name
    cfg.INPUT.GAUSSIAN_SIGMA = 2
    return build_dataset_mapper(cfg, is_train=is_train)(load_dataset_dicts(["tiny"])[2])


@pytest.mark.parametrize("flip", ["horizontal", "none"])
def test_instances_are_the_things(tiny, flip):
    record = record_of("InstancesDatasetMapper", tiny, flip=flip)
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


def test_queries_have_stuff_as_well(tiny):
    record = record_of("QueryDatasetMapper", tiny)
    instances = record["instances"]
    assert isinstance(instances.gt_masks, torch.Tensor)
    assert instances.gt_classes.tolist() == [s["category_id"] for s in record["segments_info"]]
    areas = [s["area"] for s in record["segments_info"]]
    assert instances.gt_masks.sum(dim=(1, 2)).tolist() == areas


def test_centers_and_offsets(tiny):
    record = record_of("PanopticDeepLabDatasetMapper", tiny)
    ids = record["segment_ids"]
    things = {s["id"] for s in record["segments_info"] if s["isthing"]}
    center, offset = record["center"], record["offset"]
    assert center.shape == ids.shape and offset.shape == (2, *ids.shape)
    for id_ in things:
        ys, xs = np.nonzero((ids == id_).numpy())
        cy, cx = ys.mean(), xs.mean()
        assert center[round(cy), round(cx)] == 1.0
        assert np.allclose(offset[0, ys, xs], cy - ys, atol=1e-4)
        assert np.allclose(offset[1, ys, xs], cx - xs, atol=1e-4)
    is_thing = torch.tensor([i in things for i in ids.flatten().tolist()]).view(ids.shape)
    assert torch.equal(record["offset_weights"][0] > 0, is_thing)
    assert torch.equal(record["center_weights"][0] > 0, ids > 0)


@pytest.mark.parametrize(
    "name", ["InstancesDatasetMapper", "QueryDatasetMapper", "PanopticDeepLabDatasetMapper"]
)
def test_nothing_is_added_without_annotations(tiny, name):
    plain = record_of("PanopticDatasetMapper", tiny, is_train=False)
    record = record_of(name, tiny, is_train=False)
    assert set(record) == set(plain) and torch.equal(record["image"], plain["image"])


def test_a_picture_without_things(tiny):
    record = record_of("InstancesDatasetMapper", tiny)
    assert len(record["instances"]) == 3
    cfg = tiny_config()
    cfg.INPUT.LDMSEG.MIN_SEGMENT_AREA = 100
    for name in ("InstancesDatasetMapper", "PanopticDeepLabDatasetMapper"):
        cfg.INPUT.DATASET_MAPPER_NAME = name
        empty = build_dataset_mapper(cfg, is_train=True)(load_dataset_dicts(["tiny"])[2])
        assert [s["isthing"] for s in empty["segments_info"]] == [False]
        if "instances" in empty:
            assert len(empty["instances"]) == 0
            assert empty["instances"].gt_masks.tensor.shape == (0, 24, 24)
        else:
            assert not empty["offset_weights"].any() and not empty["center"].any()
