import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldmseg_d2.evaluation.inpainting_baselines import nearest_fill, random_walker_fill


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_nearest_fill_against_all_distances(seed, share):
    rng = np.random.default_rng(seed)
    ids, mask = rng.integers(0, 9, (6, 8)), rng.random((6, 8)) < share
    filled = nearest_fill(ids, mask)
    if not mask.any():
        assert not filled.any()
        return
    known = np.argwhere(mask)
    for y, x in np.ndindex(ids.shape):
        distances = ((known - (y, x)) ** 2).sum(1)
        allowed = {ids[tuple(p)] for p in known[distances == distances.min()]}
        assert filled[y, x] in allowed


def test_the_walker_stops_at_the_photos_edge_and_keeps_what_is_known():
    pytest.importorskip("skimage")
    truth = np.full((24, 24), 40)
    truth[:, 9:] = 7
    truth[:6] = 0
    photo = np.random.default_rng(0).integers(0, 8, (24, 24, 3)).astype(np.uint8)
    photo[truth == 7] += 120
    photo[truth == 0] += 240
    mask = np.zeros((24, 24), dtype=bool)
    mask[20, 2] = mask[20, 20] = mask[2, 10] = True
    walked = random_walker_fill(photo, truth, mask)
    assert (walked == truth).mean() > 0.98
    assert (nearest_fill(truth, mask) == truth).mean() < 0.9
    assert np.array_equal(walked[mask], truth[mask])
    # One region, none, all: no walk.
    one = np.zeros_like(mask)
    one[3:6, 3:6] = True
    assert not random_walker_fill(photo, truth, one).any()
    assert not random_walker_fill(photo, truth, np.zeros_like(mask)).any()
    assert np.array_equal(random_walker_fill(photo, truth, np.ones_like(mask)), truth)
