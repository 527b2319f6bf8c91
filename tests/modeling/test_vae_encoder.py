import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from ldmseg_d2.modeling.image_encoder import ImageEncoder, build_image_encoder

SIZES = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
# As in Stable Diffusion 1.5's own file.
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    blocks = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    return AutoencoderKL(latent_channels=4, **blocks, **SIZES).eval()


def build(pretrained="", **options) -> ImageEncoder:
    options = {"pretrained": str(pretrained), **SIZES, **options}
    return build_image_encoder("VAEImageEncoder", out_channels=4, options=options).eval()


@pytest.mark.parametrize("place,old_names", [("pipeline", False), ("vae", True)])
@torch.no_grad()
def test_vae_encoder_equals_diffusers(tmp_path, vae, place, old_names):
    vae.half().save_pretrained(tmp_path / "vae")  # loads as float32
    vae.float()
    if old_names:
        state = vae.state_dict()
        for new, old in OLD_NAMES.items():
            for key in [k for k in state if f".{new}." in k]:
                state[key.replace(new, old)] = state.pop(key)
        save_file(state, tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    encoder = build(tmp_path if place == "pipeline" else tmp_path / "vae")
    photos = torch.rand(2, 3, 32, 32) * 2 - 1
    expected = vae.encode(photos).latent_dist.mean * 0.18215
    assert encoder(photos).shape == (2, 4, 16, 16) and encoder.stride == 2
    torch.testing.assert_close(encoder(photos), expected)
    prefixes = {".".join(key.split(".")[:2]) for key in encoder.state_dict()}
    assert prefixes == {"vae.encoder", "vae.quant_conv"}
    # Without PRETRAINED the config builds the same architecture, for weights from elsewhere.
    random = build()
    random.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(random(photos), expected)


def test_errors_name_the_key(tmp_path, vae):
    with pytest.raises(FileNotFoundError, match="PRETRAINED.*config.json"):
        build(tmp_path)
    vae.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"block_out_channels \[8, 32\] \(there: \[8, 16\]\)"):
        build(tmp_path, block_out_channels=(8, 32))
    with pytest.raises(ValueError, match=r"OUT_CHANNELS .*latent_channels 64 \(there: 4\)"):
        options = {"pretrained": str(tmp_path), **SIZES}
        build_image_encoder("VAEImageEncoder", out_channels=64, options=options)
    state = {k: v for k, v in vae.state_dict().items() if "conv_in" not in k}
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match="lacks .* weights .*decoder.conv_in.bias"):
        build(tmp_path)
