import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from maps import partition, scattered

from ldmseg_d2.ids import keep_largest, pixel_areas, random_id_table, random_ids, relabel


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(seed=st.integers(0, 10**6), counts=st.tuples(st.integers(0, 15), st.integers(1, 15)))
def test_random_ids_are_distinct_and_keep_the_partition(seed, counts):
    maps = torch.stack([scattered(seed, count) for count in counts])
    named = random_ids(maps, 4, [generator(seed), generator(seed + 1)])
    for before, after in zip(maps, named):
        assert partition(after) == partition(before)
        assert torch.equal(after == 0, before == 0) and int(after.max()) < 16
    # A map's ids depend on its own generator alone.
    assert torch.equal(random_ids(maps[1:], 4, [generator(seed + 1)])[0], named[1])


def test_every_id_is_drawn_and_no_more():
    table = random_id_table(15, 4, generator(0)).tolist()
    assert table[0] == 0 and sorted(table[1:]) == list(range(1, 16))
    # Each id comes first equally often: 1000 draws, five standard deviations.
    first = [int(random_id_table(3, 3, generator(s))[1]) for s in range(1000)]
    assert all(abs(first.count(k) - 1000 / 7) < 56 for k in range(1, 8))
    with pytest.raises(ValueError, match="16 segments, but 4 bits hold 15"):
        random_id_table(16, 4, None)


@given(seed=st.integers(0, 10**6))
def test_pixel_areas_and_relabel_against_loops(seed):
    maps = torch.stack([scattered(seed, 5, (5, 6)), scattered(seed + 1, 3, (5, 6))])
    areas, table = pixel_areas(maps), torch.tensor([0, 40, 7, 9, 2, 1])
    for index in np.ndindex(*maps.shape):
        assert areas[index] == int((maps[index[0]] == maps[index]).sum())
        assert relabel(maps, table)[index] == table[int(maps[index])]


@given(seed=st.integers(0, 10**6), limit=st.integers(1, 8))
def test_keep_largest_drops_the_smallest(seed, limit):
    ids = 10 * scattered(seed, 7, (6, 7))
    kept, dropped = keep_largest(ids, limit)
    assert dropped == max(7 - limit, 0)
    assert kept.unique().tolist() in ([*range(8 - dropped)], [*range(1, 8 - dropped)])
    assert partition(kept) <= partition(ids)
    lost = partition(ids) - partition(kept)
    assert max(map(len, lost), default=0) <= min(map(len, partition(kept)))
