import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ldmseg_d2.modeling.class_head import CellHead, MaskPoolingHead, cell_shares


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), height=st.integers(1, 5), width=st.integers(1, 5))
def test_cell_shares_are_those_of_a_loop_over_pixels(seed, height, width):
    """Also where cells hold different numbers of pixels, and where an id is absent."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 4, (6, 7), generator=generator)
    shares = cell_shares(ids, 4, height, width)
    expected = torch.zeros(4, height * width)
    for y in range(6):
        for x in range(7):
            k = int(ids[y, x])
            if k:
                cell = (y * height // 6) * width + x * width // 7
                expected[k - 1, cell] += 1 / int((ids == k).sum())
    torch.testing.assert_close(shares, expected)
    assert not shares[3].any()


def test_head_classifies_the_mean_feature_of_a_segment():
    torch.manual_seed(0)
    head = MaskPoolingHead(in_channels=5, num_classes=3)
    features = torch.randn(5, 4, 4)
    ids = torch.zeros(8, 8, dtype=torch.int64)
    ids[:4, :6] = 1  # six whole cells
    ids[4:, 7] = 2  # half of the cells (2, 3) and (3, 3)
    logits = head(features, ids, 2)
    means = torch.stack([features[:, :2, :3].mean((1, 2)), features[:, 2:, 3].mean(1)])
    torch.testing.assert_close(logits, head.linear(head.norm(means)))
    assert head(features, torch.zeros_like(ids), 0).shape == (0, 3)


def test_no_classes_raise():
    with pytest.raises(ValueError, match="at least one class, got 0"):
        MaskPoolingHead(in_channels=5, num_classes=0)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), subdivision=st.sampled_from([1, 2, 4]))
def test_cell_loss_is_the_mean_of_the_labelled_pixels(seed, subdivision):
    """Each with the logits of its own part of the cell: a naive loop."""
    torch.manual_seed(seed)
    head = CellHead(in_channels=5, num_classes=3, subdivision=subdivision)
    features = torch.randn(2, 5, 4, 4)
    classes = torch.randint(0, 5, (2, 16, 16))
    classes[classes > 2] = 255
    logits = head(features)
    side, weight, bias = 4 // subdivision, head.conv.weight[:, :, 0, 0], head.conv.bias
    pixels = []
    for b, y, x in itertools.product(range(2), range(16), range(16)):
        if classes[b, y, x] == 255:
            continue
        part = y % 4 // side * subdivision + x % 4 // side
        rows = torch.arange(3) * subdivision**2 + part
        expected = weight[rows] @ features[b, :, y // 4, x // 4] + bias[rows]
        torch.testing.assert_close(logits[b, :, y // side, x // side], expected)
        pixels.append(-expected.log_softmax(0)[classes[b, y, x]])
    torch.testing.assert_close(head.loss(features, classes), torch.stack(pixels).mean())


def test_a_subdivision_below_one_is_refused():
    with pytest.raises(ValueError, match="CELL_LOSS_SUBDIVISION must be at least 1, got 0"):
        CellHead(in_channels=5, num_classes=3, subdivision=0)


def test_void_teaches_cells_nothing_but_all_parameters_have_gradients():
    head = CellHead(in_channels=5, num_classes=3)
    features = torch.randn(2, 5, 4, 4, requires_grad=True)
    loss = head.loss(features, torch.full((2, 8, 8), 255))
    loss.backward()
    assert loss == 0 and not features.grad.any()
    assert all(p.grad is not None and not p.grad.any() for p in head.parameters())
