"""Loaders: the same samples whatever the workers, the processes, or where a run was resumed."""

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ldmseg_d2.data import ResumableTrainingSampler, build_test_loader, build_train_loader
from ldmseg_d2.data.sampler import sample_seed, seeded_rng

from .helpers import tiny_config


def batches(cfg, number, start_iter=0):
    return list(itertools.islice(build_train_loader(cfg, start_iter=start_iter), number))


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(itertools.chain(*a), itertools.chain(*b)):
        assert x.keys() == y.keys()
        for key, value in x.items():
            if isinstance(value, torch.Tensor):
                assert value.dtype == y[key].dtype and torch.equal(value, y[key]), key
            else:
                assert value == y[key], key


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_samples_do_not_depend_on_workers(tiny, workers):
    options = {"resize": "large_scale_jitter", "batch": 3}
    expected = batches(tiny_config(**options), 7)
    assert_same(batches(tiny_config(**options, workers=workers), 7), expected)
    # Epochs of 5 samples: each is a permutation.
    order = [r["image_id"] for batch in expected for r in batch]
    assert len(order) == 21 and all(len(batch) == 3 for batch in expected)
    for epoch in range(4):
        assert sorted(order[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]
    assert order[:5] != order[5:10] or order[5:10] != order[10:15]


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_continues_exactly(tiny, workers):
    cfg = tiny_config(resize="large_scale_jitter", batch=3, workers=workers)
    whole = batches(cfg, 9)
    assert_same(batches(cfg, 5, start_iter=4), whole[4:])


def test_global_generators_are_left_alone(tiny):
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    batches(tiny_config(), 2)
    list(build_test_loader(tiny_config(), "tiny"))
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected


def test_seeded_rng_is_a_function_of_seed_and_position():
    def draw(seed, position):
        with seeded_rng(seed, position):
            return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw(0, 10**12) == draw(0, 10**12)
    keys = [(s, p) for s in range(5) for p in range(5)]
    assert len({draw(*key) for key in keys}) == len(keys)
    with pytest.raises(ZeroDivisionError):
        before = np.random.get_state()[1].copy()
        with seeded_rng(0, 0):
            raise ZeroDivisionError
    assert np.array_equal(np.random.get_state()[1], before)


# Seed 0, position 0.
GOLDEN_SEED = 4324601099084218337
# Two epochs of 8 samples, seed 0.
GOLDEN_ORDER = [3, 2, 5, 1, 7, 4, 6, 0, 5, 6, 4, 3, 1, 7, 2, 0]


def sampler_of(size, rank=0, world_size=1, **options):
    sampler = ResumableTrainingSampler(size, **options)
    sampler.rank, sampler.world_size = rank, world_size
    return sampler


def take(sampler, number):
    return list(itertools.islice(sampler.shard(1, 0, 1), number))


@given(
    size=st.integers(1, 13),
    world=st.sampled_from([1, 2, 3, 6]),
    start=st.integers(0, 4),
    seed=st.integers(0, 3),
)
def test_global_batches_do_not_depend_on_the_world_size(size, world, start, seed):
    total = 6
    plain = take(sampler_of(size, seed=seed), total * 9)
    assert [p for p, _ in plain] == list(range(total * 9))
    ranks = [
        take(
            sampler_of(size, rank, world, seed=seed, start=start * total),
            total // world * 5,
        )
        for rank in range(world)
    ]
    share = total // world
    for i in range(5):
        batch = sorted(itertools.chain(*(r[i * share : (i + 1) * share] for r in ranks)))
        assert batch == plain[(start + i) * total : (start + i + 1) * total]


@given(batch=st.integers(1, 4), workers=st.integers(1, 4))
def test_shards_make_up_the_stream(batch, workers):
    sampler = sampler_of(7, 1, 2, seed=0, start=3)
    shards = [sampler.shard(batch, w, workers) for w in range(workers)]
    joined = [x for w in range(8) for x in itertools.islice(shards[w % workers], batch)]
    assert joined == take(sampler, 8 * batch)


def test_sampler_starts_far_away_at_once():
    ((position, index),) = take(sampler_of(118287, seed=0, start=10**15), 1)
    assert position == 10**15 and 0 <= index < 118287
    # Pinned: a checkpoint's place in the data must mean the same in later versions.
    assert [i for _, i in take(sampler_of(8, seed=0), 16)] == GOLDEN_ORDER


@pytest.mark.parametrize("workers", [0, 2])
def test_test_loader(tiny, workers):
    cfg = tiny_config(workers=workers)
    cfg.TEST.IMS_PER_BATCH = 2
    loader = build_test_loader(cfg, "tiny")
    assert [[r["image_id"] for r in batch] for batch in loader] == [[0, 1], [2, 3], [4]]
    assert len(loader) == 3
    cfg.TEST.MAX_IMAGES = 3
    assert [r["image_id"] for batch in build_test_loader(cfg, "tiny") for r in batch] == [0, 1, 2]


def test_sample_seeds_are_the_positions_own(tiny):
    cfg = tiny_config(batch=2)
    seeds = [r["sample_seed"] for batch in batches(cfg, 6) for r in batch]
    assert seeds == [sample_seed(cfg.SEED, position) for position in range(12)]
    assert len(set(seeds)) == 12 and all(0 <= seed < 2**63 for seed in seeds)
    # Pinned: a resumed training must draw what it would have drawn.
    assert sample_seed(0, 0) == GOLDEN_SEED
    assert sample_seed(0, 1) != sample_seed(1, 0)
    assert all("sample_seed" not in r for batch in build_test_loader(cfg, "tiny") for r in batch)


@pytest.mark.parametrize(
    "batch, steps, message",
    [(4, 3, "ACCUMULATION_STEPS 3"), (4, 0, "S 0"), (0, 1, "IMS_PER_BATCH")],
)
def test_batch_and_micro_batches_are_checked(tiny, batch, steps, message):
    cfg = tiny_config(batch=batch)
    cfg.SOLVER.ACCUMULATION_STEPS = steps
    with pytest.raises(ValueError, match=message):
        build_train_loader(cfg)
