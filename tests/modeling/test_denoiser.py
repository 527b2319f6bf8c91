import copy
import shutil

import pytest
import torch
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from tiny import tiny_batch
from tiny_unet import TINY, inputs, whole_model

from ldmseg_d2.diffusion import build_scheduler, sample_latents
from ldmseg_d2.modeling.denoiser import Denoiser, position_embedding


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


@torch.no_grad()
def test_condition_as_tokens():
    """Any grid of the condition; no input channels for it; its place matters."""
    denoiser = Denoiser(
        **TINY, self_conditioning=True, conditioning="cross_attention", cross_attention_dim=12
    ).eval()
    assert denoiser.unet.config.in_channels == 8
    assert denoiser.token_projection.weight.shape == (12, 6)
    for size in (8, 3):
        x, t, condition, previous = inputs(size)
        output = denoiser(x, t, condition, previous)
        assert output.shape == x.shape
        moved = denoiser(x, t, condition.roll(1, dims=-1), previous)
        assert not torch.allclose(output, moved, atol=1e-6)


def test_condition_of_the_right_width_is_not_projected():
    denoiser = Denoiser(
        **{**TINY, "condition_channels": 8},
        self_conditioning=False,
        conditioning="cross_attention",
        cross_attention_dim=8,
    )
    condition = torch.randn(1, 8, 2, 3)
    expected = condition.flatten(2).mT + position_embedding(2, 3, 8)
    task = torch.zeros(1, dtype=torch.int64)
    torch.testing.assert_close(denoiser._tokens(condition, task), expected)
    denoiser(torch.ones(1, 4, 4, 4), torch.tensor([1]), condition).square().sum().backward()
    assert all(p.grad is not None for p in denoiser.parameters())


def test_position_embedding_is_that_of_the_literature():
    """diffusers' has x first; both have sine and cosine of each frequency."""
    theirs = get_2d_sincos_pos_embed(16, (5, 5), base_size=5, output_type="pt").float()
    x, y = theirs.split(8, dim=1)
    torch.testing.assert_close(position_embedding(5, 5, 16), torch.cat([y, x], dim=1))
    assert len(position_embedding(6, 2, 4).unique(dim=0)) == 12
    with pytest.raises(ValueError, match="multiple of 4"):
        position_embedding(2, 2, 6)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"conditioning": "add"}, "CONDITIONING is 'add'; allowed: concat, cross_attention"),
        ({"cross_attention": "kep"}, "CROSS_ATTENTION is 'kep'; allowed: removed, kept"),
        (
            {
                "cross_attention": "kept",
                "down_block_types": ("DownBlock2D",) * 2,
                "up_block_types": ("UpBlock2D",) * 2,
            },
            "this UNet has no cross-attention",
        ),
    ],
)
def test_unknown_names_and_nothing_to_attend(arguments, message):
    with pytest.raises(ValueError, match=message):
        Denoiser(**{**TINY, **arguments}, self_conditioning=False)


def test_channels_last_changes_no_result_and_no_key():
    results, keys = [], []
    for channels_last in (False, True):
        torch.manual_seed(0)
        denoiser = Denoiser(**TINY, self_conditioning=True, channels_last=channels_last).eval()
        results.append(denoiser(*inputs()))
        keys.append(list(denoiser.state_dict()))
    assert denoiser.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)
    assert keys[0] == keys[1]


def test_compiling_changes_no_key():
    """Nothing is compiled before the first call, which needs a compiler and minutes."""
    plain = Denoiser(**TINY, self_conditioning=True)
    compiled = Denoiser(**TINY, self_conditioning=True, compile_unet=True)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    compiled.load_state_dict(plain.state_dict())
    # The moving average of the weights is a copy.
    assert list(copy.deepcopy(compiled).state_dict()) == list(plain.state_dict())


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@torch.no_grad()
def test_compiled_predicts_as_plain():
    torch.manual_seed(0)
    plain = Denoiser(**TINY, self_conditioning=True).eval()
    compiled = Denoiser(**TINY, self_conditioning=True, compile_unet=True).eval()
    compiled.load_state_dict(plain.state_dict())
    torch.testing.assert_close(compiled(*inputs()), plain(*inputs()), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "options, grid",
    [
        ({"CONDITIONING": "cross_attention", "CROSS_ATTENTION_DIM": 8}, 8),
        ({"CROSS_ATTENTION": "kept", "CROSS_ATTENTION_DIM": 8, "CHANNELS_LAST": True}, 16),
        ({}, 16),
    ],
)
def test_in_the_whole_model(options, grid):
    model = whole_model(**options).train()
    assert model.latent_shape == (16, 16, 16)
    assert model.encode_images(torch.zeros(1, 3, 64, 64)).shape[-2:] == (grid, grid)
    sum(model(tiny_batch()).values()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("autoencoder."), name
    panoptic, _ = model.eval()(tiny_batch(annotated=False))[0]["panoptic_seg"]
    assert panoptic.shape == (64, 64)
    assert ("task_tokens" in dict(model.denoiser.named_parameters())) == (
        options.get("CROSS_ATTENTION") == "kept"
    )


SEVERAL = {**TINY, "cross_attention": "kept", "cross_attention_dim": 8, "num_tasks": 3}


@torch.no_grad()
@pytest.mark.parametrize("in_time_embedding", [False, True])
def test_task_tokens_tell_the_tasks_apart(in_time_embedding):
    torch.manual_seed(0)
    denoiser = Denoiser(
        **SEVERAL,
        self_conditioning=False,
        tokens_per_task=2,
        task_in_time_embedding=in_time_embedding,
    ).eval()
    assert denoiser.task_tokens.shape == (3, 2, 8)
    # Enough to be seen beside a random network's rounding.
    denoiser.task_tokens.mul_(50)
    x, t, condition, _ = inputs()
    first, second = (denoiser(x, t, condition, task=torch.full((2,), k)) for k in (0, 1))
    assert not torch.allclose(first, second, atol=1e-4)
    torch.testing.assert_close(denoiser(x, t, condition), first)
    # Each sample is told its own task.
    mixed = denoiser(x, t, condition, task=torch.tensor([1, 0]))
    torch.testing.assert_close(mixed, torch.stack([second[0], first[1]]), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_task_vectors_begin_as_nothing_and_reach_every_block():
    torch.manual_seed(0)
    denoiser = Denoiser(**SEVERAL, self_conditioning=False, task_in_time_embedding=True).eval()
    torch.manual_seed(0)
    plain = Denoiser(**SEVERAL, self_conditioning=False).eval()
    plain.load_state_dict(denoiser.state_dict(), strict=False)
    x, t, condition, _ = inputs()
    task = torch.tensor([0, 2])
    torch.testing.assert_close(
        denoiser(x, t, condition, task=task), plain(x, t, condition, task=task)
    )
    denoiser.task_vectors.weight[2] = 1.0
    changed = denoiser(x, t, condition, task=task) != plain(x, t, condition, task=task)
    assert changed.flatten(1).any(1).tolist() == [False, True]


def test_several_tasks_need_cross_attention():
    with pytest.raises(ValueError, match="CROSS_ATTENTION 'removed' cannot tell 3 tasks apart"):
        Denoiser(**TINY, self_conditioning=False, num_tasks=3)


def test_known_channel_is_the_last_input():
    denoiser = Denoiser(**TINY, self_conditioning=True, known_channel=True).eval()
    assert denoiser.unet.config.in_channels == 15
    x, t, condition, previous = inputs()
    known = torch.rand(2, 1, 8, 8) < 0.5
    with torch.no_grad():
        output = denoiser(x, t, condition, previous, known=known)
        stacked = torch.cat([x, condition, previous, known.float()], dim=1)
        torch.testing.assert_close(output, denoiser.unet(stacked, t, None).sample)
