"""Pretrained UNets: from a folder in Stable Diffusion's layout, widened, saved, loaded again."""

import shutil
import time

import pytest
import torch
from diffusers import UNet2DConditionModel
from huggingface_hub import constants as hub
from tiny_unet import TINY, inputs, whole_model

from ldmseg_d2.modeling import from_hub
from ldmseg_d2.modeling.denoiser import Denoiser, position_embedding


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory):
    """A folder in Stable Diffusion's layout, with a UNet that a test can afford, and the UNet."""
    folder = tmp_path_factory.mktemp("hub") / "stable-diffusion-tiny"
    torch.manual_seed(0)
    sizes = {k: v for k, v in TINY.items() if k not in ("latent_channels", "condition_channels")}
    unet = UNet2DConditionModel(
        in_channels=4, out_channels=4, cross_attention_dim=12, sample_size=8, **sizes
    ).eval()
    unet.save_pretrained(folder / "unet")
    return folder, unet


def pretrained_denoiser(folder, **arguments):
    defaults = {"self_conditioning": True, "pretrained": str(folder)}
    # Sizes that the pretrained UNet does not have: they must not be read.
    return Denoiser(**{**TINY, "block_out_channels": (4,), **defaults, **arguments}).eval()


@torch.no_grad()
def test_widened_unet_starts_as_the_pretrained_one(stable_diffusion):
    """New channels start at zero: with the null token fed to both, outputs are the same."""
    folder, unet = stable_diffusion
    denoiser = pretrained_denoiser(folder, cross_attention="kept")
    assert denoiser.unet.conv_in.in_channels == denoiser.unet.config.in_channels == 14
    denoiser.task_tokens.normal_(generator=torch.Generator().manual_seed(0))
    x, t, condition, previous = inputs()
    expected = unet(x, t, denoiser.task_tokens.expand(2, -1, -1)).sample
    torch.testing.assert_close(denoiser(x, t, condition, previous), expected)
    # The token matters, and so do new channels that do not start at zero.
    assert not torch.allclose(unet(x, t, torch.zeros(2, 1, 12)).sample, expected)
    other = pretrained_denoiser(folder, cross_attention="kept", conv_in_init="random")
    other.task_tokens.copy_(denoiser.task_tokens)
    assert not torch.allclose(other(x, t, condition, previous), expected)
    zeros = torch.zeros_like(condition), torch.zeros_like(previous)
    torch.testing.assert_close(other(x, t, *zeros), expected)


@torch.no_grad()
def test_condition_as_tokens_of_the_pretrained_width(stable_diffusion):
    """The tokens are the projected condition and its positions; conv_in has no channels for it."""
    folder, unet = stable_diffusion
    denoiser = pretrained_denoiser(
        folder, conditioning="cross_attention", cross_attention_dim=32, self_conditioning=False
    )
    assert torch.equal(denoiser.unet.conv_in.weight, unet.conv_in.weight)
    x, t, condition, _ = inputs(3)
    tokens = denoiser.token_projection(condition.flatten(2).mT) + position_embedding(3, 3, 12)
    torch.testing.assert_close(denoiser(x, t, condition), unet(x, t, tokens).sample)


@torch.no_grad()
def test_removed_cross_attention_leaves_the_rest_of_the_pretrained_weights(stable_diffusion):
    folder, unet = stable_diffusion
    denoiser = pretrained_denoiser(folder)
    expected = unet.state_dict()
    for key, value in denoiser.unet.state_dict().items():
        assert "attn2" not in key
        if key == "conv_in.weight":
            assert value[:, 4:].eq(0).all()
            value = value[:, :4]
        assert torch.equal(value, expected[key]), key
    assert denoiser(*inputs()).shape == (2, 4, 8, 8)


@pytest.mark.parametrize("cross_attention", ["kept", "removed"])
@torch.no_grad()
def test_a_saved_widened_unet_reloads(stable_diffusion, tmp_path, cross_attention):
    options = {"cross_attention": cross_attention, "conv_in_init": "random"}
    denoiser = pretrained_denoiser(stable_diffusion[0], **options)
    denoiser.unet.save_pretrained(tmp_path / "unet")
    # From the folder above, and from the UNet's own.
    for folder in (tmp_path, tmp_path / "unet"):
        again = pretrained_denoiser(folder, **options)
        if cross_attention == "kept":  # the tokens of the task are no part of the UNet
            again.task_tokens.data.copy_(denoiser.task_tokens)
        assert again.unet.config.in_channels == 14
        torch.testing.assert_close(again(*inputs()), denoiser(*inputs()), atol=0, rtol=0)
    if cross_attention == "kept":
        plain = UNet2DConditionModel.from_pretrained(tmp_path / "unet", low_cpu_mem_usage=False)
        state = denoiser.unet.state_dict()
        assert all(torch.equal(v, state[k]) for k, v in plain.state_dict().items())
    else:
        with pytest.raises(ValueError, match=r"lacks .*attn2.*CROSS_ATTENTION 'removed'"):
            pretrained_denoiser(tmp_path, cross_attention="kept")


def test_other_latents_need_a_new_input(stable_diffusion):
    folder, _ = stable_diffusion
    with pytest.raises(ValueError, match="4 channels and predicts 4.*CONV_IN_MASK_INIT"):
        pretrained_denoiser(folder, latent_channels=8)
    denoiser = pretrained_denoiser(folder, latent_channels=8, conv_in_mask_init="random")
    config = denoiser.unet.config
    assert (config.in_channels, config.out_channels) == (22, 8)
    x = torch.randn(1, 8, 8, 8)
    assert denoiser(x, torch.tensor([1]), torch.randn(1, 6, 8, 8)).shape == x.shape


def test_local_folders_that_are_none(stable_diffusion, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        pretrained_denoiser(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has a config.json.*SUBFOLDER"):
        pretrained_denoiser(tmp_path)
    shutil.copy(stable_diffusion[0] / "unet" / "config.json", tmp_path)
    with pytest.raises(ValueError, match="holds no UNet2DConditionModel"):
        pretrained_denoiser(tmp_path)
    with pytest.raises(ValueError, match="CONV_IN_INIT is 'ones'; allowed: zero, random"):
        pretrained_denoiser(stable_diffusion[0], conv_in_init="ones")


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_id_without_network_fails_at_once(monkeypatch, offline):
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", offline)
    # A port that nothing listens on: no network is touched, whether there is one or not.
    monkeypatch.setattr(hub, "ENDPOINT", "http://127.0.0.1:9")
    begin = time.monotonic()
    with pytest.raises(FileNotFoundError, match="give the local folder instead") as info:
        pretrained_denoiser("nobody/no-such-model")
    assert time.monotonic() - begin < 5
    reason = "HF_HUB_OFFLINE is set" if offline else "http://127.0.0.1:9 cannot be reached"
    assert reason in str(info.value) and "'nobody/no-such-model'" in str(info.value)


def test_a_hub_that_does_not_answer_is_given_up(monkeypatch):
    def urlopen(*args, **kwargs):
        time.sleep(1)
        raise OSError("too late")

    monkeypatch.setattr(from_hub.urllib.request, "urlopen", urlopen)
    begin = time.monotonic()
    assert not from_hub.is_reachable("http://hub", timeout=0.2)
    assert time.monotonic() - begin < 0.9


def test_the_config_names_a_pretrained_folder(stable_diffusion, tmp_path):
    """And what was trained from it loads into the same sizes without the folder."""
    (tmp_path / "renamed").symlink_to(stable_diffusion[0] / "unet")
    sizes = {k.upper(): list(v) if isinstance(v, tuple) else v for k, v in TINY.items()}
    del sizes["LATENT_CHANNELS"], sizes["CONDITION_CHANNELS"]
    options = {"CONV_IN_INIT": "random", "CONV_IN_MASK_INIT": "random", **sizes}
    model = whole_model(PRETRAINED=str(tmp_path), SUBFOLDER="renamed", **options)
    state = model.denoiser.state_dict()
    expected = stable_diffusion[1].mid_block.resnets[0].conv1.weight
    assert torch.equal(state["unet.mid_block.resnets.0.conv1.weight"], expected)
    whole_model(**options).denoiser.load_state_dict(state)
