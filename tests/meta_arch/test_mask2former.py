"""HFMask2Former against transformers called directly."""

import copy

import pytest
import torch
from detectron2.modeling import build_model
from safetensors.torch import load_file, save_file
from tiny import CLASSES, tiny_config, tiny_multitask_batch
from torch.nn import functional as F

from ldmseg_d2.engine.checkpointer import LDMSegCheckpointer
from ldmseg_d2.modeling.hf_mask2former import load_mask2former

transformers = pytest.importorskip("transformers")

CONFIG = "scenes/baselines/mask2former_scenes64.yaml"
TINY = (
    *("MODEL.MASK2FORMER.HIDDEN_DIM", 32, "MODEL.MASK2FORMER.NUM_HEADS", 2),
    *("MODEL.MASK2FORMER.ENCODER_LAYERS", 1, "MODEL.MASK2FORMER.DECODER_LAYERS", 2),
    *("MODEL.MASK2FORMER.ENCODER_FEEDFORWARD_DIM", 32),
    *("MODEL.MASK2FORMER.DECODER_FEEDFORWARD_DIM", 32),
    *("MODEL.MASK2FORMER.NUM_QUERIES", 8, "MODEL.MASK2FORMER.LOSS.NUM_POINTS", 64),
    *("MODEL.MASK2FORMER.BACKBONE_OPTIONS.EMBEDDING_SIZE", 8),
    *("MODEL.MASK2FORMER.BACKBONE_OPTIONS.HIDDEN_SIZES", [8, 16, 16, 16]),
    *CLASSES,
)


def tiny_model(*opts, seed=0):
    torch.manual_seed(seed)
    return build_model(tiny_config(CONFIG, *TINY, *opts))


def pixels(batch):
    return torch.stack([(entry["image"].float() - 127.5) / 127.5 for entry in batch])


def targets(batch):
    masks = [F.one_hot(e["segment_ids"]).permute(2, 0, 1)[1:].float() for e in batch]
    labels = [torch.tensor([s["category_id"] for s in e["segments_info"]]) for e in batch]
    return masks, labels


def test_losses_are_those_of_transformers():
    model, batch = tiny_model().train(), tiny_multitask_batch(3)
    masks, labels = targets(batch)
    torch.manual_seed(1)
    losses = model(batch)
    torch.manual_seed(1)
    theirs = model.network(pixel_values=pixels(batch), mask_labels=masks, class_labels=labels)
    assert sum(losses.values()).item() == pytest.approx(theirs.loss.item(), rel=1e-6)
    # Three losses of three predictions: before, after the first and after the second layer.
    names = ("loss_cross_entropy", "loss_mask", "loss_dice")
    assert set(losses) == {n + s for n in names for s in ("", "_0", "_1")}
    assert all(loss.ndim == 0 and loss.requires_grad for loss in losses.values())


def test_gradients_are_those_of_transformers():
    model, batch = tiny_model().train(), tiny_multitask_batch(2)
    other = copy.deepcopy(model.network)
    masks, labels = targets(batch)
    torch.manual_seed(1)
    sum(model(batch).values()).backward()
    torch.manual_seed(1)
    other(pixel_values=pixels(batch), mask_labels=masks, class_labels=labels).loss.backward()
    for (name, ours), theirs in zip(model.network.named_parameters(), other.parameters()):
        if theirs.grad is not None:
            assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6), name


@torch.no_grad()
def test_outputs_are_those_of_transformers():
    model, batch = tiny_model().eval(), tiny_multitask_batch(2)
    # Results come at height x width.
    batch[1].update(height=96, width=80)
    outputs = model(batch)
    theirs = model.network(pixel_values=pixels(batch))
    for i, output in enumerate(outputs):
        masks = F.interpolate(theirs.masks_queries_logits[i : i + 1], (64, 64), mode="bilinear")
        size = (batch[i]["height"], batch[i]["width"])
        masks = F.interpolate(masks, size, mode="bilinear")[0].sigmoid()
        classes = theirs.class_queries_logits[i].softmax(-1)[:, :-1]
        expected = torch.einsum("qc,qhw->chw", classes, masks)
        assert output["sem_seg"].shape == (4, *size)
        assert torch.allclose(output["sem_seg"], expected, atol=1e-5)
        panoptic, segments = output["panoptic_seg"]
        assert panoptic.dtype == torch.int32 and panoptic.shape == size
        assert {s["id"] for s in segments} == set(panoptic.unique().tolist()) - {0}
        things = sum(s["isthing"] for s in segments)
        assert len(output["instances"]) == things


@torch.no_grad()
def test_split_area_takes_the_regions_of_a_query_apart():
    post, areas = "MODEL.MASK2FORMER.POSTPROCESS", {}
    for split in (-1, 20):
        model = tiny_model(
            f"{post}.SPLIT_AREA", split, f"{post}.MIN_AREA", 0, f"{post}.MASK_THRESHOLD", 0.5
        ).eval()
        thing = model.classes.is_thing.index(True)
        class_logits = torch.full((1, model.classes.num_classes + 1), -9.0)
        class_logits[0, thing] = 9.0
        masks = torch.full((1, 16, 16), -9.0)
        masks[0, 2:7, 2:7] = masks[0, 2:7, 10:15] = 9.0
        entry = {"image": torch.zeros(3, 16, 16, dtype=torch.uint8)}
        output = model._output(entry, class_logits, masks, (16, 16))
        areas[split] = [s["area"] for s in output["panoptic_seg"][1]]
        assert len(output["instances"]) == len(areas[split])
    assert areas == {-1: [50], 20: [25, 25]}


@torch.no_grad()
def test_region_area_finds_what_the_queries_only_suspect():
    """A query of a thing that is too unsure to be a segment, inside one of stuff."""
    post, found = "MODEL.MASK2FORMER.POSTPROCESS", {}
    for region in (-1, 20):
        model = tiny_model(
            f"{post}.REGION_AREA", region, f"{post}.OBJECT_MASK_THRESHOLD", 0.8
        ).eval()
        thing, stuff = (model.classes.is_thing.index(flag) for flag in (True, False))
        class_logits = torch.full((2, model.classes.num_classes + 1), -9.0)
        class_logits[0, stuff] = 9.0
        class_logits[1, thing] = class_logits[1, -1] = 9.0  # half "no object"
        masks = torch.full((2, 16, 16), 9.0)
        masks[0, 2:7, 2:7] = masks[1] = -9.0
        masks[1, 2:7, 2:7] = 9.0
        entry = {"image": torch.zeros(3, 16, 16, dtype=torch.uint8)}
        output = model._output(entry, class_logits, masks, (16, 16))
        found[region] = {s["category_id"]: s["area"] for s in output["panoptic_seg"][1]}
        assert len(output["instances"]) == (region > 0)
    assert found[-1].keys() == {stuff} and found[20] == {stuff: 231, thing: 25}


@pytest.mark.parametrize("key, value", [("PART_AREA", 0), ("PART_SHARE", 1.5)])
def test_values_without_sense_are_named_when_the_model_is_built(key, value):
    post = "MODEL.MASK2FORMER.POSTPROCESS"
    with pytest.raises(ValueError, match=rf"{post}: PART_AREA must be at least 1 pixel and PART"):
        tiny_model(f"{post}.{key}", value)


def test_batch_equals_single_also_with_mixed_sizes():
    model, batch = tiny_model().eval(), tiny_multitask_batch(3)
    batch[1]["image"] = batch[1]["image"][:, :40, :30]
    for entry in batch:
        entry.pop("segment_ids")
    for output, entry in zip(model(batch), batch):
        alone = model([entry])[0]
        assert torch.allclose(output["sem_seg"], alone["sem_seg"], atol=1e-5)
        assert output["sem_seg"].shape == (4, 64, 64)


def test_empty_ground_truth():
    model, batch = tiny_model().train(), tiny_multitask_batch(2)
    for entry in batch[:1], batch:
        for one in entry:
            one["segment_ids"], one["segments_info"] = torch.zeros(64, 64, dtype=torch.int64), []
        losses = model(batch)
        total = sum(losses.values())
        assert torch.isfinite(total)
        total.backward()


def test_missing_annotations_are_named():
    model, batch = tiny_model().train(), tiny_multitask_batch(1)
    del batch[0]["segments_info"]
    with pytest.raises(KeyError, match="segments_info"):
        model(batch)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_training_lowers_the_loss(bfloat16):
    model, batch = tiny_model().train(), tiny_multitask_batch(2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    history = []
    for _ in range(25):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert sum(history[-3:]) < 0.7 * sum(history[:3])


@torch.no_grad()
def test_checkpoint_loads_again(tmp_path):
    model, other = tiny_model().eval(), tiny_model(seed=1).eval()
    LDMSegCheckpointer(model, str(tmp_path)).save("model_final")
    LDMSegCheckpointer(other).load(str(tmp_path / "model_final.pth"))
    batch = tiny_multitask_batch(1)
    assert torch.equal(model(batch)[0]["sem_seg"], other(batch)[0]["sem_seg"])
    # Another width: one error that names a key, instead of a model that is half random.
    narrow = tiny_model("MODEL.MASK2FORMER.DECODER_FEEDFORWARD_DIM", 16)
    with pytest.raises(ValueError, match="network"):
        LDMSegCheckpointer(narrow).load(str(tmp_path / "model_final.pth"))


@torch.no_grad()
def test_a_folder_of_save_pretrained_loads(tmp_path):
    model, batch = tiny_model().eval(), tiny_multitask_batch(1)
    model.network.save_pretrained(tmp_path)
    # Sizes come from the folder; the keys of the config are others.
    torch.manual_seed(5)
    opts = ("MODEL.MASK2FORMER.PRETRAINED", str(tmp_path), *CLASSES)
    loaded = build_model(tiny_config(CONFIG, *opts)).eval()
    assert torch.equal(model(batch)[0]["sem_seg"], loaded(batch)[0]["sem_seg"])
    # Other classes: the rest of the weights stays.
    opts = ("MODEL.LDMSEG.NUM_CLASSES", 6, "MODEL.LDMSEG.THING_CLASSES", [1])
    other = build_model(tiny_config(CONFIG, "MODEL.MASK2FORMER.PRETRAINED", str(tmp_path), *opts))
    assert other.network.class_predictor.out_features == 7
    ours, theirs = model.network.model.state_dict(), other.network.model.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_folder_with_half_of_the_weights_is_refused(tmp_path):
    network = tiny_model().network
    network.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    kept = {k: v for k, v in state.items() if "transformer_module" not in k}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks .* tensors"):
        load_mask2former(str(tmp_path), num_classes=4, losses={})


def test_what_cannot_be_loaded_is_explained(tmp_path):
    def load(pretrained):
        return load_mask2former(pretrained, num_classes=3, losses={})

    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load("./no/such/folder")
    with pytest.raises(FileNotFoundError, match="config.json"):
        load(str(tmp_path))
    transformers.ResNetConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="type 'resnet'"):
        load(str(tmp_path))


def test_hub_id_without_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE.*copy the repository"):
        load_mask2former("facebook/no-such-mask2former", num_classes=3, losses={})


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="HIDDEN_DIM is 40"):
        tiny_model("MODEL.MASK2FORMER.HIDDEN_DIM", 40)
    with pytest.raises(ValueError, match="'no_such_backbone'"):
        tiny_model("MODEL.MASK2FORMER.BACKBONE", "no_such_backbone")
