import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldmseg_d2.inpainting.patterns import PATTERNS, known_mask

CASES = {
    "drop": st.floats(0.02, 0.98), "seed": st.integers(0, 10**6),
    "height": st.integers(8, 40), "width": st.integers(8, 40),
}  # fmt: skip


def truth(seed, height, width):
    rng = np.random.default_rng(seed)
    ids = np.kron(rng.integers(0, 6, (4, 4)), np.ones((10, 10), dtype=int))[:height, :width]
    ids[0, 0] = 7  # a segment of one pixel
    return ids


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_seed_gives_one_mask_and_the_share_may_be_nothing_or_all(pattern):
    ids = truth(0, 40, 40)
    first, again, *others = (known_mask(pattern, ids, drop=0.5, seed=s) for s in (3, 3, 4, 5, 6))
    assert first.shape == ids.shape and first.dtype == bool and np.array_equal(first, again)
    assert any(not np.array_equal(first, m) for m in others)
    assert known_mask(pattern, ids, drop=0, seed=0).all()
    assert not known_mask(pattern, ids, drop=1, seed=0).any()
    assert known_mask(pattern, np.zeros((12, 12), dtype=int), drop=0.5, seed=0).shape == (12, 12)


@settings(max_examples=30)
@given(size=st.integers(1, 17), **CASES)
def test_blocks_and_segments_drop_an_exact_number_as_wholes(size, drop, seed, height, width):
    ids = truth(seed, height, width)
    known = known_mask("block", ids, drop=drop, seed=seed, block_size=size)
    blocks = []
    for y in range(0, height, size):
        for x in range(0, width, size):
            block = known[y : y + size, x : x + size]
            assert block.all() or not block.any()
            blocks.append(bool(block.any()))
    assert blocks.count(False) == round(drop * len(blocks))
    known = known_mask("segment", ids, drop=drop, seed=seed)
    labels = [i for i in np.unique(ids) if i != 0]
    kept = [i for i in labels if known[ids == i].any()]
    assert all(known[ids == i].all() for i in kept) and not known[ids == 0].any()
    assert len(labels) - len(kept) == round(drop * len(labels))


@settings(max_examples=30)
@given(**CASES)
def test_numbers_of_pixels_are_exact(drop, seed, height, width):
    ids = truth(seed, height, width)
    for pattern in ("half_plane", "brush"):
        known = known_mask(pattern, ids, drop=drop, seed=seed)
        assert (~known).sum() == round(drop * ids.size)
    for pattern in ("points", "clicks"):
        known = known_mask(pattern, ids, drop=drop, seed=seed)
        for label in np.unique(ids[ids != 0]):
            expected = max(1, round((1 - drop) * (ids == label).sum()))
            assert known[ids == label].sum() == expected
        assert not known[ids == 0].any()


def test_shapes_and_wrong_arguments():
    ids = np.ones((40, 40), dtype=int)
    rows, columns = np.nonzero(known_mask("clicks", ids, drop=0.9, seed=2))
    assert max(np.ptp(rows), np.ptp(columns)) < 26  # 160 pixels: a disc of radius 7.1
    with pytest.raises(ValueError, match="unknown pattern 'stars'; allowed: block, segment"):
        known_mask("stars", ids, drop=0.5, seed=0)
    with pytest.raises(ValueError, match="share to drop is 50"):
        known_mask("block", ids, drop=50, seed=0)
