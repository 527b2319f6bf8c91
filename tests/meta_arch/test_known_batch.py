"""Known parts through real networks: the codes, the cells, and what comes back."""

import pytest
import torch
from detectron2.modeling import build_model
from tiny import tiny_batch, tiny_config

from ldmseg_d2.data.datasets.scenes import generate_scene
from ldmseg_d2.diffusion import INPAINTING_METHODS, initial_noise, predicted_x0, sample_latents
from ldmseg_d2.meta_arch.batching import image_generator, stack_images
from ldmseg_d2.meta_arch.inpainting import encode_known_parts
from ldmseg_d2.model_zoo import get
from ldmseg_d2.postprocessing import logits_to_panoptic

ASSIGNMENTS = ("random", "ordered", "positional", "matched")


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return build_model(tiny_config("scenes/ldmseg_scenes64.yaml")).eval()


@torch.no_grad()
def complete(model, batch, *, method="fixed", assignment=None, rule="all", **sampler):
    """What LDMSeg's inference does with the parts."""
    images = stack_images(batch, model.image_size, model.pixel_mean, model.pixel_std)
    condition = model.encode_images(images)
    generators = [image_generator(0, entry["image_id"], model.device) for entry in batch]
    noise = initial_noise(model.latent_shape, generators)

    def denoise(x_t, t, previous):
        return model.denoiser(x_t, t, condition, previous)

    def predict():
        t = torch.full((len(noise),), 999)
        return predicted_x0(model.scheduler, denoise(noise, t, None), noise, t)

    known = encode_known_parts(
        batch, autoencoder=model.autoencoder, image_size=model.image_size,
        id_assignment=assignment or model.id_assignment, position_edges=model.position_edges,
        generators=generators, predict=predict, cell_rule=rule,
    )  # fmt: skip
    x0 = sample_latents(
        denoise, noise, scheduler=model.scheduler, self_conditioning=False, generators=generators,
        num_inference_steps=sampler.get("steps", 3), inpainting=method,
        **({} if known is None else known.sampler_arguments()),
    )  # fmt: skip
    logits = model.autoencoder.id_logits(
        model.autoencoder.decode(model.autoencoder.denormalize(x0))
    )
    outputs = []
    for index, (one, entry) in enumerate(zip(logits, batch)):
        height, width = entry["image"].shape[-2:]
        keep = [] if known is None else known.keep_ids(index)
        seg = logits_to_panoptic(
            one[:, :height, :width], (entry["height"], entry["width"]), keep_ids=keep,
            **model.postprocess,
        )  # fmt: skip
        outputs.append(seg if known is None else known.finish(index, seg, min_area=16))
    return known, outputs


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
    known, outputs = complete(tiny, batch, method=method, assignment=assignment)
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
    alone = complete(tiny, batch[1:2], method=method, assignment=assignment)[1][0]
    assert torch.equal(ids, alone[0])
    without = complete(tiny, tiny_batch(3), method=method, assignment=assignment)[1]
    assert torch.equal(outputs[0][0], without[0][0])
    assert torch.equal(outputs[2][0], without[2][0])


def test_known_latents_are_those_of_the_codes(tiny):
    """All known: the latents are the encoding of the whole map under the codes."""
    (entry,) = (given(e, share=1.0) for e in tiny_batch(1))
    known, outputs = complete(tiny, [entry], assignment="ordered")
    labels, codes = known.pictures[0].parts.labels(), known.pictures[0].codes
    recoded = torch.zeros_like(entry["known_ids"])
    for label, code in zip(labels.tolist(), codes.tolist()):
        recoded[entry["known_ids"] == label] = code
    autoencoder = tiny.autoencoder
    expected = autoencoder.normalize(autoencoder.encode(recoded.unsqueeze(0)).mean)
    torch.testing.assert_close(known.latents, expected)
    assert known.cells.all()
    assert torch.equal(outputs[0][0].long(), entry["known_ids"])


def test_other_sizes_and_padding(tiny):
    """A result larger than the network's picture, which fills a part of the square."""
    (entry,) = tiny_batch(1)
    entry["image"] = entry["image"][:, :40]
    entry.update(height=80, width=128)
    entry["known_ids"] = torch.zeros(80, 128, dtype=torch.int32)
    entry["known_ids"][:, 64:] = 3
    known, outputs = complete(tiny, [entry], assignment="random")
    cells = known.cells[0, 0]
    assert torch.equal(cells[:10], (torch.arange(16) >= 8).expand(10, 16))
    assert not cells[10:].any()
    ids, _ = outputs[0]
    assert ids.shape == (80, 128) and (ids[:, 64:] == 3).all()


def test_nothing_given_and_wrong_input(tiny):
    (entry,) = tiny_batch(1)
    nothing = {**entry, "known_ids": torch.zeros(64, 64, dtype=torch.int64)}
    known, outputs = complete(tiny, [nothing])
    assert known is None
    assert torch.equal(outputs[0][0], complete(tiny, [entry])[1][0][0])
    with pytest.raises(ValueError, match=r"0\.png: 'known_ids' is \(64, 63\)"):
        complete(tiny, [{**entry, "known_ids": nothing["known_ids"][:, 1:]}])
    with pytest.raises(ValueError, match=r"'known_classes' has ids \[8\]"):
        complete(tiny, [{**given(entry), "known_classes": {8: 1, 17: 0}}])


def test_cells_with_some_known_pixels(tiny):
    (entry,) = tiny_batch(1)
    entry["known_ids"] = torch.zeros(64, 64, dtype=torch.int64)
    entry["known_ids"][30, 30] = 12
    assert not complete(tiny, [entry], rule="all")[0].cells.any()
    known, outputs = complete(tiny, [entry], rule="any")
    assert torch.nonzero(known.cells[0, 0]).tolist() == [[7, 7]]
    assert outputs[0][0][30, 30] == 12


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
    model = get("ldmseg_scenes64")
    batch = scene_inputs(12)
    names = torch.randperm(60, generator=torch.Generator().manual_seed(0)) + 1
    for entry in batch:
        entry.update(given(entry, names=(0, *names.tolist())))
    _, outputs = complete(model, batch, method=method, steps=4)
    right = total = 0
    for entry, (ids, _) in zip(batch, outputs):
        visible = entry["known_ids"][entry["known_mask"]].unique()
        asked = ~entry["known_mask"] & torch.isin(entry["known_ids"], visible[visible != 0])
        right += int((ids == entry["known_ids"])[asked].sum())
        total += int(asked.sum())
    assert total > 10_000
    assert right / total > 0.8  # a model that ignored the hints would be right by chance, 1 in 60
