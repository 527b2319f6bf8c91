import logging

import pytest
import torch
from tiny import CLASSES, JOINT, tiny_config, tiny_multitask_batch, without

from ldmseg_d2.diffusion import SampleRandomness
from ldmseg_d2.meta_arch.build import build_autoencoders
from ldmseg_d2.meta_arch.task_base import build_tasks
from ldmseg_d2.meta_arch.task_batches import TaskLayout, encode_targets

MODES = pytest.mark.parametrize("mode", ["separate", "joint"])


@pytest.fixture(scope="module")
def tasks():
    cfg = tiny_config(JOINT, *CLASSES, "MODEL.LDMSEG.ID_ASSIGNMENT", "random")
    return build_tasks(cfg, build_autoencoders(cfg))


def seeded(entries):
    entries = [dict(entry, sample_seed=i) for i, entry in enumerate(entries)]
    return SampleRandomness(entries, torch.device("cpu"))


@pytest.mark.parametrize(
    "weights, missing, expected",
    [([1, 2, 5], (), [1, 2, 5]), ([1, 2, 5], ("depth",), [1, 2, 0]), ([0, 1, 0], (), [0, 1, 0])],
)
def test_separate_draws_a_task_for_every_picture_by_weight(tasks, weights, missing, expected):
    entries = [without(tiny_multitask_batch(1, 16)[0], *missing)] * 4000
    batch = TaskLayout(tasks, weights=weights).for_training(entries, seeded(entries))
    assert batch.images == list(range(4000))
    shares = [weight / sum(expected) for weight in expected]
    # Four standard deviations of a share are at most 0.032.
    found = [(batch.tasks == k).float().mean() for k in range(3)]
    assert found == pytest.approx(shares, abs=0.032)
    for block in batch.blocks:
        assert all(tasks[batch.tasks[row]] is block.task for row in block.rows)
    assert sum(len(block.rows) for block in batch.blocks) == 4000


@MODES
def test_targets_are_those_of_the_annotations_and_nothing_else(tasks, mode):
    """What a picture lacks is neither valid nor read, and a weight of 0 is never learnt."""
    layout = TaskLayout(tasks, mode=mode, weights=[1, 1, 4])
    entries = tiny_multitask_batch(4)
    entries = [without(entries[0], "sem_seg"), without(entries[1], "depth"), *entries[2:]]
    batch = layout.for_training(entries, seeded(entries))
    like = torch.zeros(4, layout.latent_channels, 16, 16)
    targets = encode_targets(batch, entries, like=like, randomness=seeded(entries), predicted=None)
    covered = torch.zeros_like(like, dtype=torch.bool)
    for block in batch.blocks:
        own = seeded(entries).of_samples(block.rows)
        target = block.task.encode([entries[row] for row in block.rows], own, None)
        assert torch.equal(block.of(targets.x0), target.latents)
        cells = torch.ones(1, 1, 16, 16) > 0 if target.valid is None else target.valid
        assert torch.equal(block.of(targets.valid), cells.expand_as(target.latents))
        covered[block.rows, block.channels] = True
    assert not targets.x0[~covered].any() and not targets.valid[~covered].any()
    assert targets.weights.eq(1).all()
    if mode == "joint":
        assert layout.latent_channels == 48 and batch.tasks.tolist() == [0] * 4
        assert [block.rows for block in batch.blocks] == [[0, 1, 2, 3], [1, 2, 3], [0, 2, 3]]


@MODES
def test_pictures_without_annotation_raise_or_warn(tasks, mode, caplog):
    layout = TaskLayout(tasks, mode=mode)
    bare = without(tiny_multitask_batch(1)[0], "segment_ids", "sem_seg", "depth")
    with pytest.raises(KeyError, match="0.png.*'segment_ids', 'sem_seg', 'depth'"):
        layout.for_training([bare], seeded([bare]))
    invalid = dict(bare, depth=torch.zeros(64, 64))
    with caplog.at_level(logging.WARNING):
        batch = layout.for_training([invalid], seeded([invalid]))
    assert batch.images == [0] and batch.blocks == [] and batch.segments is None


def test_inference_asks_each_picture_for_its_own_tasks(tasks):
    layout, entries = TaskLayout(tasks), tiny_multitask_batch(3)
    complete = layout.for_inference(entries)
    keys = dict(zip(zip(complete.images, complete.tasks.tolist()),
                    layout.noise_keys(entries, complete)))  # fmt: skip
    entries[0]["tasks"], entries[2]["tasks"] = ["depth"], ["semantic", "instance"]
    batch = layout.for_inference(entries)
    pairs = list(zip(batch.images, batch.tasks.tolist(), strict=True))
    assert pairs == [(0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    # What seeds a row's noise is the same whatever else is asked for, and differs among tasks.
    assert layout.noise_keys(entries, batch) == [keys[pair] for pair in pairs]
    draws = layout.noise_keys([dict(entry, draw=1) for entry in entries], batch)
    assert len({*keys.values(), *draws}) == 9 + 6
    assert [row for row in batch.segments.rows] == [1, 4]
    assert batch.only_segments().blocks == [batch.segments]


@MODES
def test_wrong_values_name_their_keys(tasks, mode):
    for asked in (["depth", "normals"], []):
        entry = dict(tiny_multitask_batch(1)[0], tasks=asked)
        with pytest.raises(ValueError, match="0.png.*has the tasks instance, semantic, depth"):
            TaskLayout(tasks, mode=mode).for_inference([entry])
    for weights in ([1, 1], [1, -1, 1], [0, 0, 0]):
        with pytest.raises(ValueError, match="TASK_WEIGHTS.*each of the 3 tasks"):
            TaskLayout(tasks, mode=mode, weights=weights)
    with pytest.raises(ValueError, match="TASK_MODE is 'both'; allowed: separate, joint"):
        TaskLayout(tasks, mode="both")
    cfg = tiny_config(JOINT, *CLASSES, "MODEL.LDMSEG.AUTOENCODER.LATENT_CHANNELS", 8)
    others = build_tasks(cfg, build_autoencoders(cfg))
    with pytest.raises(ValueError, match=r"\[\(8, 16\), \(16, 16\)\]"):
        TaskLayout([tasks[0], others[2]], mode=mode)
