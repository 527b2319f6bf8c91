"""Without a network: the hub's cache, else one error that says what to do."""

import functools

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import constants as hub
from safetensors.torch import save_file

from ldmseg_d2.modeling.image_encoder import build_image_encoder
from ldmseg_d2.modeling.unet import load_unet

VIT = "vit_tiny_patch16_224.augreg_in21k"
UNET, ENCODER = "MODEL.LDMSEG.DENOISER.PRETRAINED", "IMAGE_ENCODER.OPTIONS.PRETRAINED"


def encoder(name, **options):
    return build_image_encoder(name, out_channels=4, options=options)


@pytest.mark.parametrize(
    "load,key,files",
    [
        (lambda: load_unet("a/b", with_cross_attention=True), UNET, "unet/config.json and the"),
        (lambda: encoder("VAEImageEncoder", pretrained="a/b"), ENCODER, "vae/config.json and the"),
        (lambda: encoder("DINOv2ImageEncoder"), ENCODER, "model.safetensors"),
    ],
    ids=["unet", "vae", "dinov2"],
)
@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_id_without_network_is_one_error(monkeypatch, load, key, files, offline):
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", offline)
    # A port that nothing listens on: no network is touched, whether there is one or not.
    monkeypatch.setattr(hub, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FileNotFoundError, match=f"give the local folder .* contains {files}") as e:
        load()
    reason = "HF_HUB_OFFLINE is set" if offline else "http://127.0.0.1:9 cannot be reached"
    assert reason in str(e.value) and key in str(e.value)


def test_a_cached_copy_of_the_hub_is_enough(monkeypatch, tmp_path):
    """The hub's cache is read first: no network after the first run."""
    monkeypatch.setattr(hub, "ENDPOINT", "http://127.0.0.1:9")
    snapshot = tmp_path / f"models--timm--{VIT}" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    sizes = {"depth": 1, "embed_dim": 12}
    plain = timm.create_model(VIT, num_classes=0, **sizes).state_dict()
    save_file(plain, snapshot / "model.safetensors")
    monkeypatch.setattr(
        "ldmseg_d2.modeling.image_encoder.timm_weights.hf_hub_download",
        functools.partial(huggingface_hub.hf_hub_download, cache_dir=tmp_path),
    )
    found = encoder("DINOv2ImageEncoder", model_name=VIT, pretrained="hub", model_kwargs=sizes)
    for key, value in found.backbone.state_dict().items():
        assert torch.equal(value, plain[key]), key
