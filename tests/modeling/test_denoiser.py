import copy
import shutil

import pytest
import torch
from tiny_unet import TINY, inputs

from ldmseg_d2.diffusion import build_scheduler, sample_latents
from ldmseg_d2.modeling.denoiser import Denoiser


def build(**options):
    torch.manual_seed(0)
    return Denoiser(**{**TINY, "self_conditioning": True, **options})


@pytest.fixture(scope="module")
def published(reference):
    config = reference["metadata"]["unet_config"]
    denoiser = build(**{key: config.get(key, 4) for key in TINY})
    denoiser.load_state_dict({k: v for k, v in reference.items() if k.startswith("unet.")})
    return denoiser.eval()


@torch.no_grad()
def test_published_weights_predict_as_the_reference(published, reference):
    x_t, condition, previous = reference["unet_in"].split(4, dim=1)
    output = published(x_t, reference["add_noise_t"], previous, condition=condition)
    torch.testing.assert_close(output, reference["unet_out"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps", [50, 10])
@pytest.mark.parametrize("self_conditioning", [False, True])
def test_published_weights_sample_as_the_reference(published, reference, steps, self_conditioning):
    x0 = sample_latents(
        published,
        reference["noise"],
        conditions={"condition": reference["image_latents"]},
        scheduler=build_scheduler("DDIM"),
        num_inference_steps=steps,
        self_conditioning=self_conditioning,
    )
    expected = reference[f"sample_{steps}" + ("_selfcond" if self_conditioning else "")]
    torch.testing.assert_close(x0, expected, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("self_conditioning", [True, False])
@pytest.mark.parametrize("known_channel", [True, False])
def test_inputs_are_stacked_and_what_is_missing_is_zero(self_conditioning, known_channel):
    options = {"self_conditioning": self_conditioning, "known_channel": known_channel}
    denoiser = build(**options).eval()
    x, t, condition, previous = inputs()
    known = torch.rand(2, 1, 8, 8) < 0.5
    parts = [x, condition]
    parts += [previous] * self_conditioning + [known.float()] * known_channel
    expected = denoiser.unet(torch.cat(parts, dim=1), t, None).sample
    output = denoiser(x, t, previous, condition=condition, known=known)
    torch.testing.assert_close(output, expected)
    assert denoiser.unet.config.in_channels == denoiser.unet.conv_in.in_channels
    missing = denoiser(x, t, condition=condition)
    zeros = denoiser(x, t, torch.zeros_like(x), condition=condition, known=known & False)
    assert torch.equal(missing, zeros)
    assert not [name for name, _ in denoiser.named_parameters() if "attn2" in name]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"freeze": ["no_such"]}, "no parameter contains 'no_such'"),
        ({"block_out_channels": (8, 8, 8)}, "one entry per level, got 3, 2 and 2"),
        (
            {"num_tasks": 2, "down_block_types": ("DownBlock2D",) * 2,
             "up_block_types": ("UpBlock2D",) * 2},
            "this UNet has no cross-attention",
        ),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_memory_and_speed_change_no_result_and_no_key():
    """Nothing is compiled before the first call, which needs a compiler and minutes."""
    plain, last = build().train(), build(channels_last=True, gradient_checkpointing=True).train()
    compiled = build(compile_unet=True, freeze=["time_embedding"])
    x, t, condition, previous = inputs()
    outputs = [one(x, t, previous, condition=condition) for one in (plain, last)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    for output in outputs:
        output.square().mean().backward()
    gradients = [[p.grad for p in one.parameters()] for one in (plain, last)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
    assert last.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    for name, parameter in compiled.named_parameters():
        assert parameter.requires_grad == ("time_embedding" not in name)
    # The moving average of the weights is a copy.
    for other in (last, compiled, copy.deepcopy(compiled)):
        assert list(other.state_dict()) == list(plain.state_dict())


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@torch.no_grad()
def test_compiled_predicts_as_plain():
    x, t, condition, previous = inputs()
    outputs = [
        build(compile_unet=compiled).eval()(x, t, previous, condition=condition)
        for compiled in (True, False)
    ]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-4)


SEVERAL = {"cross_attention_dim": 8, "num_tasks": 3}


@torch.no_grad()
def test_task_tokens_tell_the_tasks_apart():
    denoiser = build(**SEVERAL).eval()
    # Enough to be seen beside a random network's rounding.
    denoiser.task_tokens.mul_(50)
    x, t, condition, _ = inputs()
    first, second = (denoiser(x, t, condition=condition, task=torch.full((2,), k)) for k in (0, 1))
    assert not torch.allclose(first, second, atol=1e-4)
    torch.testing.assert_close(denoiser(x, t, condition=condition), first)
    # Each sample is told its own task.
    mixed = denoiser(x, t, condition=condition, task=torch.tensor([1, 0]))
    torch.testing.assert_close(mixed, torch.stack([second[0], first[1]]), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_task_vectors_begin_as_nothing_and_belong_to_a_task():
    denoiser = build(**SEVERAL, task_in_time_embedding=True).eval()
    x, t, condition, _ = inputs()
    task = torch.tensor([0, 2])
    plain = build(**SEVERAL).eval()
    plain.load_state_dict(denoiser.state_dict(), strict=False)
    outputs = [one(x, t, condition=condition, task=task) for one in (denoiser, plain)]
    torch.testing.assert_close(*outputs)
    denoiser.task_vectors.weight[2] = 1.0
    changed = denoiser(x, t, condition=condition, task=task) != outputs[0]
    assert changed.flatten(1).any(1).tolist() == [False, True]
