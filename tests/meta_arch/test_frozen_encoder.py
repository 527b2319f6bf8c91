"""Image encoders inside LDMSeg: what FREEZE freezes, and what the checkpoint holds."""

import logging

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from tiny import tiny_batch, tiny_config

from ldmseg_d2.engine.ema import ModelEMA
from ldmseg_d2.modeling.weights import without_prefixes

TINY_VIT = CfgNode({"depth": 2, "embed_dim": 32, "num_heads": 2, "drop_path_rate": 0.5})
ENCODERS = {
    "DINOv2ImageEncoder": {"MODEL_NAME": "vit_small_patch14_dinov2", "MODEL_KWARGS": TINY_VIT},
    "TimmImageEncoder": {"MODEL_NAME": "resnet10t", "STAGES": [1, 2]},
    "VAEImageEncoder": {"BLOCK_OUT_CHANNELS": [8, 16], "LAYERS_PER_BLOCK": 1, "NORM_NUM_GROUPS": 4},
}


def build(name: str, *opts):
    torch.manual_seed(0)
    cfg = tiny_config("scenes/ldmseg_scenes64.yaml")
    cfg.MODEL.LDMSEG.IMAGE_ENCODER.NAME = name
    cfg.MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS = CfgNode({"PRETRAINED": "", **ENCODERS[name]})
    cfg.merge_from_list(list(opts))
    return build_model(cfg)


@pytest.mark.parametrize("name", ENCODERS)
def test_frozen_encoder(name):
    model = build(name, "MODEL.LDMSEG.IMAGE_ENCODER.FREEZE", True).train()
    encoder = model.image_encoder
    has_projection = hasattr(encoder, "backbone")
    prefix = "image_encoder.backbone." if has_projection else "image_encoder."
    assert model.frozen_prefixes == ("autoencoder.", prefix)

    frozen = encoder.backbone if has_projection else encoder
    assert not any(module.training for module in frozen.modules())
    before = {key: value.clone() for key, value in frozen.state_dict().items()}
    sum(model(tiny_batch()).values()).backward()
    assert all(p.grad is None and not p.requires_grad for p in frozen.parameters())
    for key, value in frozen.state_dict().items():  # batch norm's statistics as well
        assert torch.equal(value, before[key])
    if has_projection:
        assert encoder.training and encoder.projection.training
        assert all(p.grad.abs().sum() > 0 for p in encoder.projection.parameters())

    average = ModelEMA(model, decay=0.9).module.image_encoder
    assert average is encoder or average.backbone is encoder.backbone
    saved = without_prefixes(model.state_dict(), model.frozen_prefixes)
    kept = {key for key in saved if key.startswith("image_encoder.")}
    expected = {f"image_encoder.projection.{i}.{w}" for i in (0, 1) for w in ("weight", "bias")}
    assert kept == (expected if has_projection else set())


def test_frozen_random_weights_warn(caplog):
    with caplog.at_level(logging.WARNING):
        opts = ("MODEL.LDMSEG.IMAGE_ENCODER.FREEZE", True)
        build("VAEImageEncoder", *opts, "MODEL.WEIGHTS", "with_everything.safetensors")
        assert "frozen with random weights" not in caplog.text
        build("VAEImageEncoder", *opts)
    assert "VAEImageEncoder is frozen with random weights" in caplog.text


def test_photos_of_other_statistics_raise():
    with pytest.raises(ValueError, match="TimmImageEncoder needs photos in .-1, 1.*PIXEL_MEAN"):
        build("TimmImageEncoder", "MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53])
