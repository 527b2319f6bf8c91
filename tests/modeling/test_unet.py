"""Pretrained UNets: from a folder in Stable Diffusion's layout, widened, saved, loaded again."""

import shutil

import pytest
import torch
from diffusers import UNet2DConditionModel
from tiny_unet import TINY, inputs

from ldmseg_d2.modeling.denoiser import Denoiser


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


def predict(denoiser, x, t, condition, previous):
    return denoiser(x, t, previous, condition=condition)


@torch.no_grad()
def test_widened_unet_starts_as_the_pretrained_one(stable_diffusion):
    """New channels start at zero: with the same token fed to both, outputs are the same."""
    folder, unet = stable_diffusion
    denoiser = pretrained_denoiser(folder, num_tasks=2)
    assert denoiser.unet.conv_in.in_channels == denoiser.unet.config.in_channels == 14
    denoiser.task_tokens.normal_(generator=torch.Generator().manual_seed(0))
    x, t, condition, previous = inputs()
    expected = unet(x, t, denoiser.task_tokens[[0, 0]]).sample
    torch.testing.assert_close(predict(denoiser, x, t, condition, previous), expected)
    assert not torch.allclose(unet(x, t, torch.zeros(2, 4, 12)).sample, expected)


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
    assert predict(denoiser, *inputs()).shape == (2, 4, 8, 8)


@pytest.mark.parametrize("num_tasks", [1, 2])
@torch.no_grad()
def test_a_saved_widened_unet_reloads(stable_diffusion, tmp_path, num_tasks):
    denoiser = pretrained_denoiser(stable_diffusion[0], num_tasks=num_tasks)
    denoiser.unet.conv_in.weight.normal_()  # as after training
    denoiser.unet.save_pretrained(tmp_path / "unet")
    # From the folder above, and from the UNet's own.
    for folder in (tmp_path, tmp_path / "unet"):
        again = pretrained_denoiser(folder, num_tasks=num_tasks)
        if num_tasks > 1:  # the tokens of the task are no part of the UNet
            again.task_tokens.data.copy_(denoiser.task_tokens)
        assert again.unet.config.in_channels == 14
        found, expected = predict(again, *inputs()), predict(denoiser, *inputs())
        torch.testing.assert_close(found, expected, atol=0, rtol=0)
    if num_tasks == 1:
        with pytest.raises(ValueError, match=r"lacks .*attn2.*serves one task"):
            pretrained_denoiser(tmp_path, num_tasks=2)


def test_other_latents_do_not_fit(stable_diffusion):
    with pytest.raises(ValueError, match="reads 4 channels and predicts 4.*LATENT_CHANNELS to 4"):
        pretrained_denoiser(stable_diffusion[0], latent_channels=8)


def test_local_folders_that_are_none(stable_diffusion, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        pretrained_denoiser(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"'unet' has a config.json"):
        pretrained_denoiser(tmp_path)
    shutil.copy(stable_diffusion[0] / "unet" / "config.json", tmp_path)
    with pytest.raises(ValueError, match="holds no UNet2DConditionModel"):
        pretrained_denoiser(tmp_path)
