import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldmseg_d2.inpainting.patterns import PATTERNS, known_mask

SHARES = st.floats(0.02, 0.98)
SEEDS = st.integers(0, 10**6)
SIDES = st.integers(8, 40)


def truth(seed, height, width):
    rng = np.random.default_rng(seed)
    ids = np.kron(rng.integers(0, 6, (4, 4)), np.ones((10, 10), dtype=int))[:height, :width]
    ids[0, 0] = 7  # a segment of one pixel
    return ids


@pytest.mark.parametrize("pattern", PATTERNS)
def test_one_seed_gives_one_mask_and_another_another(pattern):
    ids = truth(0, 40, 40)
    first = known_mask(pattern, ids, drop=0.5, seed=3)
    assert first.shape == ids.shape and first.dtype == bool
    assert np.array_equal(first, known_mask(pattern, ids, drop=0.5, seed=3))
    others = [known_mask(pattern, ids, drop=0.5, seed=s) for s in (4, 5, 6)]
    assert pattern == "center" or any(not np.array_equal(first, m) for m in others)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_drop_nothing_and_all(pattern):
    ids = truth(1, 16, 24)
    assert known_mask(pattern, ids, drop=0, seed=0).all()
    assert not known_mask(pattern, ids, drop=1, seed=0).any()
    empty = np.zeros((12, 12), dtype=int)
    assert known_mask(pattern, empty, drop=0.5, seed=0).shape == (12, 12)


@settings(max_examples=30, deadline=None)
@given(drop=SHARES, seed=SEEDS, height=SIDES, width=SIDES, size=st.integers(1, 17))
def test_blocks_drop_an_exact_number_of_whole_blocks(drop, seed, height, width, size):
    ids = truth(seed, height, width)
    known = known_mask("block", ids, drop=drop, seed=seed, block_size=size)
    blocks = []
    for y in range(0, height, size):
        for x in range(0, width, size):
            block = known[y : y + size, x : x + size]
            assert block.all() or not block.any()
            blocks.append(bool(block.any()))
    assert blocks.count(False) == round(drop * len(blocks))


@settings(max_examples=30, deadline=None)
@given(drop=SHARES, seed=SEEDS, height=SIDES, width=SIDES)
def test_segments_drop_whole(drop, seed, height, width):
    ids = truth(seed, height, width)
    known = known_mask("segment", ids, drop=drop, seed=seed)
    labels = [i for i in np.unique(ids) if i != 0]
    kept = [i for i in labels if known[ids == i].any()]
    assert all(known[ids == i].all() for i in kept)
    assert len(labels) - len(kept) == round(drop * len(labels))
    assert not known[ids == 0].any()


@settings(max_examples=30, deadline=None)
@given(
    drop=SHARES, seed=SEEDS, height=SIDES, width=SIDES,
    pattern=st.sampled_from(("half_plane", "center", "brush")),
)  # fmt: skip
def test_an_exact_number_of_pixels_is_dropped(drop, seed, height, width, pattern):
    ids = truth(seed, height, width)
    known = known_mask(pattern, ids, drop=drop, seed=seed)
    assert (~known).sum() == round(drop * ids.size)


@settings(max_examples=40, deadline=None)
@given(
    drop=SHARES, seed=SEEDS, height=SIDES, width=SIDES,
    pattern=st.sampled_from(("points", "clicks", "scribble")),
)  # fmt: skip
def test_every_segment_keeps_an_exact_number_of_pixels(drop, seed, height, width, pattern):
    ids = truth(seed, height, width)
    known = known_mask(pattern, ids, drop=drop, seed=seed)
    for label in np.unique(ids[ids != 0]):
        area = (ids == label).sum()
        assert known[ids == label].sum() == max(1, round((1 - drop) * area))
    assert not known[ids == 0].any()


def test_shapes():
    ids = np.ones((40, 40), dtype=int)
    box = ~known_mask("center", ids, drop=0.25, seed=0)
    assert box[10:30, 10:30].all() and box.sum() == 400
    rows, columns = np.nonzero(known_mask("clicks", ids, drop=0.9, seed=2))
    spread = max(np.ptp(rows), np.ptp(columns))
    assert spread < 26  # 160 pixels: a disc of radius 7.1, or a part of one at the border
    half = known_mask("half_plane", ids, drop=0.5, seed=1)
    # A line separates: the hull of the known pixels' centroid side holds no dropped pixel.
    known, dropped = np.argwhere(half).mean(0), np.argwhere(~half).mean(0)
    side = (np.indices(ids.shape).reshape(2, -1).T - (known + dropped) / 2) @ (known - dropped)
    assert ((side > 0) == half.reshape(-1)).mean() > 0.97


def test_wrong_arguments():
    ids = np.ones((8, 8), dtype=int)
    with pytest.raises(ValueError, match="unknown pattern 'stars'; allowed: block, segment"):
        known_mask("stars", ids, drop=0.5, seed=0)
    with pytest.raises(ValueError, match="share to drop is 50"):
        known_mask("block", ids, drop=50, seed=0)
    for pattern, options in (
        ("block", {"block_size": 0}), ("clicks", {"clicks": 0}), ("brush", {"width": 0})
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"{next(iter(options))} is 0"):
            known_mask(pattern, ids, drop=0.5, seed=0, **options)
