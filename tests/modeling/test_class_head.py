import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ldmseg_d2.modeling.class_head import MaskPoolingHead, cell_shares


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
