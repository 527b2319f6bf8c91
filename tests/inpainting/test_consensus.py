import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ldmseg_d2.inpainting import consensus


def infos_of(ids, **more):
    labels, areas = torch.unique(ids, return_counts=True)
    return [
        {"id": i, "area": a, "score": 0.5, **more}
        for i, a in zip(labels.tolist(), areas.tolist())
        if i != 0
    ]


def samples_of(maps, **more):
    return [(ids, infos_of(ids, **more)) for ids in maps]


def noisy_maps(seed, count):
    """Maps of one picture whose segments differ at some pixels, under random names."""
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, 6, (4, 4)), np.ones((4, 4), dtype=int))
    maps = []
    for _ in range(count):
        noisy = np.where(rng.random(truth.shape) < 0.15, rng.integers(0, 6, truth.shape), truth)
        names = np.concatenate([[0], rng.permutation(50)[:5] + 1])
        maps.append(torch.from_numpy(names[noisy]))
    return truth, maps


def partition(ids):
    flat = ids.flatten().tolist()
    return {frozenset(i for i, v in enumerate(flat) if v == label) for label in set(flat) - {0}}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 5))
def test_agreement_is_certain_whatever_the_names(seed, count):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 5, (7, 9))
    names = [np.concatenate([[0], rng.permutation(90)[:4] + 1]) for _ in range(count)]
    maps = [torch.from_numpy(name[truth]) for name in names]
    ids, infos, uncertainty = consensus(samples_of(maps))
    assert partition(ids) == partition(torch.from_numpy(truth))
    assert torch.equal(uncertainty, torch.zeros(7, 9))
    areas = dict(zip(*(t.tolist() for t in torch.unique(ids, return_counts=True))))
    assert {s["id"]: s["area"] for s in infos} == {i: a for i, a in areas.items() if i != 0}
    assert all(s["score"] == pytest.approx(0.5) for s in infos)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 5))
def test_names_play_no_part(seed, count):
    _, maps = noisy_maps(seed, count)
    rng = np.random.default_rng(seed + 1)
    renamed = []
    for ids in maps:
        # Increasing names: in a tie, the first segment of a map wins.
        names = np.concatenate([[0], np.sort(rng.permutation(500)[:60] + 1)])
        renamed.append(torch.from_numpy(names)[ids])
    first, second = consensus(samples_of(maps)), consensus(samples_of(renamed))
    assert partition(first[0]) == partition(second[0])
    assert torch.equal(first[2], second[2])


@settings(max_examples=15, deadline=None)
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
    assert partition(first[0]) == partition(second[0]) == partition(torch.from_numpy(truth))
    assert torch.equal(first[2], second[2])
    shares = torch.stack([m == torch.from_numpy(truth) for m in maps]).float().mean(0)
    torch.testing.assert_close(first[2], 1 - shares)


def test_voting_beats_the_mean_sample():
    gains = []
    for seed in range(10):
        truth, maps = noisy_maps(seed, 5)
        ids, _, uncertainty = consensus(samples_of(maps))
        assert 0 <= uncertainty.min() and uncertainty.max() <= 1

        def accuracy(ids, truth=truth):
            """Share of pixels whose segment's majority is the pixel's own truth."""
            right = 0
            for label in np.unique(ids):
                right += np.bincount(truth[ids == label]).max()
            return right / truth.size

        mean = np.mean([accuracy(m.numpy()) for m in maps])
        gains.append(accuracy(ids.numpy()) - mean)
    assert min(gains) > 0 and np.mean(gains) > 0.05


def test_the_vote_by_hand():
    a = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 0]])
    b = torch.tensor([[9, 9, 9, 9, 4, 4, 4, 0]])
    c = torch.tensor([[3, 3, 3, 5, 5, 5, 5, 6]])
    samples = [(a, infos_of(a, category_id=1, isthing=True)),
               (b, infos_of(b, category_id=0, isthing=False)),
               (c, infos_of(c, category_id=1, isthing=True))]  # fmt: skip
    ids, infos, uncertainty = consensus(samples)
    assert ids.tolist() == [[1, 1, 1, 1, 2, 2, 2, 0]]
    third = pytest.approx(1 / 3)
    assert uncertainty[0].tolist() == [0, 0, 0, third, 0, 0, 0, third]
    assert [s["category_id"] for s in infos] == [1, 1] and infos[0]["isthing"] is True
    assert [s["area"] for s in infos] == [4, 3]


def test_small_labels_withdraw():
    a = torch.tensor([[1, 1, 1, 1, 7, 0]])
    b = torch.tensor([[1, 1, 1, 1, 7, 0]])
    c = torch.tensor([[1, 1, 1, 1, 1, 8]])
    ids, _, uncertainty = consensus(samples_of([a, b, c]), min_area=2)
    assert ids.tolist() == [[1, 1, 1, 1, 1, 0]]
    assert uncertainty[0, 4] == pytest.approx(2 / 3)


def test_fixed_ids_are_matched_by_name_and_keep_it():
    a = torch.tensor([[40, 40, 40, 40, 0, 0, 7, 7]])
    b = torch.tensor([[40, 3, 3, 3, 3, 0, 7, 7]])  # most of the segment has another name here
    ids, infos, uncertainty = consensus(samples_of([a, b, a]), fixed_ids=[40, 7])
    assert ids.tolist() == [[40, 40, 40, 40, 0, 0, 7, 7]]
    assert uncertainty[0, 1] == pytest.approx(1 / 3)
    assert {s["id"] for s in infos} == {7, 40}
    # No threshold deletes a fixed one.
    ids, _, _ = consensus(samples_of([a, b, a]), fixed_ids=[7], min_area=3)
    assert ids[0, 6:].tolist() == [7, 7]
    ids, _, _ = consensus(samples_of([a, b, a]), min_area=3)
    assert ids[0, 6:].tolist() == [0, 0]
    # New labels avoid the fixed names also where those do not occur.
    ids, _, _ = consensus(samples_of([torch.tensor([[5, 5, 6]])]), fixed_ids=[1, 5])
    assert ids.tolist() == [[5, 5, 2]]


def test_empty_maps_and_wrong_input():
    nothing = torch.zeros(2, 3, dtype=torch.int64)
    ids, infos, uncertainty = consensus(samples_of([nothing, nothing]))
    assert not ids.any() and infos == [] and not uncertainty.any()
    with pytest.raises(ValueError, match="at least one map"):
        consensus([])
    with pytest.raises(ValueError, match="of one size"):
        consensus(samples_of([nothing, nothing[:1]]))
