"""Published checkpoints: the fixture's weights in their format, converted, loaded, compared."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from load_tool import load_tool
from safetensors.torch import load_file

from ldmseg_d2.engine import LDMSegCheckpointer, Trainer, load_config
from ldmseg_d2.engine.official_weights import DEFAULT_CONFIG, convert_official_weights
from ldmseg_d2.meta_arch import LDMSeg, generation

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "convert_official_weights.py"
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


def batch_of_two():
    return [
        {
            "image": torch.full((3, 64, 64), 255 * i, dtype=torch.uint8),
            "image_id": i,
            "file_name": f"{i}.png",
            "height": 97,
            "width": 113,
        }
        for i in range(2)
    ]


def test_the_config_is_that_of_the_published_weights():
    cfg = load_config(DEFAULT_CONFIG)
    ldmseg = cfg.MODEL.LDMSEG
    assert ldmseg.NUM_BITS == 7 and ldmseg.AUTOENCODER.SCALING_FACTOR == 0.18215
    assert ldmseg.SAMPLER.NUM_INFERENCE_STEPS == 50
    post = ldmseg.POSTPROCESS
    thresholds = (post.MASK_THRESHOLD, post.OVERLAP_THRESHOLD, post.COUNT_THRESHOLD)
    assert thresholds == (0.5, 0.5, 512)
    with torch.device("meta"):
        model = LDMSeg(cfg)
    assert model.denoiser.unet.conv_in.weight.shape == (320, 12, 3, 3)
    assert model.frozen_prefixes == ("autoencoder.", "image_encoder.")


@torch.no_grad()
def test_converted_weights_reproduce_the_reference(converted, reference, monkeypatch):
    model = load_as_train_net(converted)
    # The fixture's photo latents and noise; everything else is the model's own.
    monkeypatch.setattr(model, "encode_images", lambda images: reference["image_latents"])
    monkeypatch.setattr(generation, "initial_noise", lambda *args: reference["noise"])
    seen = {}
    denormalize, decode = model.autoencoder.denormalize, model.autoencoder.decode

    def keep_latents(latents):
        seen["latents"] = latents
        return denormalize(latents)

    def keep_logits(latents):
        seen["logits"] = decode(latents)
        return seen["logits"]

    monkeypatch.setattr(model.autoencoder, "denormalize", keep_latents)
    monkeypatch.setattr(model.autoencoder, "decode", keep_logits)
    outputs = model(batch_of_two())
    torch.testing.assert_close(seen["latents"], reference["sample_50_selfcond"], atol=1e-4, rtol=0)
    torch.testing.assert_close(seen["logits"], reference["logits"], atol=1e-4, rtol=1e-4)
    for image, output in enumerate(outputs):
        panoptic, segments_info = output["panoptic_seg"]
        assert torch.equal(panoptic, reference[f"panoptic_logits_{image}"])
        assert {s["id"] for s in segments_info} == set(panoptic.unique().tolist()) - {0}


@torch.no_grad()
def test_the_image_encoder_comes_along(converted, image_vae):
    model = load_as_train_net(converted)
    photos = torch.rand(2, 3, 64, 64) * 2 - 1
    expected = image_vae.encode(photos).latent_dist.mean * 0.18215
    torch.testing.assert_close(model.encode_images(photos), expected)
    panoptic, _ = model(batch_of_two())[0]["panoptic_seg"]
    assert panoptic.shape == (97, 113)


def test_module_prefix_and_old_attention_names(published, converted, tmp_path):
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
    expected, found = load_file(converted), load_file(tmp_path / "out.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)


@pytest.mark.parametrize("wrap", [dict, with_module_prefix])
def test_autoencoder_file(published, tmp_path, wrap):
    """It serves stage 1 as MODEL.WEIGHTS and stage 2 as MODEL.LDMSEG.AUTOENCODER.WEIGHTS."""
    content = wrap({"vae": published["vae_semseg"], "iteration": 7})
    torch.save(content, tmp_path / "in.pt")
    output = tmp_path / "out.safetensors"
    conversion = convert_official_weights(str(tmp_path / "in.pt"), output)
    assert conversion.ignored == ["iteration"]
    [part] = conversion.parts
    assert (part.name, part.prefix, part.not_used) == ("vae", "autoencoder.", [])
    assert part.num_values == sum(v.numel() for v in published["vae_semseg"].values())

    cfg = load_config("configs/coco/autoencoder_coco.yaml", ["MODEL.DEVICE", "cpu"])
    stage1 = Trainer.build_model(cfg)
    LDMSegCheckpointer(stage1).load(str(output))
    cfg = load_config(DEFAULT_CONFIG, [*OPTIONS, "MODEL.LDMSEG.AUTOENCODER.WEIGHTS", str(output)])
    stage2 = Trainer.build_model(cfg)
    for key, value in published["vae_semseg"].items():
        assert torch.equal(stage1.autoencoder.state_dict()[key], value)
        assert torch.equal(stage2.autoencoder.state_dict()[key], value)


def test_the_command_reports_what_it_mapped(published, tmp_path):
    torch.save(published, tmp_path / "in.pt")
    output = tmp_path / "out.safetensors"
    command = [sys.executable, str(TOOL), str(tmp_path / "in.pt"), str(output), *OPTIONS]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[0].startswith("vae_semseg -> autoencoder.*: 34 tensors, 2.02M")
    assert lines[1].startswith(f"unet -> denoiser.unet.*: {len(published['unet'])} tensors, ")
    assert lines[2].startswith("vae_image -> image_encoder.vae.*: ")
    assert lines[3].endswith("under decoder, post_quant_conv")
    assert lines[4:] == ["not looked at: epoch, optimizer", f"written: {output}"]


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
        (lambda c: change(c, "vae_image", quant_conv__bias=None), "part vae_image.*quant_conv"),
        (lambda c: {**c, "unet": {"weight": 3}}, "'unet' is no state dict"),
        (lambda c: {k: c[k] for k in ("unet", "vae_image")}, "lacks 'vae_semseg' and has 'unet'"),
        (lambda c: {"weight": torch.zeros(1)}, "no published LDMSeg checkpoint.*has 'weight'"),
    ],
)
def test_files_that_do_not_fit(published, tmp_path, spoil, message):
    torch.save(spoil(published), tmp_path / "in.pt")
    output = tmp_path / "out.safetensors"
    with pytest.raises(SystemExit, match=rf"(?s)convert_official_weights.py: error: .*{message}"):
        tool.main([str(tmp_path / "in.pt"), str(output), *OPTIONS])
    assert not output.exists()


def test_unknown_tensors_can_be_left_out(published, tmp_path):
    torch.save(change(published, "unet", stranger=torch.zeros(2)), tmp_path / "in.pt")
    output = tmp_path / "out.safetensors"
    conversion = convert_official_weights(
        str(tmp_path / "in.pt"), output, opts=OPTIONS, skip_unknown=True
    )
    assert conversion.parts[1].not_used == ["stranger"]
    assert "denoiser.unet.stranger" not in load_file(output)


def test_a_file_that_needs_pickle_is_explained_and_not_run(published, tmp_path):
    path = tmp_path / "in.pt"
    torch.save({**published, "args": argparse.Namespace(lr=1)}, path)
    with pytest.raises(SystemExit) as info:
        tool.main([str(path), str(tmp_path / "out.safetensors"), *OPTIONS])
    message = str(info.value)
    assert "argparse.Namespace" in message and "can run any code" in message
    # What it advises works.
    [line] = [line for line in message.splitlines() if line.startswith("  python -c ")]
    command = line.strip().removeprefix("python -c ").strip('"')
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, check=True)
    tool.main([str(tmp_path / "tensors.pt"), str(tmp_path / "out.safetensors"), *OPTIONS])


def test_wrong_names_are_refused(published, tmp_path):
    with pytest.raises(SystemExit, match="must end in .safetensors"):
        tool.main([str(tmp_path / "in.pt"), str(tmp_path / "out.pth")])
    with pytest.raises(SystemExit, match="no such file"):
        tool.main([str(tmp_path / "in.pt"), str(tmp_path / "out.safetensors")])
    torch.save(published, tmp_path / "in.pt")
    with pytest.raises(SystemExit, match="no image_encoder.vae: .*'VAEImageEncoder'"):
        options = [
            "--config-file",
            "configs/coco/ldmseg_coco.yaml",
            "INPUT.LDMSEG.IMAGE_SIZE",
            "64",
        ]
        tool.main([str(tmp_path / "in.pt"), str(tmp_path / "out.safetensors"), *options])


def test_half_of_a_frozen_network_is_refused(converted, tmp_path):
    """All of it or nothing: a converted file without some of its keys must not load in silence."""
    weights = load_file(converted)
    del weights["autoencoder.encoder.0.bias"]
    path = tmp_path / "half.pth"
    torch.save({"model": weights}, path)
    with pytest.raises(ValueError, match="autoencoder.encoder.0.bias"):
        load_as_train_net(path)
