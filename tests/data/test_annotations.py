"""Relabelling of one picture's segments: byte round trips, naive loops, invariances."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ldmseg_d2.data.annotations import index_segments, join_bytes, keep_segments, split_bytes

from .helpers import id2rgb, same_partition

ID_MAPS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda size: st.lists(
        st.sampled_from([0, 1, 255, 256, 70000, 2**24 - 1]),
        min_size=size[0] * size[1],
        max_size=size[0] * size[1],
    ).map(lambda values: np.array(values, dtype=np.int32).reshape(size))
)


@given(ids=ID_MAPS)
def test_bytes_round_trip(ids):
    assert np.array_equal(join_bytes(split_bytes(ids)), ids)
    assert np.array_equal(split_bytes(ids), id2rgb(ids))


@given(ids=ID_MAPS)
def test_index_segments_against_a_naive_loop(ids):
    labels, segments = index_segments(ids, None, "x.png")
    present = sorted(set(ids.ravel().tolist()) - {0})
    assert [s["id"] for s in segments] == present
    naive = np.zeros(ids.shape, int)
    for i, value in enumerate(present, start=1):
        naive[ids == value] = i
    assert np.array_equal(labels, naive)


@given(ids=ID_MAPS, order=st.randoms())
def test_relabelling_ids_keeps_the_segments(ids, order):
    """Other ids, and another order of the JSON, give the same segments."""
    present = sorted(set(ids.ravel().tolist()) - {0})
    shuffled = present[:]
    order.shuffle(shuffled)
    other = np.zeros_like(ids)
    for old, new in zip(present, shuffled):
        other[ids == old] = new * 2 % (2**24 - 5)
    infos = [{"id": i, "category_id": i % 7} for i in present]
    other_infos = [
        {"id": new * 2 % (2**24 - 5), "category_id": old % 7} for old, new in zip(present, shuffled)
    ]
    order.shuffle(other_infos)
    labels, segments = index_segments(ids, infos, "x.png")
    a, a_infos = keep_segments(labels, segments, 2)
    labels, segments = index_segments(other, other_infos, "x.png")
    b, b_infos = keep_segments(labels, segments, 2)
    assert same_partition(a, b) and np.array_equal(a == 0, b == 0)
    assert sorted((s["category_id"], s["area"]) for s in a_infos) == sorted(
        (s["category_id"], s["area"]) for s in b_infos
    )
