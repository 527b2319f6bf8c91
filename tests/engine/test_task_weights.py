"""A model of more tasks that starts from one of fewer does the old ones exactly as before."""

import pytest
import torch
from detectron2.modeling import build_model
from safetensors.torch import load_file, save_file
from tiny import CLASSES, JOINT, LDMSEG, SEPARATE, tiny_config

from ldmseg_d2.engine.task_weights import extend_weights
from ldmseg_d2.modeling.weights import load_into

SELF_CONDITIONING = ("MODEL.LDMSEG.DIFFUSION.SELF_CONDITIONING", True)


def config(name=LDMSEG, *opts):
    return tiny_config(name, *CLASSES, *opts)


def source_file(tmp_path, cfg):
    """A model with random weights in all places, those that begin as zero too; and its file."""
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    with torch.no_grad():
        for parameter in model.denoiser.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    path = str(tmp_path / "source.safetensors")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    return model, path


def extended(source_cfg, target_cfg, path):
    torch.manual_seed(1)
    weights = extend_weights(source_cfg, target_cfg, path)
    model = build_model(target_cfg).eval()
    load_into(model, weights, source="extended", ignore_missing=model.frozen_prefixes)
    return model


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(5)
    return {
        "x_t": torch.randn(2, 48, 16, 16, generator=generator),
        "previous": torch.randn(2, 48, 16, 16, generator=generator),
        "condition": torch.randn(2, 8, 16, 16, generator=generator),
        "t": torch.tensor([30, 900]),
    }


@torch.no_grad()
@pytest.mark.parametrize("opts", [(), SELF_CONDITIONING])
@pytest.mark.parametrize("tasks", [["instance", "semantic", "depth"], ["depth", "instance"]])
def test_joint_starts_with_the_old_prediction_whatever_the_new_channels_hold(
    opts, tasks, inputs, tmp_path
):
    source_cfg = config(LDMSEG, *opts)
    old, path = source_file(tmp_path, source_cfg)
    target = ("MODEL.LDMSEG.TASKS", tasks, "MODEL.LDMSEG.CLASSIFIER", "none")
    new = extended(source_cfg, config(JOINT, *opts, *target), path)
    channels = 16 * len(tasks)
    own = slice(16 * tasks.index("instance"), 16 * tasks.index("instance") + 16)
    x_t, previous = inputs["x_t"][:, :channels], inputs["previous"][:, :channels]
    t, condition = inputs["t"], inputs["condition"]
    known = torch.ones(2, 1, 16, 16, dtype=torch.bool)
    expected = old.denoiser(x_t[:, own], t, condition, previous[:, own])
    for scale in (1.0, -3.0):
        x = scale * x_t
        x[:, own] = x_t[:, own]
        output = new.denoiser(x, t, condition, previous, known=known)
        torch.testing.assert_close(output[:, own], expected, atol=1e-5, rtol=1e-5)
    others = [c for c in range(channels) if not own.start <= c < own.stop]
    assert output[:, others].any(), "new outputs begin at random, or they would never learn"
    for key, value in old.image_encoder.state_dict().items():
        assert torch.equal(new.image_encoder.state_dict()[key], value)


@torch.no_grad()
@pytest.mark.parametrize("opts", [(), SELF_CONDITIONING])
def test_separate_starts_with_the_old_prediction_for_every_task(opts, inputs, tmp_path):
    source_cfg = config(LDMSEG, *opts)
    old, path = source_file(tmp_path, source_cfg)
    new = extended(source_cfg, config(SEPARATE, *opts), path)
    x, previous = inputs["x_t"][:, :16], inputs["previous"][:, :16]
    expected = old.denoiser(x, inputs["t"], inputs["condition"], previous)
    for k in range(3):
        output = new.denoiser(
            x, inputs["t"], inputs["condition"], previous, task=torch.full((2,), k)
        )
        torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    assert not torch.equal(new.denoiser.task_tokens[0], new.denoiser.task_tokens[1])


@torch.no_grad()
@pytest.mark.parametrize("name", [SEPARATE, JOINT])
def test_two_tasks_become_three_and_keep_what_they_learnt(name, inputs, tmp_path):
    """Task tokens go with the tasks, which may stand in another order."""
    cfgs = [
        config(name, "MODEL.LDMSEG.CLASSIFIER", "none", "MODEL.LDMSEG.TASKS", tasks)
        for tasks in (["instance", "depth"], ["depth", "semantic", "instance"])
    ]
    old, path = source_file(tmp_path, cfgs[0])
    new = extended(*cfgs, path)
    t, condition = inputs["t"], inputs["condition"]
    if name == JOINT:
        x = inputs["x_t"][:, :32]
        wide = torch.cat([x[:, 16:], inputs["x_t"][:, 32:], x[:, :16]], dim=1)
        expected = old.denoiser(x, t, condition)
        output = new.denoiser(wide, t, condition)
        output = torch.cat([output[:, 32:], output[:, :16]], dim=1)
        torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
        return
    x = inputs["x_t"][:, :16]
    for before, after in ((0, 2), (1, 0)):
        torch.testing.assert_close(
            new.denoiser(x, t, condition, task=torch.full((2,), after)),
            old.denoiser(x, t, condition, task=torch.full((2,), before)),
            atol=1e-5,
            rtol=1e-5,
        )


def test_an_image_encoder_that_only_the_target_freezes_is_not_lost(tmp_path):
    old, path = source_file(tmp_path, config())
    target = config(JOINT, "MODEL.LDMSEG.IMAGE_ENCODER.FREEZE", True)
    weights = extend_weights(config(), target, path)
    for key, value in old.image_encoder.state_dict().items():
        assert torch.equal(weights[f"image_encoder.{key}"], value)
    assert not [key for key in weights if key.startswith(("autoencoder.", "depth_autoencoder."))]


@pytest.mark.parametrize(
    "source, target, message",
    [
        ((JOINT,), (LDMSEG,), r"lacks the tasks \['semantic', 'depth'\] of the source"),
        ((JOINT,), (SEPARATE,), "TASK_MODE of the two models differs"),
        ((LDMSEG,), (JOINT, "DENOISER.BLOCK_OUT_CHANNELS", [24, 32]), "in their tasks only"),
        ((LDMSEG,), (JOINT, "IMAGE_ENCODER.OUT_CHANNELS", 16), "in their tasks only|IMAGE_ENCODER"),
        ((LDMSEG,), (JOINT, "AUTOENCODER.LATENT_CHANNELS", 8), "LATENT_CHANNELS"),
        ((LDMSEG, "DIFFUSION.SELF_CONDITIONING", True), (JOINT,), "SELF_CONDITIONING"),
    ],
)
def test_models_that_differ_in_more_than_tasks_raise(source, target, message, tmp_path):
    source_cfg, target_cfg = (
        config(name, *(f"MODEL.LDMSEG.{o}" if i == 0 else o for i, o in enumerate(opts)))
        for name, *opts in (source, target)
    )
    _, path = source_file(tmp_path, source_cfg)
    with pytest.raises(ValueError, match=message):
        extend_weights(source_cfg, target_cfg, path)


def test_weights_of_another_model_or_no_file_raise(tmp_path):
    _, path = source_file(tmp_path, config())
    state = load_file(path)
    del state["denoiser.unet.conv_in.bias"]
    save_file(state, path)
    with pytest.raises(ValueError, match="denoiser.unet.conv_in.bias"):
        extend_weights(config(), config(JOINT), path)
    with pytest.raises(FileNotFoundError, match="none.safetensors"):
        extend_weights(config(), config(JOINT), str(tmp_path / "none.safetensors"))
