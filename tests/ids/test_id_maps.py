import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ldmseg_d2.ids import (
    assign_ids,
    code_matrix,
    encode_bits,
    keep_largest,
    match_ids,
    segment_masks,
)
from ldmseg_d2.ids.id_maps import positional_id_table, segment_centroids
from ldmseg_d2.ids.matching import matched_id_table, segment_means

METHODS = ("random", "ordered", "positional")


def blocks(seed: int, num_segments: int) -> torch.Tensor:
    """(1, 12, 16) map in which every id 1..num_segments occurs, some void."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, num_segments + 1, (12, 16))
    ids.flat[generator.permutation(ids.size)[:num_segments]] = np.arange(1, num_segments + 1)
    return torch.from_numpy(ids).unsqueeze(0)


def partition(ids: torch.Tensor) -> set:
    flat = ids.flatten().tolist()
    return {frozenset(i for i, v in enumerate(flat) if v == label) for label in set(flat) - {0}}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 15), method=st.sampled_from(METHODS))
def test_assignment_keeps_the_partition_and_void(seed, count, method):
    ids = blocks(seed, count)
    assigned = assign_ids(ids, num_bits=4, method=method)
    assert partition(assigned) == partition(ids)
    assert torch.equal(assigned == 0, ids == 0)
    assert assigned.max() < 16


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), method=st.sampled_from(("ordered", "positional")))
def test_ordered_and_positional_ids_do_not_depend_on_the_given_ids(seed, method):
    # Without collisions: two segments with one code keep their order of arrival.
    ids = torch.zeros(1, 16, 16, dtype=torch.int64)
    ids[0, :4, :4], ids[0, :4, 12:], ids[0, 12:, :4], ids[0, 12:, 12:] = 1, 2, 3, 4
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed)) + 1
    shuffled = torch.cat([torch.zeros(1, dtype=torch.int64), order])[ids]
    assert torch.equal(
        assign_ids(ids, num_bits=7, method=method), assign_ids(shuffled, num_bits=7, method=method)
    )


def test_random_ids_follow_the_generator_and_differ():
    ids = blocks(0, 10)
    draws = [
        assign_ids(ids, num_bits=7, method="random", generator=torch.Generator().manual_seed(s))
        for s in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_ordered_ids_run_in_raster_order():
    ids = torch.zeros(1, 8, 8, dtype=torch.int64)
    ids[0, 6:, :2], ids[0, :2, 6:], ids[0, :2, :2] = 1, 2, 3
    assigned = assign_ids(ids, num_bits=3, method="ordered")[0]
    assert (assigned[0, 0], assigned[0, 7], assigned[7, 0]) == (1, 2, 3)


def test_positional_ids_are_gray_coded_bins():
    # 7 bits: 3 of y (8 bins), 4 of x (16 bins). y bin 2 -> gray 3, x bin 5 -> gray 7.
    table = positional_id_table(torch.tensor([[2.5 / 8, 5.5 / 16]]).double(), 7, (), ())
    assert table.tolist() == [0, (3 << 4) | 7]


def test_positional_collisions_take_the_nearest_free_code():
    twins = torch.tensor([[0.3, 0.3], [0.3, 0.3], [0.01, 0.01]]).double()
    first, second, origin = positional_id_table(twins, 7, (), ())[1:].tolist()
    assert (first ^ second).bit_count() == 1
    assert origin.bit_count() == 1  # code 0 is void: one bit away is the nearest there is


def test_positional_edges_are_checked():
    with pytest.raises(ValueError, match="expected 7"):
        positional_id_table(torch.rand(2, 2).double(), 7, (0.5,), ())
    with pytest.raises(ValueError, match="increase"):
        positional_id_table(torch.rand(2, 2).double(), 4, (0.5, 0.4, 0.6), ())


def test_centroids_against_a_naive_loop():
    ids = blocks(3, 6)[0]
    centroids = segment_centroids(ids, 6)
    for k in range(1, 7):
        ys, xs = np.nonzero(ids.numpy() == k)
        np.testing.assert_allclose(
            centroids[k - 1], [(ys + 0.5).mean() / 12, (xs + 0.5).mean() / 16], rtol=1e-12
        )


def test_keep_largest_drops_the_smallest_and_counts_them():
    ids = torch.tensor([[9, 9, 9, 4], [7, 7, 0, 5]])
    kept, dropped = keep_largest(ids, 2)
    assert dropped == 2
    assert kept.tolist() == [[2, 2, 2, 0], [1, 1, 0, 0]]
    everything, dropped = keep_largest(ids, 4)
    assert dropped == 0 and everything.max() == 4


def test_segment_masks_leave_void_out():
    labels, masks = segment_masks(torch.tensor([[0, 3], [5, 3]]))
    assert labels.tolist() == [3, 5]
    assert masks.sum(dim=(1, 2)).tolist() == [2, 1]


def test_unknown_method_and_too_many_segments_raise():
    with pytest.raises(ValueError, match="allowed: random, ordered, positional"):
        assign_ids(blocks(0, 3), num_bits=7, method="alphabetical")
    with pytest.raises(ValueError, match="2 bits hold 3"):
        assign_ids(blocks(0, 5), num_bits=2, method="random")


def test_segment_means_against_a_naive_loop():
    ids = blocks(1, 5)[0]
    values = torch.randn(3, 12, 16)
    means = segment_means(ids, values, 5)
    for k in range(1, 6):
        torch.testing.assert_close(means[k - 1], values[:, ids == k].mean(dim=1))


def test_matched_ids_have_the_largest_total_score():
    scores = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    table = matched_id_table(scores).tolist()
    best = max(
        itertools.permutations(range(1, 6), 3),
        key=lambda ids: sum(float(scores[k, i]) for k, i in enumerate(ids)),
    )
    assert table == [0, *best]


def test_match_ids_finds_a_naming_again():
    """A prediction that names the segments its own way: matching takes over that naming."""
    truth = blocks(2, 6)
    named = assign_ids(truth, num_bits=4, method="random",
                       generator=torch.Generator().manual_seed(3))  # fmt: skip
    noisy = encode_bits(named, 4) + 0.3 * torch.randn(1, 4, 12, 16)
    codes = code_matrix(4)

    def expand(bits):
        logits = torch.einsum("kb,nbhw->nkhw", codes, bits)
        return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)

    assert torch.equal(match_ids(truth, noisy, expand), named)
