"""Without a network: one error that says what to do."""

import pytest
from huggingface_hub import constants as hub

from ldmseg_d2.modeling.image_encoder import build_image_encoder
from ldmseg_d2.modeling.unet import load_unet

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
