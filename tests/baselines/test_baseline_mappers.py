"""What the mappers of the baselines add, against naive loops over the segments."""

import numpy as np
import pytest
import torch
from data.conftest import tiny  # noqa: F401  a fixture
from data.helpers import tiny_config

from ldmseg_d2.baselines import add_baseline_config
from ldmseg_d2.data import build_dataset_mapper, load_dataset_dicts

pytestmark = pytest.mark.usefixtures("tiny")


def record_of(name, *, min_area=1):
    cfg = tiny_config()
    add_baseline_config(cfg)
    cfg.INPUT.DATASET_MAPPER_NAME, cfg.INPUT.LDMSEG.MIN_SEGMENT_AREA = name, min_area
    cfg.INPUT.GAUSSIAN_SIGMA = 2
    return build_dataset_mapper(cfg, is_train=True)(load_dataset_dicts(["tiny"])[2])


@pytest.mark.parametrize("min_area", [1, 100])  # of 100 pixels there are no things
@pytest.mark.parametrize("name", ["InstancesDatasetMapper", "QueryDatasetMapper"])
def test_instances_are_the_things_or_all_segments(name, min_area):
    record = record_of(name, min_area=min_area)
    instances, ids, things = record["instances"], record["segment_ids"], name[0] == "I"
    segments = [s for s in record["segments_info"] if s["isthing"] or not things]
    assert len(segments) == (3 if things else 4) - (3 if min_area == 100 else 0)
    assert instances.gt_classes.tolist() == [s["category_id"] for s in segments]
    masks = instances.gt_masks.tensor if things else instances.gt_masks
    assert masks.shape == (len(segments), *ids.shape)
    for k, segment in enumerate(segments):
        assert torch.equal(masks[k], ids == segment["id"])
        ys, xs = np.nonzero(masks[k].numpy())
        box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert not things or instances.gt_boxes.tensor[k].tolist() == box


@pytest.mark.parametrize("min_area", [1, 100])
def test_centers_and_offsets(min_area):
    record = record_of("PanopticDeepLabDatasetMapper", min_area=min_area)
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
