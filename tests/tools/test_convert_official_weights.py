"""Published checkpoints: the fixture's weights in their format, converted, loaded, compared."""

import argparse
import json

import pytest
import torch
from diffusers import AutoencoderKL
from load_tool import load_tool
from safetensors.torch import load_file

from ldmseg_d2.engine import LDMSegCheckpointer, Trainer, load_config
from ldmseg_d2.engine.analysis import build_without_weights
from ldmseg_d2.engine.official_weights import DEFAULT_CONFIG, DIFFUSION_PARTS, our_names
from ldmseg_d2.meta_arch import ldmseg

tool = load_tool("convert_official_weights")

# The fixture's sizes, where they are not the published ones.
OPTIONS = [
    "MODEL.DEVICE", "cpu",
    "INPUT.LDMSEG.IMAGE_SIZE", "64",
    "MODEL.LDMSEG.DENOISER.BLOCK_OUT_CHANNELS", "[32, 64]",
    "MODEL.LDMSEG.DENOISER.DOWN_BLOCK_TYPES", "['CrossAttnDownBlock2D', 'DownBlock2D']",
    "MODEL.LDMSEG.DENOISER.UP_BLOCK_TYPES", "['UpBlock2D', 'CrossAttnUpBlock2D']",
    "MODEL.LDMSEG.DENOISER.LAYERS_PER_BLOCK", "1",
    "MODEL.LDMSEG.DENOISER.NORM_NUM_GROUPS", "8",
    "MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS.BLOCK_OUT_CHANNELS", "[8, 8, 8, 16]",
    "MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS.LAYERS_PER_BLOCK", "1",
    "MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS.NORM_NUM_GROUPS", "4",
    "MODEL.LDMSEG.POSTPROCESS.COUNT_THRESHOLD", "100",
]  # fmt: skip


@pytest.fixture(scope="module")
def image_vae():
    """Stable Diffusion's VAE, decoder and all, at a size that a test can afford."""
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
    ).eval()


@pytest.fixture(scope="module")
def published(reference, image_vae):
    """The content of a published diffusion file."""
    return {
        "vae_semseg": {k[3:]: v for k, v in reference.items() if k.startswith("ae.")},
        "unet": {k[5:]: v for k, v in reference.items() if k.startswith("unet.")},
        "vae_image": dict(image_vae.state_dict()),
        "epoch": 3,
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]},
    }


@pytest.fixture(scope="module")
def converted(published, tmp_path_factory):
    """Path of the converted file."""
    folder = tmp_path_factory.mktemp("converted")
    torch.save(published, folder / "in.pt")
    output = folder / "new" / "out.safetensors"
    tool.main([str(folder / "in.pt"), str(output), *OPTIONS])
    return output


def with_module_prefix(content):
    return {
        key: {f"module.{k}": v for k, v in value.items()}
        if key in ("vae", "vae_semseg", "unet", "vae_image")
        else value
        for key, value in content.items()
    }


def load_as_train_net(path):
    """The model as ``tools/train_net.py --eval-only`` makes it."""
    cfg = load_config(DEFAULT_CONFIG, [*OPTIONS, "MODEL.WEIGHTS", str(path)])
    model = Trainer.build_model(cfg)
    LDMSegCheckpointer(model).resume_or_load(cfg.MODEL.WEIGHTS, resume=False)
    return model.eval()


@torch.no_grad()
def test_converted_weights_reproduce_the_reference(converted, reference, image_vae, monkeypatch):
    model = load_as_train_net(converted)
    photos = torch.rand(2, 3, 64, 64) * 2 - 1
    expected = image_vae.encode(photos).latent_dist.mean * 0.18215
    torch.testing.assert_close(model.image_encoder(photos), expected)
    # The fixture's photo latents and noise; everything else is the model's own.
    monkeypatch.setattr(model, "encode_images", lambda inputs: reference["image_latents"])
    monkeypatch.setattr(ldmseg, "initial_noise", lambda *args: reference["noise"])
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    outputs = model([{"image": image, "image_id": i, "height": 97, "width": 113} for i in (0, 1)])
    for image, output in enumerate(outputs):
        panoptic, segments_info = output["panoptic_seg"]
        assert torch.equal(panoptic, reference[f"panoptic_logits_{image}"])
        assert {s["id"] for s in segments_info} == set(panoptic.unique().tolist()) - {0}


def test_module_prefix_and_old_attention_names(published, converted, tmp_path, capsys):
    """DistributedDataParallel's prefix, and diffusers' names of the VAE's attention before 0.15."""
    content = with_module_prefix(published)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, name in old.items():
        content["vae_image"] = {
            key.replace(f".{new}.", f".{name}."): v for key, v in content["vae_image"].items()
        }
    assert "module.encoder.mid_block.attentions.0.query.weight" in content["vae_image"]
    torch.save({f"module.{key}": value for key, value in content.items()}, tmp_path / "in.pt")
    tool.main([str(tmp_path / "in.pt"), str(tmp_path / "out.safetensors"), *OPTIONS])
    lines, number = capsys.readouterr().out.splitlines(), len(published["unet"])
    assert lines[0] == "vae_semseg -> autoencoder.*: 34 of 34 tensors, 2.02M values"
    assert lines[1].startswith(f"unet -> denoiser.unet.*: {number} of {number} tensors, ")
    assert lines[3] == "not looked at: epoch, optimizer"
    expected, found = load_file(converted), load_file(tmp_path / "out.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)


@pytest.mark.parametrize("wrap", [dict, with_module_prefix])
def test_autoencoder_file(published, tmp_path, wrap):
    """It serves stage 1 as MODEL.WEIGHTS and stage 2 as MODEL.LDMSEG.AUTOENCODER.WEIGHTS."""
    content = wrap({"vae": published["vae_semseg"], "iteration": 7})
    torch.save(content, tmp_path / "in.pt")
    output = tmp_path / "out.safetensors"
    tool.main([str(tmp_path / "in.pt"), str(output)])
    cfg = load_config("configs/coco/autoencoder_coco.yaml", ["MODEL.DEVICE", "cpu"])
    stage1 = Trainer.build_model(cfg)
    LDMSegCheckpointer(stage1).load(str(output))
    cfg = load_config(DEFAULT_CONFIG, [*OPTIONS, "MODEL.LDMSEG.AUTOENCODER.WEIGHTS", str(output)])
    stage2 = Trainer.build_model(cfg)
    for key, value in published["vae_semseg"].items():
        assert torch.equal(stage1.autoencoder.state_dict()[key], value)
        assert torch.equal(stage2.autoencoder.state_dict()[key], value)


def change(content, part, **tensors):
    """A copy with one part changed; None takes a tensor away."""
    state = {**content[part], **{key.replace("__", "."): v for key, v in tensors.items()}}
    return {**content, part: {key: value for key, value in state.items() if value is not None}}


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            lambda c: change(c, "unet", conv_in__weight=torch.zeros(32, 8, 3, 3)),
            r"part unet.*UNet2DConditionModel.*conv_in.weight \(32, 8, 3, 3\), the model has "
            r"\(32, 12, 3, 3\)",
        ),
        (
            lambda c: change(c, "vae_semseg", encoder__0__bias=None),
            r"part vae_semseg.*1 missing:.*encoder.0.bias \(32,\)",
        ),
        (lambda c: change(c, "unet", stranger=torch.zeros(2)), r"not in the model:.*stranger"),
        (lambda c: {k: c[k] for k in ("unet", "vae_image")}, "lacks 'vae_semseg' and has 'unet'"),
    ],
)
def test_files_that_do_not_fit(published, tmp_path, spoil, message):
    torch.save(spoil(published), tmp_path / "in.pt")
    output = tmp_path / "out.safetensors"
    with pytest.raises(SystemExit, match=rf"(?s)convert_official_weights.py: error: .*{message}"):
        tool.main([str(tmp_path / "in.pt"), str(output), *OPTIONS])
    assert not output.exists()
    if "not in the model" in message:
        tool.main([str(tmp_path / "in.pt"), str(output), "--skip-unknown", *OPTIONS])
        assert "denoiser.unet.stranger" not in load_file(output)


def test_a_file_that_needs_pickle_is_explained_and_not_run(published, tmp_path, monkeypatch):
    path = tmp_path / "in.pt"
    torch.save({**published, "args": argparse.Namespace(lr=1)}, path)
    with pytest.raises(SystemExit, match="can run any code") as info:
        tool.main([str(path), str(tmp_path / "out.safetensors"), *OPTIONS])
    # What it advises works.
    monkeypatch.chdir(tmp_path)
    [line] = [line for line in str(info.value).splitlines() if line.startswith("  python -c ")]
    exec(line.strip().removeprefix("python -c ").strip('"'))
    tool.main([str(tmp_path / "tensors.pt"), str(tmp_path / "out.safetensors"), *OPTIONS])


def test_wrong_names_are_refused(published, tmp_path):
    with pytest.raises(SystemExit, match="must end in .safetensors"):
        tool.main([str(tmp_path / "in.pt"), str(tmp_path / "out.pth")])
    with pytest.raises(SystemExit, match="no such file"):
        tool.main([str(tmp_path / "in.pt"), str(tmp_path / "out.safetensors")])
    torch.save(published, tmp_path / "in.pt")
    with pytest.raises(SystemExit, match="no image_encoder.vae: .*'VAEImageEncoder'"):
        options = ["--config-file", "configs/coco/ldmseg_panoptic_coco.yaml"]
        tool.main([str(tmp_path / "in.pt"), str(tmp_path / "out.safetensors"), *options])


def test_the_input_conv_under_a_second_name(published, converted, tmp_path):
    """The first implementation saves it as ``new_conv`` as well."""
    twice = {
        f"new_conv.{part}": published["unet"][f"conv_in.{part}"] for part in ("weight", "bias")
    }
    torch.save({**published, "unet": {**published["unet"], **twice}}, tmp_path / "in.pt")
    tool.main([str(tmp_path / "in.pt"), str(tmp_path / "out.safetensors"), *OPTIONS])
    found, expected = load_file(tmp_path / "out.safetensors"), load_file(converted)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)
    twice["new_conv.bias"] = twice["new_conv.bias"] + 1
    with pytest.raises(
        ValueError, match="new_conv.bias should be conv_in.bias under a second name"
    ):
        our_names("unet", {**published["unet"], **twice})


@pytest.mark.parametrize("part", DIFFUSION_PARTS)
def test_every_tensor_of_a_published_file_has_its_place(shared, part):
    """Names and shapes of a file written by the first implementation, at full size."""
    names = json.loads((shared / "fixtures" / "official_format.json").read_text())[part]
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, (shape, _) in names.items()}
    if part == "unet":
        for name in [name for name in state if name.startswith("new_conv.")]:
            state[name] = state[name.replace("new_conv", "conv_in")] = torch.zeros(
                state[name].shape
            )
    ours = build_without_weights(load_config(DEFAULT_CONFIG))
    expected = ours.get_submodule(DIFFUSION_PARTS[part][:-1]).state_dict()
    found = our_names(part, state)
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in expected.items()}
