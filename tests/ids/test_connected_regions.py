import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from ldmseg_d2.ids import connected_regions


@given(seed=st.integers(0, 10**6), share=st.floats(0, 0.6), min_area=st.integers(1, 9))
def test_regions_are_scipys(seed, share, min_area):
    mask = np.random.default_rng(seed).random((7, 9)) < share
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    expected = {(labels == k).tobytes() for k in range(1, count + 1)}
    expected = {one for one in expected if np.frombuffer(one, bool).sum() >= min_area}
    assert {one.tobytes() for one in connected_regions(mask, min_area)} == expected
