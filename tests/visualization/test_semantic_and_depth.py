"""Maps of classes and of depth: which colour stands where, and what belongs together."""

import numpy as np
import pytest
import torch
from detectron2.structures import Instances

from ldmseg_d2.modeling.depth_normalization import DepthNormalization
from ldmseg_d2.visualization import (
    Style,
    class_colors,
    class_map,
    depth_range,
    draw_annotations,
    draw_depth,
    draw_legend,
    draw_outputs,
    draw_semantic,
    output_segments,
)

COLORS = [[10, 200, 30], [200, 10, 30], [40, 50, 250]]
PHOTO = np.full((20, 30, 3), 100, np.uint8)


def brightness(picture):
    return picture.astype(float).sum(-1)


def test_classes_have_the_metadatas_colours_and_void_is_dark():
    classes = np.zeros((20, 30), np.int64)
    classes[:, 10:20], classes[:, 20:] = 2, 255
    picture = draw_semantic(PHOTO, classes, colors=COLORS, alpha=1, draw_boundaries=False)
    assert (picture[:, :10] == COLORS[0]).all() and (picture[:, 10:20] == COLORS[2]).all()
    assert picture[:, 20:].max() < 80
    # Scores: the largest wins.
    scores = torch.nn.functional.one_hot(torch.from_numpy(classes % 255), 3).permute(2, 0, 1)
    drawn = draw_semantic(PHOTO, scores * 0.5, colors=COLORS, alpha=1, draw_boundaries=False)
    np.testing.assert_array_equal(drawn[:, :20], picture[:, :20])
    # The colour of a class does not depend on which others are there, nor on metadata being there.
    alone = draw_semantic(PHOTO, np.full((20, 30), 2), alpha=1)
    assert (alone == class_colors(9)[2]).all()
    with pytest.raises(ValueError, match="do not belong"):
        draw_semantic(PHOTO, classes[1:])


def test_pixels_without_scores_have_no_class():
    scores = torch.zeros(3, 2, 2)
    scores[1, 0, 0], scores[:, 1, 1] = 0.5, float("nan")
    np.testing.assert_array_equal(class_map(scores), [[1, 255], [255, 255]])
    # Logits may all be negative; a single class is always it.
    assert class_map(torch.tensor([-3.0, -2.0]).view(2, 1, 1)) == 1
    assert class_map(torch.zeros(1, 1, 1)) == 0


def test_names_are_written_in_large_pictures_only():
    for side, changes in ((40, False), (240, True)):
        photo, classes = np.zeros((side, side, 3), np.uint8), np.ones((side, side), np.int64)
        plain = draw_semantic(photo, classes, colors=COLORS)
        named = draw_semantic(photo, classes, colors=COLORS, class_names=["a", "floor"])
        assert (plain != named).any() == changes


def test_near_is_bright_far_is_dark_and_invalid_striped():
    depth = torch.linspace(1, 5, 12).expand(8, 12).clone()
    picture = draw_depth(depth, scale=2)
    assert picture.shape == (16, 24, 3) and picture.dtype == np.uint8
    assert (np.diff(brightness(picture[:, ::2]), axis=1) <= 0).all()
    assert brightness(picture)[0, 0] > brightness(picture)[0, -1] + 300
    depth[:, 3] = float("nan")
    valid = torch.ones_like(depth, dtype=torch.bool)
    valid[:, 7] = False
    dark = draw_depth(depth, valid)[:, [3, 7]]
    assert set(np.unique(dark)) <= {34, 38, 62, 68}
    # A given range makes pictures comparable; a flat map is no error.
    shown = {"range": (1.0, 5.0)}
    np.testing.assert_array_equal(
        draw_depth(depth[:, :2], **shown), draw_depth(depth, **shown)[:, :2]
    )
    assert len(np.unique(draw_depth(torch.ones(4, 4)).reshape(-1, 3), axis=0)) == 1
    assert depth_range(depth, torch.zeros_like(valid)) == (0.0, 1.0)
    # Logarithmic: 2 is as far from 1 as 4 is from 2.
    steps = torch.tensor([[1.0, 2.0, 4.0]])
    np.testing.assert_array_equal(
        draw_depth(steps, range=(1, 4), log=True), draw_depth(steps.log2(), range=(0, 2))
    )
    with pytest.raises(ValueError, match="above 0"):
        draw_depth(depth, range=(0.0, 1.0), log=True)
    with pytest.raises(ValueError, match="near, far"):
        draw_depth(depth, range=(2.0, 1.0))
    with pytest.raises(ValueError, match="both must be"):
        draw_depth(depth, valid[1:])


def test_the_scale_says_metres_where_they_are_known():
    depth = torch.linspace(1, 5, 200).expand(200, 200)
    plain = draw_depth(depth, draw_scale=False)
    relative, metric = draw_depth(depth), draw_depth(depth, unit="m")
    for picture in (relative, metric):
        changed = (picture != plain).any(-1)
        assert changed[-10:].any() and not changed[:170].any() and not changed[:, 190:].any()
    assert (relative != metric).any()


def test_legend_shows_each_colour_and_keeps_its_size():
    legend = draw_legend(["floor", "box", "sky"], COLORS, height=120, width=200)
    assert legend.shape == (120, 200, 3)
    for color in COLORS:
        assert (legend == color).all(-1).sum() > 50
    assert (draw_legend([], [], height=5, width=6) == 255).all()
    assert draw_legend(["x"] * 900, COLORS * 300, height=50, width=60).shape == (50, 60, 3)


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
    for kind, given in (("relative", share), ("metric", depth)):
        style = Style(depth=DepthNormalization(kind))
        drawn = draw_outputs(PHOTO, {"depth": given}, style, truth)["depth"]
        assert np.abs(drawn.astype(int) - expected).max() <= 6
    # The prediction, which is twice as far, must not look the same.
    style = Style(depth=DepthNormalization("metric"))
    drawn = draw_outputs(PHOTO, {"depth": 2 * depth}, style, truth)["depth"]
    assert brightness(drawn).mean() < brightness(expected).mean() - 50


def test_pixels_that_are_more_probably_void_are_drawn_as_void():
    probabilities = torch.zeros(3, 20, 30)
    probabilities[1] = 0.6
    probabilities[:, :, :10] = 0.1  # void has 0.7
    expected = torch.full((20, 30), 1)
    expected[:, :10] = 255
    drawn, truth = (
        draw_outputs(PHOTO, {"sem_seg": x})["semantic"] for x in (probabilities, expected)
    )
    assert (drawn == truth).all()
    logits = 10 * probabilities  # no probabilities: the largest wins
    drawn = draw_outputs(PHOTO, {"sem_seg": logits})["semantic"]
    truth = draw_outputs(PHOTO, {"sem_seg": class_map(logits)})["semantic"]
    assert (drawn == truth).all()


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
