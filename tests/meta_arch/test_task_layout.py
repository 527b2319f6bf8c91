import logging

import pytest
import torch
from tiny import CLASSES, JOINT, tiny_config, tiny_multitask_batch

from ldmseg_d2.meta_arch.batching import SampleRandomness
from ldmseg_d2.meta_arch.build import build_autoencoders
from ldmseg_d2.meta_arch.tasks import TaskLayout, build_tasks

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tasks():
    cfg = tiny_config(JOINT, *CLASSES)
    return build_tasks(cfg, build_autoencoders(cfg))


def training_batch(layout, tasks, entries, seed=0):
    torch.manual_seed(seed)
    return layout.for_training(tasks, entries, SampleRandomness(entries, CPU))


def without(entry, *keys):
    return {key: value for key, value in entry.items() if key not in keys}


def shares(batch, num_tasks=3):
    return [batch.tasks.count(k) / len(batch.tasks) for k in range(num_tasks)]


def test_separate_draws_a_task_for_every_picture_by_weight(tasks):
    layout = TaskLayout(tasks, weights=[1, 2, 5])
    entries = tiny_multitask_batch(1) * 4000
    batch = training_batch(layout, tasks, entries)
    assert batch.images == list(range(4000))
    # Four standard deviations of a share are at most 0.032.
    assert shares(batch) == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.032)
    for block in batch.blocks:
        assert all(batch.tasks[row] == block.task for row in block.rows)
    assert sum(len(block.rows) for block in batch.blocks) == 4000
    assert layout.loss_weights == [1, 1, 1], "the draw weighs already"


def test_a_missing_annotation_leaves_the_others_their_proportion(tasks):
    layout = TaskLayout(tasks, weights=[1, 2, 5])
    batch = training_batch(layout, tasks, [without(tiny_multitask_batch(1)[0], "depth")] * 4000)
    assert shares(batch) == pytest.approx([1 / 3, 2 / 3, 0], abs=0.032)


def test_a_weight_of_0_is_never_drawn(tasks):
    entry = tiny_multitask_batch(1)[0]
    layout = TaskLayout(tasks, weights=[0, 1, 0])
    assert shares(training_batch(layout, tasks, [entry] * 500)) == [0, 1, 0]
    # Not even where there is nothing else.
    assert training_batch(layout, tasks, [without(entry, "sem_seg", "depth")] * 3).blocks == []


@pytest.mark.parametrize("mode", ["separate", "joint"])
@pytest.mark.parametrize("weights", [[1, 1], [1, -1, 1], [0, 0, 0]])
def test_wrong_weights_name_their_key(tasks, mode, weights):
    with pytest.raises(ValueError, match="TASK_WEIGHTS.*each of the 3 tasks"):
        TaskLayout(tasks, mode=mode, weights=weights)


def test_an_unknown_mode_names_its_key(tasks):
    with pytest.raises(ValueError, match="TASK_MODE is 'both'; allowed: separate, joint"):
        TaskLayout(tasks, mode="both")


def test_latents_of_different_shapes_raise(tasks):
    cfg = tiny_config(JOINT, *CLASSES, "MODEL.LDMSEG.AUTOENCODER.LATENT_CHANNELS", 8)
    others = build_tasks(cfg, build_autoencoders(cfg))
    with pytest.raises(ValueError, match=r"\[\(8, 16\), \(16, 16\)\]"):
        TaskLayout([tasks[0], others[2]])


def test_joint_puts_the_tasks_side_by_side(tasks):
    layout = TaskLayout(tasks, mode="joint", weights=[1, 1, 4])
    first, second = tiny_multitask_batch(2)
    batch = training_batch(layout, tasks, [without(first, "sem_seg"), without(second, "depth")])
    assert (layout.latent_channels, layout.num_embedded_tasks) == (48, 1)
    assert batch.images == [0, 1] and batch.tasks == [0, 0]
    assert [block.rows for block in batch.blocks] == [[0, 1], [1], [0]]
    numbers = torch.arange(2 * 48).view(2, 48, 1, 1)
    parts = [block.of(numbers).flatten().tolist() for block in batch.blocks]
    assert parts[1] == list(range(48 + 16, 48 + 32)) and parts[2] == list(range(32, 48))
    assert sorted(sum(parts, [])) == sorted({*range(16), *range(32, 48), *range(48, 80)})
    assert layout.loss_weights == [0.5, 0.5, 2.0]


@pytest.mark.parametrize("mode", ["separate", "joint"])
def test_a_picture_without_any_annotation_raises(tasks, mode):
    layout = TaskLayout(tasks, mode=mode)
    bare = without(tiny_multitask_batch(1)[0], "segment_ids", "sem_seg", "depth")
    with pytest.raises(KeyError, match="0.png.*'segment_ids', 'sem_seg', 'depth'"):
        training_batch(layout, tasks, tiny_multitask_batch(1) + [bare])


@pytest.mark.parametrize("mode", ["separate", "joint"])
def test_a_picture_whose_depth_is_invalid_everywhere_only_warns(tasks, mode, caplog):
    entry = without(tiny_multitask_batch(1)[0], "segment_ids", "sem_seg")
    entry["depth"] = torch.zeros_like(entry["depth"])
    with caplog.at_level(logging.WARNING):
        batch = training_batch(TaskLayout(tasks, mode=mode), tasks, [entry])
    assert batch.images == [0] and batch.blocks == []


def test_inference_asks_each_picture_for_its_own_tasks(tasks):
    layout = TaskLayout(tasks)
    entries = tiny_multitask_batch(3)
    entries[0]["tasks"] = ["depth"]
    entries[2]["tasks"] = ["semantic", "instance"]
    batch = layout.for_inference(entries)
    pairs = list(zip(batch.images, batch.tasks, strict=True))
    assert pairs == [(0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    for block in batch.blocks:
        assert block.rows == [row for row, (_, k) in enumerate(pairs) if k == block.task]
    # What seeds a row's noise is the same whatever else is asked for, and differs among tasks.
    keys = [key for _, key in layout.noise_keys(entries, batch)]
    for entry in entries:
        entry.pop("tasks", None)
    complete = layout.for_inference(entries)
    all_pairs = list(zip(complete.images, complete.tasks, strict=True))
    all_keys = [key for _, key in layout.noise_keys(entries, complete)]
    assert len(set(all_keys)) == 9
    assert keys == [all_keys[all_pairs.index(pair)] for pair in pairs]


@pytest.mark.parametrize("mode", ["separate", "joint"])
@pytest.mark.parametrize("asked", [["depth", "normals"], []])
def test_unknown_tasks_of_an_input_raise(tasks, mode, asked):
    entry = dict(tiny_multitask_batch(1)[0], tasks=asked)
    with pytest.raises(ValueError, match="0.png.*has the tasks instance, semantic, depth"):
        TaskLayout(tasks, mode=mode).for_inference([entry])


@pytest.mark.parametrize("names", [[], ["instance", "normals"], ["instance", "instance"]])
def test_wrong_tasks_of_a_config_raise(names):
    cfg = tiny_config(JOINT, *CLASSES, "MODEL.LDMSEG.TASKS", names)
    with pytest.raises(ValueError, match="MODEL.LDMSEG.TASKS is .*one or more of .*semantic"):
        build_autoencoders(cfg)
