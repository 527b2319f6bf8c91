"""HFMask2Former against transformers called directly."""

import sys

import pytest
import torch
from detectron2.modeling import build_model
from safetensors.torch import load_file, save_file
from tiny import CLASSES, tiny_multitask_batch
from torch.nn import functional as F

from ldmseg_d2.baselines.mask2former_network import build_mask2former, load_mask2former
from ldmseg_d2.engine.config_reader import load_config

transformers = pytest.importorskip("transformers")

CONFIG = "configs/scenes/baselines/mask2former_scenes64.yaml"
OPTIONS = "MODEL.MASK2FORMER.OPTIONS"
TINY = {
    **{"HIDDEN_DIM": 32, "ENCODER_LAYERS": 1, "DECODER_LAYERS": 3, "DIM_FEEDFORWARD": 32},
    **{"ENCODER_FEEDFORWARD_DIM": 32, "NUM_QUERIES": 8, "TRAIN_NUM_POINTS": 64},
    **{"BACKBONE_CONFIG.EMBEDDING_SIZE": 8, "BACKBONE_CONFIG.HIDDEN_SIZES": [8, 16, 16, 16]},
}


def tiny_model(*opts, seed=0):
    torch.manual_seed(seed)
    tiny = [word for key, value in TINY.items() for word in (f"{OPTIONS}.{key}", value)]
    return build_model(load_config(CONFIG, [*tiny, *CLASSES, "MODEL.DEVICE", "cpu", *opts]))


def test_losses_are_those_of_transformers():
    model, batch = tiny_model().train(), tiny_multitask_batch(3)
    masks = [F.one_hot(e["segment_ids"]).permute(2, 0, 1)[1:].float() for e in batch]
    labels = [torch.tensor([s["category_id"] for s in e["segments_info"]]) for e in batch]
    torch.manual_seed(1)
    losses = model(batch)
    # Three losses of three predictions: before, after the first and after the second layer.
    names = ("loss_cross_entropy", "loss_mask", "loss_dice")
    assert set(losses) == {n + s for n in names for s in ("", "_0", "_1")}
    torch.manual_seed(1)
    photos = torch.stack([(entry["image"].float() - 127.5) / 127.5 for entry in batch])
    theirs = model.network(pixel_values=photos, mask_labels=masks, class_labels=labels).loss
    assert sum(losses.values()).item() == pytest.approx(theirs.item(), rel=1e-6)
    assert all(loss.ndim == 0 and loss.requires_grad for loss in losses.values())


@torch.no_grad()
def test_outputs_are_those_of_transformers_for_each_photo_alone():
    model, batch = tiny_model().eval(), tiny_multitask_batch(3)
    batch[0]["image"] = batch[0]["image"][:, :40, :30]
    batch[1].update(height=96, width=80)  # of the result
    for entry, output in zip(batch, model(batch)):
        height, width = entry["image"].shape[1:]
        photo = (entry["image"].float() - 127.5) / 127.5
        photo = F.pad(photo, (0, -width % 32, 0, -height % 32))[None]
        theirs = model.network(pixel_values=photo)
        masks = F.interpolate(theirs.masks_queries_logits, photo.shape[2:], mode="bilinear")
        size = (entry["height"], entry["width"])
        masks = F.interpolate(masks[..., :height, :width], size, mode="bilinear")[0].sigmoid()
        classes = theirs.class_queries_logits[0].softmax(-1)[:, :-1]
        expected = torch.einsum("qc,qhw->chw", classes, masks)
        assert torch.allclose(output["sem_seg"], expected, atol=1e-5)
        panoptic, segments = output["panoptic_seg"]
        assert panoptic.dtype == torch.int32 and panoptic.shape == size
        assert {s["id"] for s in segments} == set(panoptic.unique().tolist()) - {0}
        assert len(output["instances"]) == sum(s["isthing"] for s in segments)


def test_photos_without_segments_and_of_other_sizes_train_in_bfloat16():
    model, batch = tiny_model().train(), tiny_multitask_batch(2)
    batch[0]["segment_ids"], batch[0]["segments_info"] = torch.zeros(64, 64).long(), []
    batch[1]["image"] = batch[1]["image"][:, :40, :30]
    batch[1]["segment_ids"] = batch[1]["segment_ids"][:40, :30]
    for inputs in (batch, batch[:1]):
        with torch.autocast("cpu", torch.bfloat16):
            total = sum(model(inputs).values())
        assert torch.isfinite(total)
        total.backward()
    del batch[1]["segments_info"]
    with pytest.raises(KeyError, match="segments_info"):
        model(batch)


@torch.no_grad()
def test_a_folder_of_save_pretrained_loads(tmp_path):
    model, batch = tiny_model().eval(), tiny_multitask_batch(1)
    model.network.save_pretrained(tmp_path)
    # Sizes come from the folder, whatever the config says; losses from the config.
    opts = (f"{OPTIONS}.NUM_QUERIES", 5, f"{OPTIONS}.TRAIN_NUM_POINTS", 99)
    opts = ("MODEL.MASK2FORMER.PRETRAINED", str(tmp_path), *opts)
    loaded = tiny_model(*opts, seed=5).eval()
    assert torch.equal(model(batch)[0]["sem_seg"], loaded(batch)[0]["sem_seg"])
    assert loaded.network.criterion.num_points == 99
    # Other classes: the rest of the weights stays.
    other = tiny_model(*opts, "MODEL.LDMSEG.NUM_CLASSES", 6)
    assert other.network.class_predictor.out_features == 7
    ours, theirs = model.network.model.state_dict(), other.network.model.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    # Half of the weights.
    state = load_file(tmp_path / "model.safetensors")
    kept = {k: v for k, v in state.items() if "transformer_module" not in k}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks .* tensors"):
        tiny_model(*opts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_querys": 8}, "Mask2FormerConfig has no NUM_QUERYS; it takes .*num_queries"),
        ({"backbone_config": {"model_type": "resnet", "depth": 1}}, "has no DEPTH; .*depths"),
        ({"hidden_dim": 40}, "cannot build .*40"),
    ],
)
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=rf"(?s){OPTIONS}.*{message}"):
        build_mask2former(num_classes=4, options=options)


def test_what_cannot_be_loaded_is_explained(tmp_path, monkeypatch):
    def load(pretrained):
        return load_mask2former(str(pretrained), num_classes=3, options={})

    with pytest.raises(FileNotFoundError, match="config.json"):
        load(tmp_path)
    sizes = {"embedding_size": 8, "hidden_sizes": [8] * 4, "depths": [1] * 4}
    transformers.ResNetModel(transformers.ResNetConfig(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="PRETRAINED.*(no|no complete) Mask2FormerFor"):
        load(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="--extras=baselines"):
        tiny_model()
