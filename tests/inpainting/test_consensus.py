import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maps import partition, segments_of

from ldmseg_d2.inpainting import consensus


def samples_of(maps, **more):
    return [(ids, segments_of(ids, **more)) for ids in maps]


def noisy_maps(seed, count):
    """Maps of one picture whose segments differ at some pixels, under names of their own."""
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, 6, (4, 4)), np.ones((4, 4), dtype=int))
    maps = []
    for _ in range(count):
        noisy = np.where(rng.random(truth.shape) < 0.15, rng.integers(0, 6, truth.shape), truth)
        # Increasing names: in a tie, the first segment of a map wins.
        names = np.concatenate([[0], np.sort(rng.permutation(50)[:5]) + 1])
        maps.append(torch.from_numpy(names[noisy]))
    return truth, maps


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 5))
def test_names_play_no_part_and_agreement_is_certain(seed, count):
    rng = np.random.default_rng(seed + 1)
    truth, maps = noisy_maps(seed, count)
    names = [np.concatenate([[0], np.sort(rng.permutation(500)[:60]) + 1]) for _ in maps]
    first = consensus(samples_of(maps))
    second = consensus(samples_of([torch.from_numpy(n)[m] for n, m in zip(names, maps)]))
    assert partition(first[0]) == partition(second[0]) and torch.equal(first[2], second[2])
    same = [torch.from_numpy((rng.permutation(99)[:6] + 1)[truth] * (truth > 0)) for _ in maps]
    ids, infos, uncertainty = consensus(samples_of(same))
    assert partition(ids) == partition(truth) and not uncertainty.any()
    assert [(s["id"], s["area"]) for s in infos] == [(s["id"], s["area"]) for s in segments_of(ids)]
    assert all(s["score"] == pytest.approx(0.5) for s in infos)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(5)))
def test_the_order_of_the_samples_plays_no_part(seed, order):
    """Three samples agree on each pixel at least: no ties."""
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(1, 6, (4, 4)), np.ones((4, 4), dtype=int))
    maps = [truth.copy() for _ in range(5)]
    for pixel in rng.permutation(truth.size)[:40]:
        for k in rng.permutation(5)[:2]:
            maps[k].flat[pixel] = 0
    maps = [torch.from_numpy(m) for m in maps]
    first = consensus(samples_of(maps))
    second = consensus(samples_of([maps[i] for i in order]))
    assert partition(first[0]) == partition(second[0]) == partition(truth)
    assert torch.equal(first[2], second[2])
    shares = torch.stack([m == torch.from_numpy(truth) for m in maps]).float().mean(0)
    torch.testing.assert_close(first[2], 1 - shares)


def test_small_labels_withdraw_unless_they_are_fixed():
    a, b = torch.tensor([[1, 1, 1, 1, 7, 0]]), torch.tensor([[1, 1, 1, 1, 1, 8]])
    ids, _, uncertainty = consensus(samples_of([a, a, b]), min_area=2)
    assert ids.tolist() == [[1, 1, 1, 1, 1, 0]]
    assert uncertainty[0, 4] == pytest.approx(2 / 3)
    ids, _, _ = consensus(samples_of([a, a, b]), min_area=2, fixed_ids=[7])
    assert ids[0, 4] == 7


def test_fixed_ids_are_matched_by_name_and_keep_it():
    a = torch.tensor([[40, 40, 40, 40, 0, 0, 7, 7]])
    b = torch.tensor([[40, 3, 3, 3, 3, 0, 7, 7]])  # most of the segment has another name here
    ids, infos, uncertainty = consensus(samples_of([a, b, a]), fixed_ids=[40, 7])
    assert torch.equal(ids.long(), a) and [s["id"] for s in infos] == [7, 40]
    assert uncertainty[0, 1] == pytest.approx(1 / 3)
    # New labels avoid the fixed names also where those do not occur.
    ids, _, _ = consensus(samples_of([torch.tensor([[5, 5, 6]])]), fixed_ids=[1, 5])
    assert ids.tolist() == [[5, 5, 2]]


def test_empty_maps_and_wrong_input():
    nothing = torch.zeros(2, 3, dtype=torch.int64)
    ids, infos, uncertainty = consensus(samples_of([nothing, nothing]))
    assert not ids.any() and infos == [] and not uncertainty.any()
    for maps in ([], [nothing, nothing[:1]]):
        with pytest.raises(ValueError, match="at least one map, all of one size"):
            consensus(samples_of(maps))
