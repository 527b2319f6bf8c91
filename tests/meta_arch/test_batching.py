import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maps import scattered
from tiny import tiny_batch

from ldmseg_d2.meta_arch.batching import (
    balanced_cells,
    pool_valid,
    stack_images,
    stack_segment_ids,
)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), balance=st.floats(0, 1))
def test_cells_weigh_by_area_whatever_the_ids_are_called(seed, balance):
    ids = torch.stack([scattered(seed + b, 5, (8, 8)) for b in range(2)])
    weights = balanced_cells(ids, 4, balance)
    renamed = torch.tensor([0, 5, 3, 1, 2, 4])[ids]
    torch.testing.assert_close(balanced_cells(renamed, 4, balance), weights)
    valid = pool_valid(ids != 0, 4)
    for b in range(2):
        # Each cell is the mean of its four pixels; void weighs as the largest segment does.
        each, share = np.zeros((4, 4)), np.zeros((4, 4))
        largest = max(int((ids[b] == k).sum()) for k in range(1, 6))
        for y, x in np.ndindex(8, 8):
            area = int((ids[b] == ids[b, y, x]).sum()) if ids[b, y, x] else largest
            each[y // 2, x // 2] += area**-balance / 4
            share[y // 2, x // 2] += bool(ids[b, y, x]) / 4
        np.testing.assert_allclose(weights[b, 0], each / each.mean(), rtol=1e-4)
        assert np.array_equal(valid[b, 0], share >= 0.5)


def test_photos_are_normalised_and_their_rim_is_repeated():
    entry = {"image": torch.arange(24).view(3, 2, 4).byte(), "file_name": "a.png"}
    mean, std = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 8.0])
    statistics = mean.view(3, 1, 1), std.view(3, 1, 1)
    (stacked,) = stack_images([entry], 5, *statistics)
    for c, y, x in np.ndindex(3, 5, 5):
        pixel = float(entry["image"][c, min(y, 1), min(x, 3)])
        assert stacked[c, y, x] == (pixel - mean[c]) / std[c]
    with pytest.raises(ValueError, match=r"a.png.*\(2, 4\), larger than.*IMAGE_SIZE 3"):
        stack_images([entry], 3, *statistics)


def test_more_segments_than_ids_become_void_with_a_warning(caplog):
    (entry,) = tiny_batch(1, 16)
    entry["segment_ids"] = torch.arange(64).view(8, 8).repeat_interleave(2, 0)
    with caplog.at_level(logging.WARNING):
        ids = stack_segment_ids([entry], 20, max_segments=3)
    assert "60 segments in 1 of 1 images became void" in caplog.text
    assert ids.shape == (1, 20, 20) and ids.unique().tolist() == [0, 1, 2, 3]
    with pytest.raises(KeyError, match="needs 'segment_ids'"):
        stack_segment_ids([{}], 20, max_segments=3)
