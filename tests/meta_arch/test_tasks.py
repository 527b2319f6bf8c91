"""Targets and outputs of the tasks, through an autoencoder that loses nothing."""

import pytest
import torch
from bit_autoencoder import BitAutoencoder
from maps import partition
from tiny import CLASSES, JOINT, tiny_model, tiny_multitask_batch

from ldmseg_d2.diffusion import SampleRandomness
from ldmseg_d2.ids import random_ids
from ldmseg_d2.meta_arch.segment_classes import Classes, SemanticVote
from ldmseg_d2.meta_arch.task_base import TASK_REGISTRY, Target
from ldmseg_d2.meta_arch.tasks import InstanceTask, SemanticTask

POSTPROCESS = {"count_threshold": 1, "overlap_threshold": 0.0}


def randomness(count):
    return SampleRandomness([{"sample_seed": i} for i in range(count)], torch.device("cpu"))


def roundtrip(task, entries, predicted=None):
    target = task.encode(entries, randomness(len(entries)), predicted)
    return task.decode(target.latents, entries)


@pytest.mark.parametrize("assignment", ["random", "matched"])
def test_the_truth_of_both_tasks_becomes_the_panoptic_truth(assignment):
    """Also a class of one pixel, a picture smaller than the square, and one of void alone."""
    autoencoder = BitAutoencoder(7)
    instance = InstanceTask(
        autoencoder, image_size=64, id_assignment=assignment, postprocess=POSTPROCESS
    )
    semantic = SemanticTask(autoencoder, image_size=64, num_classes=5, codes="spread")
    vote = SemanticVote(Classes(5, (False, True, True, True, True)))
    entries = tiny_multitask_batch(3, 48)
    single = int(entries[0]["segment_ids"].max()) + 1
    entries[0]["segment_ids"][40, 30], entries[0]["sem_seg"][40, 30] = single, 4
    entries[0]["segments_info"].append({"id": single, "category_id": 4})
    void = torch.zeros(48, 48, dtype=torch.int64)
    entries[2].update(segment_ids=void, sem_seg=void + 255, segments_info=[])
    predicted = None
    if instance.needs_prediction:  # one that names the segments its own way
        ids = torch.zeros(3, 64, 64, dtype=torch.int64)
        ids[:, :48, :48] = torch.stack([entry["segment_ids"] for entry in entries])
        named = random_ids(ids, 7, randomness(3).generators)
        predicted = instance.encode_ids(named).latents
        predicted = predicted + 0.1 * torch.randn(predicted.shape)
        found = instance.encode(entries, randomness(3), predicted).segment_ids
        assert torch.equal(found, named)
    maps = zip(roundtrip(instance, entries, predicted), roundtrip(semantic, entries), entries)
    for panoptic_seg, sem_seg, entry in maps:
        decoded = {"panoptic_seg": panoptic_seg, "sem_seg": sem_seg}
        output = vote(decoded, entry, torch.zeros(1, 4, 4))
        panoptic, segments_info = output["panoptic_seg"]
        assert partition(panoptic) == partition(entry["segment_ids"])
        found = {s["id"]: s["category_id"] for s in segments_info}
        wanted = {s["id"]: s["category_id"] for s in entry["segments_info"]}
        truth = entry["segment_ids"]
        for id_, class_ in found.items():
            (label,) = truth[panoptic == id_].unique().tolist()
            assert class_ == wanted[label]
        assert torch.equal(output["sem_seg"].argmax(0)[truth > 0], entry["sem_seg"][truth > 0])


@pytest.mark.parametrize("codes", ["consecutive", "spread"])
def test_255_classes_come_back_and_no_more_fit(codes):
    task = SemanticTask(BitAutoencoder(8), image_size=16, num_classes=255, codes=codes)
    sem_seg = torch.arange(256).view(16, 16)  # every class once, and void
    entry = {"sem_seg": sem_seg, "segment_ids": sem_seg, "height": 16, "width": 16}
    (probabilities,) = roundtrip(task, [entry])
    torch.testing.assert_close(probabilities.sum(0), torch.ones(16, 16))
    assert torch.equal((probabilities.argmax(0) - 1) % 256, sem_seg)
    with pytest.raises(ValueError, match="at most 255 classes, got 256"):
        SemanticTask(BitAutoencoder(9), image_size=16, num_classes=256)
    few = SemanticTask(BitAutoencoder(8), image_size=16, num_classes=3)
    with pytest.raises(ValueError, match=r"a.png: sem_seg holds class 3.*3 classes \(0..2"):
        roundtrip(few, [dict(entry, file_name="a.png")])


@pytest.fixture
def foreground_task():
    """A task in a few lines: which pixels are things, from the semantic map."""

    @TASK_REGISTRY.register()
    class ForegroundTask(SemanticTask):
        name = "foreground"
        output_key = "foreground"

        @classmethod
        def from_config(cls, cfg):
            return {**super().from_config(cfg), "num_classes": 2}

        def encode(self, entries, randomness, predicted) -> Target:
            maps = [e["sem_seg"] for e in entries]
            binary = [{"sem_seg": one.where(one == 255, (one > 0).long())} for one in maps]
            return super().encode(binary, randomness, predicted)

        def decode(self, latents, entries):
            return [probs[2] for probs in super().decode(latents, entries)]

    yield
    TASK_REGISTRY._obj_map.pop("ForegroundTask")


def test_a_task_of_ones_own_trains_and_decodes(foreground_task):
    tasks = ("MODEL.LDMSEG.TASKS", ["foreground", "depth"], "MODEL.LDMSEG.CLASSIFIER", "none")
    model = tiny_model(JOINT, *CLASSES, *tasks)
    losses = model.train()(tiny_multitask_batch())
    assert set(losses) == {"loss_foreground", "loss_depth"} and losses["loss_foreground"] > 0
    output = model.eval()(tiny_multitask_batch())[0]
    assert set(output) == {"foreground", "depth"} and output["foreground"].shape == (64, 64)
