import pytest
import torch

from ldmseg_d2.diffusion import build_scheduler, sample_latents
from ldmseg_d2.modeling.denoiser import Denoiser

TINY = {
    "latent_channels": 4,
    "condition_channels": 6,
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}


@pytest.fixture(scope="module")
def published(reference):
    config = reference["metadata"]["unet_config"]
    names = set(TINY) - {"latent_channels", "condition_channels"}
    denoiser = Denoiser(
        latent_channels=4,
        condition_channels=4,
        self_conditioning=True,
        **{name: config[name] for name in names},
    )
    denoiser.load_state_dict({k: v for k, v in reference.items() if k.startswith("unet.")})
    return denoiser.eval()


@torch.no_grad()
def test_published_weights_predict_as_the_reference(published, reference):
    x_t, condition, previous = reference["unet_in"].split(4, dim=1)
    output = published(x_t, reference["add_noise_t"], condition, previous)
    torch.testing.assert_close(output, reference["unet_out"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps", [50, 10])
@pytest.mark.parametrize("self_conditioning", [False, True])
def test_published_weights_sample_as_the_reference(published, reference, steps, self_conditioning):
    x0 = sample_latents(
        lambda x_t, t, previous: published(x_t, t, reference["image_latents"], previous),
        reference["noise"],
        scheduler=build_scheduler("DDIM"),
        num_inference_steps=steps,
        self_conditioning=self_conditioning,
    )
    expected = reference[f"sample_{steps}" + ("_selfcond" if self_conditioning else "")]
    torch.testing.assert_close(x0, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("self_conditioning", [True, False])
def test_input_channels_and_no_cross_attention(self_conditioning):
    denoiser = Denoiser(**TINY, self_conditioning=self_conditioning)
    assert denoiser.unet.conv_in.in_channels == (14 if self_conditioning else 10)
    assert denoiser.unet.config.in_channels == denoiser.unet.conv_in.in_channels
    assert not [name for name, _ in denoiser.named_parameters() if "attn2" in name]
    out = denoiser(torch.randn(2, 4, 4, 4), torch.tensor([1, 9]), torch.randn(2, 6, 4, 4))
    assert out.shape == (2, 4, 4, 4)


def test_missing_self_conditioning_is_zeros():
    denoiser = Denoiser(**TINY, self_conditioning=True).eval()
    x, t, condition = torch.randn(1, 4, 4, 4), torch.tensor([5]), torch.randn(1, 6, 4, 4)
    torch.testing.assert_close(
        denoiser(x, t, condition), denoiser(x, t, condition, torch.zeros_like(x))
    )


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        denoiser = Denoiser(
            **TINY, self_conditioning=False, gradient_checkpointing=checkpointing
        ).train()
        x, condition = torch.ones(1, 4, 4, 4), torch.ones(1, 6, 4, 4)
        denoiser(x, torch.tensor([7]), condition).square().mean().backward()
        gradients.append([p.grad for p in denoiser.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_freeze_takes_the_named_parameters_only():
    denoiser = Denoiser(**TINY, self_conditioning=False, freeze=["time_embedding"])
    for name, parameter in denoiser.named_parameters():
        assert parameter.requires_grad == ("time_embedding" not in name)
    with pytest.raises(ValueError, match="no parameter contains 'no_such'"):
        Denoiser(**TINY, self_conditioning=False, freeze=["no_such"])


def test_levels_must_agree():
    with pytest.raises(ValueError, match="one entry per level, got 3, 2 and 2"):
        Denoiser(**{**TINY, "block_out_channels": (8, 8, 8)}, self_conditioning=False)
