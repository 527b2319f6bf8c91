"""Known parts through real networks: the codes, the cells, and what comes back."""

from contextlib import contextmanager

import pytest
import torch
from detectron2.modeling import build_model
from tiny import tiny_batch, tiny_config

from ldmseg_d2.data.datasets.scenes import generate_scene
from ldmseg_d2.diffusion import INPAINTING_METHODS, initial_noise
from ldmseg_d2.inpainting import given_log_prior
from ldmseg_d2.inpainting.given_parts import KnownParts
from ldmseg_d2.meta_arch.batching import image_generator
from ldmseg_d2.meta_arch.generation import GivenSegments
from ldmseg_d2.meta_arch.inpainting import InpaintingOptions
from ldmseg_d2.model_zoo import get

ASSIGNMENTS = ("random", "ordered", "positional", "matched", "matched_positional")


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return build_model(tiny_config("scenes/ldmseg_scenes64.yaml")).eval()


@contextmanager
def inpainting(model, assignment=None, steps=None, **settings):
    """The model with other settings for a while."""
    task = model.tasks[0]
    before = model.inpainting, task.id_assignment, model.num_inference_steps
    model.inpainting = InpaintingOptions(**settings)
    task.id_assignment = assignment or task.id_assignment
    model.num_inference_steps = steps or model.num_inference_steps
    yield
    model.inpainting, task.id_assignment, model.num_inference_steps = before


@torch.no_grad()
def complete(model, batch, **settings):
    with inpainting(model, **settings):
        return [output["panoptic_seg"] for output in model(batch)]


@torch.no_grad()
def prepare(model, batch, **settings):
    """What is sampled with: the inputs, the known latents and cells."""
    generators = [image_generator(0, entry["image_id"], model.device) for entry in batch]
    noise = initial_noise(model.latent_shape, generators)
    with inpainting(model, **settings):
        return GivenSegments(
            model, model.layout.for_inference(batch), batch, generators=generators, noise=noise,
            predict=lambda: noise,
        )  # fmt: skip


def given(entry, share=0.5, names=(0, 900, 17, 5, 44)):
    ids = torch.tensor(names)[entry["segment_ids"]]
    mask = torch.zeros_like(ids, dtype=torch.bool)
    mask[:, : int(share * mask.shape[1])] = True
    return {**entry, "known_ids": ids, "known_mask": mask}


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
@pytest.mark.parametrize("method", INPAINTING_METHODS)
def test_given_pixels_and_ids_come_back(tiny, method, assignment):
    batch = tiny_batch(3)
    batch[1] = given(batch[1])
    known = prepare(tiny, batch, assignment=assignment)
    outputs = complete(tiny, batch, method=method, assignment=assignment)
    assert known.cells.flatten(1).any(1).tolist() == [False, True, False]
    # 16 cells a side, of which the left half is given.
    assert torch.equal(known.cells[1, 0, 0], torch.arange(16) < 8)
    ids, infos = outputs[1]
    mask = batch[1]["known_mask"]
    assert torch.equal(ids[mask].long(), batch[1]["known_ids"][mask])
    areas = torch.bincount(ids.flatten())
    assert {s["id"]: s["area"] for s in infos} == {
        i: n for i, n in enumerate(areas.tolist()) if i and n
    }
    alone = complete(tiny, batch[1:2], method=method, assignment=assignment)[0]
    assert torch.equal(ids, alone[0])
    without = complete(tiny, tiny_batch(3), method=method, assignment=assignment)
    assert torch.equal(outputs[0][0], without[0][0])
    assert torch.equal(outputs[2][0], without[2][0])


def test_known_latents_are_those_of_the_codes(tiny):
    """All known: the latents are the encoding of the whole map under the codes."""
    (entry,) = (given(e, share=1.0) for e in tiny_batch(1))
    known = prepare(tiny, [entry], assignment="ordered")
    labels, codes = entry["known_ids"].unique(), known.entries[0]["keep_ids"]
    labels = labels[labels != 0]
    recoded = torch.zeros_like(entry["known_ids"])
    for label, code in zip(labels.tolist(), codes, strict=True):
        recoded[entry["known_ids"] == label] = code
    autoencoder = tiny.tasks[0].autoencoder
    expected = autoencoder.normalize(autoencoder.encode(recoded.unsqueeze(0)).mean)
    torch.testing.assert_close(known.sampler_arguments["known_latents"], expected)
    assert known.cells.all()
    ids, _ = complete(tiny, [entry], assignment="ordered")[0]
    assert torch.equal(ids.long(), entry["known_ids"])


def test_other_sizes_and_padding(tiny):
    """A result larger than the network's picture, which fills a part of the square."""
    (entry,) = tiny_batch(1)
    entry["image"] = entry["image"][:, :40]
    entry.update(height=80, width=128)
    entry["known_ids"] = torch.zeros(80, 128, dtype=torch.int32)
    entry["known_ids"][:, 64:] = 3
    cells = prepare(tiny, [entry], assignment="random").cells[0, 0]
    assert torch.equal(cells[:10], (torch.arange(16) >= 8).expand(10, 16))
    assert not cells[10:].any()
    ids, _ = complete(tiny, [entry], assignment="random")[0]
    assert ids.shape == (80, 128) and (ids[:, 64:] == 3).all()


def test_nothing_given_and_wrong_input(tiny):
    (entry,) = tiny_batch(1)
    nothing = {**entry, "known_ids": torch.zeros(64, 64, dtype=torch.int64)}
    assert prepare(tiny, [nothing]).cells is None
    assert torch.equal(complete(tiny, [nothing])[0][0], complete(tiny, [entry])[0][0])
    with pytest.raises(ValueError, match=r"0\.png: 'known_ids' is \(64, 63\)"):
        complete(tiny, [{**entry, "known_ids": nothing["known_ids"][:, 1:]}])
    with pytest.raises(ValueError, match=r"'known_classes' has ids \[8\]"):
        complete(tiny, [{**given(entry), "known_classes": {8: 1, 17: 0}}])


def test_cells_with_some_known_pixels(tiny):
    (entry,) = tiny_batch(1)
    entry["known_ids"] = torch.zeros(64, 64, dtype=torch.int64)
    entry["known_ids"][30, 30] = 12
    assert not prepare(tiny, [entry]).cells.any()
    known = prepare(tiny, [entry], cell_rule="any")
    assert torch.nonzero(known.cells[0, 0]).tolist() == [[7, 7]]
    assert complete(tiny, [entry], cell_rule="any")[0][0][30, 30] == 12
    wrong = tiny_config("scenes/ldmseg_scenes64.yaml", "MODEL.LDMSEG.SAMPLER.KNOWN_CELLS", "some")
    with pytest.raises(ValueError, match="KNOWN_CELLS is 'some'.*all.*any"):
        build_model(wrong)


def scene_inputs(count):
    batch = []
    for index in range(count):
        scene = generate_scene(seed=987, index=index)
        batch.append(
            {
                "image": torch.from_numpy(scene.image.copy()).permute(2, 0, 1),
                "image_id": index, "file_name": str(index), "height": 64, "width": 64,
                "segment_ids": torch.from_numpy(scene.segment_ids).long(),
            }
        )  # fmt: skip
    return batch


@pytest.mark.parametrize("method", INPAINTING_METHODS)
def test_the_shipped_model_honours_given_ids(method):
    """The other half of a segment gets the id of the given half, which is an arbitrary one."""
    model = get("ldmseg_multitask_scenes64")
    batch = scene_inputs(12)
    names = torch.randperm(60, generator=torch.Generator().manual_seed(0)) + 1
    for entry in batch:
        entry.update(given(entry, names=(0, *names.tolist())))
    outputs = complete(model, batch, method=method, steps=4)
    right = total = 0
    for entry, (ids, _) in zip(batch, outputs):
        visible = entry["known_ids"][entry["known_mask"]].unique()
        asked = ~entry["known_mask"] & torch.isin(entry["known_ids"], visible[visible != 0])
        right += int((ids == entry["known_ids"])[asked].sum())
        total += int(asked.sum())
    assert total > 10_000
    assert right / total > 0.8  # a model that ignored the hints would be right by chance, 1 in 60


@pytest.mark.parametrize("config", ["ldmseg_multitask_scenes64", "ldmseg_separate_tasks_scenes64"])
def test_several_tasks_with_classes_keep_what_is_given(config):
    """Stuff of one class is merged and segments vote void: given ones stay, with their class."""
    torch.manual_seed(0)
    no_weights = ("MODEL.LDMSEG.DEPTH.AUTOENCODER.WEIGHTS", "")
    model = build_model(tiny_config(f"scenes/{config}.yaml", *no_weights)).eval()
    stuff = model.classifier.classes.is_thing.index(False)
    batch = tiny_batch(2)
    # Two of the given segments are stuff, of one class.
    batch[0] = {**given(batch[0]), "known_classes": {900: stuff, 17: stuff}}
    with torch.no_grad():
        first, second = model(batch)
        without = model(tiny_batch(2))[1]
        outputs = [first, model([{**batch[0], "tasks": ["instance"]}])[0]]
    mask = batch[0]["known_mask"]
    for output in outputs:  # with classes, and without the task that votes
        ids, infos = output["panoptic_seg"]
        assert torch.equal(ids[mask].long(), batch[0]["known_ids"][mask])
        assert all(s["area"] == int((ids == s["id"]).sum()) for s in infos)
        by_id = {s["id"]: s for s in infos}
        assert by_id[900]["category_id"] == by_id[17]["category_id"] == stuff
    assert not any(s["isthing"] for s in first["panoptic_seg"][1] if s["id"] in (900, 17))
    things = {s["id"] for s in first["panoptic_seg"][1] if s["isthing"]}
    assert len(first["instances"]) == len(things)
    assert torch.equal(second["panoptic_seg"][0], without["panoptic_seg"][0])
    assert torch.equal(second["sem_seg"], without["sem_seg"])
    assert torch.equal(second["depth"], without["depth"])


def test_the_network_is_told_which_cells_are_known():
    """With TRAIN_INPAINTING the denoiser's last channel is 1 where clean latents stand in."""
    torch.manual_seed(0)
    opts = ("MODEL.LDMSEG.TRAIN_INPAINTING.PROB", 0.5)
    model = build_model(tiny_config("scenes/ldmseg_scenes64.yaml", *opts)).eval()
    seen = []
    model.denoiser.unet.register_forward_pre_hook(lambda _, args: seen.append(args[0][:, -1]))
    batch = tiny_batch(2)
    batch[1] = given(batch[1])
    complete(model, batch, assignment="random")
    left = (torch.arange(16) < 8).expand(16, 16)
    assert len(seen) == 3
    for channel in seen:
        assert torch.equal(channel[1].bool(), left) and not channel[0].any()


def test_draws_of_a_given_part_agree_on_it(tiny):
    """A given segment of few pixels stays, whatever area the consensus asks for."""
    (entry,) = (given(e) for e in tiny_batch(1))
    entry["known_ids"][40, 3] = 77
    entry["num_samples"] = 3
    with torch.no_grad():
        (output,) = tiny([entry])
    ids, infos = output["panoptic_seg"]
    mask = entry["known_mask"]
    assert torch.equal(ids[mask].long(), entry["known_ids"][mask])
    assert not output["uncertainty"][mask].any()
    assert {"id": 77, "area": int((ids == 77).sum())}.items() <= next(
        s for s in infos if s["id"] == 77
    ).items()


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_the_limit_of_strong_evidence_is_the_random_walk(tiny, assignment):
    """With whatever the network says (it is not trained) and at the size of the result."""
    batch = [given(entry) for entry in tiny_batch(2)]
    strong = complete(tiny, batch, assignment=assignment, given_weight=1e6, given_reach=1e6)
    for entry, (panoptic, _) in zip(batch, strong):
        known = KnownParts(entry["known_ids"], entry["known_mask"])
        prior = given_log_prior(known, entry["image"], reach=1e6)
        names = torch.cat([known.labels(), torch.zeros(2, dtype=torch.int64)])
        same = (panoptic == names[prior.argmax(0)]).float().mean()
        assert float(same) > 0.99  # ties may go either way
    # With next to no weight the network decides alone.
    free, off = (
        complete(tiny, batch, assignment=assignment, **settings)
        for settings in ({"given_weight": 1e-6}, {})
    )
    assert all(torch.equal(one[0], other[0]) for one, other in zip(free, off))


@pytest.mark.parametrize("key, value", [("GIVEN_WEIGHT", -1.0), ("GIVEN_REACH", 0.0)])
def test_evidence_needs_positive_numbers(key, value):
    with pytest.raises(ValueError, match="GIVEN_WEIGHT must be at least 0 .*GIVEN_REACH above 0"):
        build_model(tiny_config("scenes/ldmseg_scenes64.yaml", f"MODEL.LDMSEG.SAMPLER.{key}",
                                value))  # fmt: skip
