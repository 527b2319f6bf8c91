"""Maps of classes and of depth: which colour stands where, and what belongs together."""

import numpy as np
import torch
from detectron2.structures import Instances

from ldmseg_d2.visualization import (
    Style,
    class_map,
    depth_range,
    draw_annotations,
    draw_depth,
    draw_outputs,
    draw_semantic,
    output_segments,
)

COLORS = [[10, 200, 30], [200, 10, 30], [40, 50, 250]]
PHOTO = np.zeros((20, 30, 3), np.uint8)


def brightness(picture):
    return picture.astype(float).sum(-1)


def test_classes_have_the_metadatas_colours_and_void_is_dark():
    classes = np.zeros((20, 30), np.int64)
    classes[:, 10:20], classes[:, 20:] = 2, 255
    picture = draw_semantic(PHOTO, classes, colors=COLORS)
    assert np.abs(picture[:, 1:10] - 0.7 * np.array(COLORS[0])).max() <= 0.5
    assert picture[:, 21:].max() < 80
    # The colour of a class depends neither on which others are there, nor on metadata.
    alone = draw_semantic(PHOTO, np.full((20, 30), 1))
    both = draw_semantic(PHOTO, np.where(classes == 0, 1, 0))
    assert (alone[:, 1:10] == both[:, 1:10]).all()


def test_pixels_without_a_class():
    scores = torch.tensor([[[0.1, 0.5, 0.0]], [[0.2, 0.1, float("nan")]]])  # void: 0.7, 0.4
    np.testing.assert_array_equal(class_map(scores), [[255, 0, 255]])
    # Logits may all be negative, or above 1.
    assert class_map(torch.tensor([-3.0, -2.0]).view(2, 1, 1)) == 1
    np.testing.assert_array_equal(class_map(10 * scores), [[1, 0, 255]])


def test_near_is_bright_far_is_dark_and_invalid_striped():
    depth = torch.linspace(1, 5, 12).expand(8, 12).clone()
    picture = draw_depth(depth, *depth_range(depth), scale=2)
    assert picture.shape == (16, 24, 3) and picture.dtype == np.uint8
    assert (np.diff(brightness(picture[:, ::2]), axis=1) <= 0).all()
    assert brightness(picture)[0, 0] > brightness(picture)[0, -1] + 300
    depth[:, 3], depth[:, 7] = float("nan"), -1
    assert set(np.unique(draw_depth(depth, 1, 5)[:, [3, 7]])) <= {34, 38, 62, 68}
    # A given range makes pictures comparable; a flat map is no error.
    whole, part = (draw_depth(d, near=1, far=5) for d in (depth, depth[:, :2]))
    np.testing.assert_array_equal(part, whole[:, :2])
    assert len(np.unique(draw_depth(torch.ones(4, 4), 1, 1).reshape(-1, 3), axis=0)) == 1
    assert depth_range(-depth.abs()) == (0.0, 1.0)
    # Logarithmic: 2 is as far from 1 as 4 is from 2.
    steps = torch.tensor([[1.0, 2.0, 4.0]])
    np.testing.assert_array_equal(
        draw_depth(steps, near=1, far=4, log=True), draw_depth(steps.log2(), near=0, far=2)
    )


def test_panels_are_those_that_there_are():
    ids = torch.ones(20, 30, dtype=torch.int64)
    depth = torch.linspace(1, 5, 30).expand(20, 30)
    truth = {"segment_ids": ids, "sem_seg": ids, "depth": depth}
    assert list(draw_annotations(PHOTO, truth)) == ["panoptic", "semantic", "depth"]
    assert draw_annotations(PHOTO, {"depth": None}) == {} == draw_outputs(PHOTO, {})
    # Relative depth is drawn in [0, 1], metric depth in the truth's range: both are comparable.
    low, high = np.quantile(depth, (0.02, 0.98))
    share = ((depth - low) / (high - low)).clamp(0, 1)
    expected = draw_annotations(PHOTO, {"depth": depth})["depth"]
    for style, given in ((Style(depth_range=(0.0, 1.0)), share), (Style(), depth)):
        drawn = draw_outputs(PHOTO, {"depth": given}, style, truth)["depth"]
        assert np.abs(drawn.astype(int) - expected).max() <= 6
    # A prediction that is twice as far must not look the same.
    drawn = draw_outputs(PHOTO, {"depth": 2 * depth}, Style(), truth)["depth"]
    assert brightness(drawn).mean() < brightness(expected).mean() - 50


def test_instances_are_painted_with_the_best_on_top():
    instances = Instances((4, 6))
    masks = torch.zeros(3, 4, 6, dtype=torch.bool)
    masks[0, :, :4], masks[1, :, 2:], masks[2] = True, True, True
    instances.pred_masks, instances.scores = masks, torch.tensor([0.9, 0.6, 0.2])
    instances.pred_classes = torch.tensor([5, 6, 7])
    ids, info = output_segments({"instances": instances})
    assert ids[0].tolist() == [1, 1, 1, 1, 2, 2]
    assert {(s["id"], s["category_id"]) for s in info} == {(1, 5), (2, 6)}
    assert output_segments({"panoptic_seg": (ids, None)}) == (ids, [])
    assert output_segments({"sem_seg": ids}) is None
