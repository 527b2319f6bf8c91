import ast
import functools
import inspect
import re
import time
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from detectron2.modeling.backbone import FPN
from diffusers import AutoencoderKL, AutoencoderTiny
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from ldmseg_d2.modeling.image_encoder import (
    IMAGE_ENCODER_REGISTRY,
    ImageEncoder,
    build_image_encoder,
)
from ldmseg_d2.modeling.image_encoder.projection import PhotoStatistics

# A DINOv2 that a test can afford: the same code of timm, smaller.
TINY_VIT = {"depth": 3, "embed_dim": 32, "num_heads": 2}
VIT = "vit_small_patch14_dinov2.lvd142m"
VIT_WITH_REGISTERS = "vit_small_patch14_reg4_dinov2.lvd142m"
TINY_VAE = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}


def dinov2(**options) -> ImageEncoder:
    torch.manual_seed(0)
    options = {"model_name": VIT, "pretrained": "", "model_kwargs": TINY_VIT, **options}
    return build_image_encoder("DINOv2ImageEncoder", out_channels=5, options=options).eval()


def photos(side: int = 28, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def tiny_vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        **TINY_VAE,
    ).eval()


def test_conv_encoder_has_the_stride_of_its_widths():
    encoder = build_image_encoder(
        "ConvImageEncoder", out_channels=5, options={"widths": [8, 16, 16], "num_blocks": 1}
    )
    assert encoder.stride == 4
    assert encoder(torch.randn(2, 3, 32, 32)).shape == (2, 5, 8, 8)


@torch.no_grad()
@pytest.mark.parametrize("side", [64, 40])
@pytest.mark.parametrize("stride", [4, 8, 16])
def test_fpn_encoder_is_a_level_of_detectron2s_pyramid(stride, side):
    torch.manual_seed(0)
    options = {"widths": [8, 16, 24], "stem_channels": 8, "pyramid_channels": 16, "stride": stride}
    encoder = build_image_encoder("FPNImageEncoder", out_channels=5, options=options).eval()
    images = photos(side)
    condition = encoder(images)
    assert condition.shape == (2, 5, -(-side // stride), -(-side // stride))
    assert encoder.stride == stride

    # Its FPN computes all levels and refuses sides that are no multiple of the coarsest stride.
    if side % 16 == 0:
        pyramid = FPN(encoder.backbone, encoder.levels, 16, norm="").eval()
        levels = len(encoder.levels)
        for ours, theirs in zip(encoder.lateral_convs[::-1], pyramid.lateral_convs, strict=True):
            theirs.weight, theirs.norm, theirs.bias = ours.weight, ours.norm, None
        output_conv = pyramid.output_convs[levels - 1]
        output_conv.weight, output_conv.norm = encoder.output_conv.weight, encoder.output_conv.norm
        output_conv.bias = None
        expected = pyramid(images)[f"p{stride.bit_length() - 1}"]
        torch.testing.assert_close(condition, encoder.projection(expected))


def test_every_parameter_of_the_fpn_encoder_is_trained():
    encoder = build_image_encoder("FPNImageEncoder", out_channels=5, options={})
    encoder(photos(32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())
    with pytest.raises(ValueError, match=r"STRIDE 2 is the stride of none .* \[4, 8, 16, 32\]"):
        build_image_encoder("FPNImageEncoder", out_channels=5, options={"stride": 2})
    with pytest.raises(ValueError, match="WIDTHS has 5 stages; Detectron2's ResNet takes 1 to 4"):
        build_image_encoder(
            "FPNImageEncoder", out_channels=5, options={"widths": [8, 16, 24, 32, 40]}
        )
    for wrong in ({"widths": [8, 8]}, {"widths": [8, 20]}, {"pyramid_channels": 12}):
        with pytest.raises(ValueError, match="FPNImageEncoder: .* must be multiples of 8"):
            build_image_encoder("FPNImageEncoder", out_channels=5, options={**wrong, "stride": 4})


def test_unknown_name_and_option_raise():
    with pytest.raises(ValueError, match="known: .*ConvImageEncoder"):
        build_image_encoder("ResNet", out_channels=4, options={})
    with pytest.raises(ValueError, match="OPTIONS \\['depth'\\] do not fit ConvImageEncoder"):
        build_image_encoder("ConvImageEncoder", out_channels=4, options={"depth": 3})
    with pytest.raises(ValueError, match="multiple of 8"):
        build_image_encoder("ConvImageEncoder", out_channels=4, options={"widths": [10]})


def test_a_users_encoder_plugs_in():
    @IMAGE_ENCODER_REGISTRY.register()
    class PoolImageEncoder(ImageEncoder):
        def __init__(self, *, out_channels, stride=4):
            super().__init__(out_channels=out_channels, stride=stride)
            self.project = torch.nn.Conv2d(3, out_channels, 1)

        def forward(self, images):
            return self.project(torch.nn.functional.avg_pool2d(images, self.stride))

    encoder = build_image_encoder("PoolImageEncoder", out_channels=7, options={"stride": 2})
    assert encoder(torch.randn(1, 3, 8, 8)).shape == (1, 7, 4, 4)
    assert encoder.layer_of("project.weight") == 0 and encoder.num_layers == 1
    IMAGE_ENCODER_REGISTRY._obj_map.pop("PoolImageEncoder")


# --- Stable Diffusion's VAE and its stand-in ---------------------------------------------------


@pytest.mark.parametrize("place", ["pipeline", "vae"])
@pytest.mark.parametrize("old_names", [False, True])
def test_vae_encoder_equals_diffusers(tmp_path, place, old_names):
    vae = tiny_vae()
    vae.save_pretrained(tmp_path / "vae")
    if old_names:  # as in Stable Diffusion 1.5's own file
        state = vae.state_dict()
        for new, old in {
            "to_q": "query",
            "to_k": "key",
            "to_v": "value",
            "to_out.0": "proj_attn",
        }.items():
            for key in [k for k in state if f".{new}." in k]:
                state[key.replace(new, old)] = state.pop(key)
        save_file(state, tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    options = {"pretrained": str(tmp_path if place == "pipeline" else tmp_path / "vae"), **TINY_VAE}
    encoder = build_image_encoder("VAEImageEncoder", out_channels=4, options=options).eval()
    with torch.no_grad():
        expected = vae.encode(photos(32)).latent_dist.mean * 0.18215
        found = encoder(photos(32))
    assert found.shape == (2, 4, 16, 16) and encoder.stride == 2
    torch.testing.assert_close(found, expected)
    prefixes = {".".join(key.split(".")[:2]) for key in encoder.state_dict()}
    assert prefixes == {"vae.encoder", "vae.quant_conv"}
    # Without PRETRAINED the config builds the same architecture, for weights from elsewhere.
    random = build_image_encoder(
        "VAEImageEncoder", out_channels=4, options={**options, "pretrained": ""}
    ).eval()
    random.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(random(photos(32)), expected)


def test_half_precision_files_load_as_float32(tmp_path):
    tiny_vae().half().save_pretrained(tmp_path)
    options = {"pretrained": str(tmp_path), **TINY_VAE}
    encoder = build_image_encoder("VAEImageEncoder", out_channels=4, options=options)
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


def test_a_cached_copy_of_the_hub_is_enough(monkeypatch, tmp_path):
    """The hub's cache is read first: no network after the first run."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    snapshot = tmp_path / "models--timm--vit_small_patch14_dinov2.lvd142m" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    plain = timm.create_model(VIT, num_classes=0, **TINY_VIT).state_dict()
    save_file(plain, snapshot / "model.safetensors")
    monkeypatch.setattr(
        "ldmseg_d2.modeling.image_encoder.pretrained.try_to_load_from_cache",
        functools.partial(huggingface_hub.try_to_load_from_cache, cache_dir=tmp_path),
    )
    found = dinov2(pretrained="hub").backbone.state_dict()
    assert all(torch.equal(value, plain[key]) for key, value in found.items())


def test_tiny_vae_encoder_equals_diffusers(tmp_path):
    torch.manual_seed(0)
    sizes = {"encoder_block_out_channels": (8, 8, 8), "num_encoder_blocks": (1, 1, 1)}
    vae = AutoencoderTiny(
        **sizes, decoder_block_out_channels=(8, 8, 8), num_decoder_blocks=(1, 1, 1)
    ).eval()
    vae.save_pretrained(tmp_path)
    options = {"block_out_channels": [8, 8, 8], "num_blocks": [1, 1, 1]}
    for pretrained in (str(tmp_path), ""):
        encoder = build_image_encoder(
            "TinyVAEImageEncoder", out_channels=4, options={**options, "pretrained": pretrained}
        ).eval()
        encoder.vae.encoder.load_state_dict(vae.encoder.state_dict(), strict=not pretrained)
        with torch.no_grad():
            torch.testing.assert_close(encoder(photos(32)), vae.encode(photos(32)).latents)
        assert encoder.stride == 4
        assert all(key.startswith("vae.encoder.") for key in encoder.state_dict())


def test_vae_errors_name_the_key(tmp_path):
    def build(**options):
        return build_image_encoder("VAEImageEncoder", out_channels=4, options=options)

    with pytest.raises(ValueError, match="OUT_CHANNELS is 64.*set OUT_CHANNELS to 4"):
        build_image_encoder("VAEImageEncoder", out_channels=64, options={"pretrained": ""})
    with pytest.raises(FileNotFoundError, match="PRETRAINED.*config.json"):
        build(pretrained=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="PRETRAINED '/no/such/folder'"):
        build(pretrained="/no/such/folder")
    vae = tiny_vae()
    vae.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"block_out_channels \(128, .*\(there: \(8, 16\)\)"):
        build(pretrained=str(tmp_path))
    state = {k: v for k, v in vae.state_dict().items() if "conv_in" not in k}
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match="lacks weights .*encoder.conv_in.weight"):
        build(pretrained=str(tmp_path), **TINY_VAE)


# --- DINOv2 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_name", [VIT, VIT_WITH_REGISTERS])
@pytest.mark.parametrize("blocks", [[-1], [0], [0, 2], [1, -1]])
def test_dinov2_features_equal_timms(model_name, blocks):
    encoder = dinov2(model_name=model_name, blocks=blocks)
    torch.manual_seed(0)
    plain = timm.create_model(model_name, dynamic_img_size=True, num_classes=0, **TINY_VIT).eval()
    # A position embedding and class token that matter.
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    kept = encoder.backbone.state_dict()
    encoder.backbone.load_state_dict({k: v for k, v in plain.state_dict().items() if k in kept})

    images = photos(42)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normal = ((images + 1) / 2 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        tokens, kept_tokens = plain._pos_embed(plain.patch_embed(normal)), []
        for block in plain.blocks:
            tokens = block(tokens)
            kept_tokens.append(plain.norm(tokens))
        prefix = 1 + 4 * ("reg4" in model_name)
        chosen = torch.cat([kept_tokens[i][:, prefix:] for i in blocks], dim=-1)  # [B, 9, D]
        norm, linear = encoder.projection
        expected = torch.nn.functional.layer_norm(
            chosen, chosen.shape[-1:], norm.weight, norm.bias, norm.eps
        )
        expected = expected @ linear.weight.flatten(1).T + linear.bias
        found = encoder(images)
    assert found.shape == (2, 5, 3, 3)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected, atol=2e-5, rtol=1e-4)
    assert len(encoder.backbone.blocks) == max(i % 3 for i in blocks) + 1


def test_linear_projection_commutes_with_the_resize():
    """Why the projection may come before the model's resize to the latent's grid."""
    encoder = dinov2()
    linear = encoder.projection[1]
    tokens = torch.randn(1, 32, 4, 4)

    def resize(x):
        return torch.nn.functional.interpolate(x, size=(7, 7), mode="bilinear")

    torch.testing.assert_close(linear(resize(tokens)), resize(linear(tokens)))


def test_imagenet_statistics_are_exact():
    values = torch.arange(256, dtype=torch.float32)
    pixels = values.view(1, 1, 16, 16).expand(1, 3, -1, -1)
    statistics = dinov2().statistics
    found = statistics((pixels - 127.5) / 127.5)
    for channel, (m, s) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        expected = ((values / 255).double() - m) / s
        torch.testing.assert_close(
            found[0, channel].flatten().double(), expected, atol=1e-6, rtol=1e-6
        )
    assert not PhotoStatistics([0.5] * 3, [0.5] * 3).state_dict()


ENCODER_FOR_SIZES = dinov2()


@given(side=st.integers(64, 512))
def test_the_patch_grid_fits_and_is_the_nearest(side):
    chosen = ENCODER_FOR_SIZES.input_side(side)
    assert chosen % 14 == 0
    assert abs(chosen - side) == min(abs(14 * n - side) for n in range(1, 40))
    assert chosen == 518 or side != 512


@pytest.mark.parametrize("side,grid", [(64, 5), (70, 5), (97, 7), (7, 1)])
def test_dinov2_takes_any_side(side, grid):
    assert dinov2()(photos(side)).shape == (2, 5, grid, grid)


def test_resolution_sets_the_grid():
    assert dinov2(resolution=8 * 14)(photos(64)).shape == (2, 5, 8, 8)
    with pytest.raises(ValueError, match="resolution 100 is no multiple of the patch.*14 px"):
        dinov2(resolution=100)


def test_wrong_blocks_and_names_raise():
    with pytest.raises(ValueError, match=r"3 blocks .*-3..2; got \[11\]"):
        dinov2(blocks=[11])
    with pytest.raises(ValueError, match="needs indices"):
        dinov2(blocks=[])
    with pytest.raises(ValueError, match="no model 'vit_base_patch14_dinov3x'"):
        dinov2(model_name="vit_base_patch14_dinov3x")


def authors_format(state: dict) -> dict:
    """As DINOv2's authors store it: the class token has a position, and some names differ."""
    state = dict(state)
    if "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
        first = torch.randn(1, 1, state["pos_embed"].shape[-1])
        state["pos_embed"] = torch.cat([first, state["pos_embed"]], dim=1)
        state["cls_token"] = state["cls_token"] - first
    return {**state, "mask_token": torch.zeros(1, 3)}


@pytest.mark.parametrize("kind", ["file", "folder", "pth", "authors"])
@pytest.mark.parametrize("model_name", [VIT, VIT_WITH_REGISTERS])
def test_dinov2_loads_local_weights(tmp_path, kind, model_name):
    torch.manual_seed(3)
    plain = timm.create_model(model_name, num_classes=0, **TINY_VIT).state_dict()
    path = tmp_path / ("weights.pth" if kind == "pth" else "model.safetensors")
    stored = authors_format(plain) if kind == "authors" else plain
    torch.save(stored, path) if kind == "pth" else save_file(stored, path)
    source = tmp_path if kind == "folder" else path
    encoder = dinov2(model_name=model_name, pretrained=str(source))
    for key, value in encoder.backbone.state_dict().items():
        torch.testing.assert_close(value, plain[key])
    # The file must not stay in memory (nor be copied with the model, for its moving average).
    assert encoder.backbone.pretrained_cfg["state_dict"] is None


def test_a_vit_with_a_classifier_loads_without_it(tmp_path):
    name, sizes = "vit_tiny_patch16_224", {"depth": 2}
    plain = timm.create_model(name, **sizes).state_dict()
    save_file(plain, tmp_path / "model.safetensors")
    options = {"model_name": name, "model_kwargs": sizes, "pretrained": str(tmp_path)}
    for key, value in dinov2(**options).backbone.state_dict().items():
        assert torch.equal(value, plain[key]), key
    del plain["blocks.1.attn.qkv.weight"]
    save_file(plain, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="1 of .* are missing, such as blocks.1.attn.qkv.weight"):
        dinov2(**options)


def test_wrong_local_weights_raise(tmp_path):
    other = timm.create_model(VIT, num_classes=0, **{**TINY_VIT, "depth": 2})
    save_file(other.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="has not the weights of vit_small_patch14_dinov2"):
        dinov2(pretrained=str(tmp_path))
    with pytest.raises(ValueError, match="has not the weights of resnet18"):
        timm_features("resnet18", [1], pretrained=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="folder without model.safetensors"):
        (tmp_path / "empty").mkdir()
        dinov2(pretrained=str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match="no such file or folder. Allowed: 'hub'"):
        dinov2(pretrained=str(tmp_path / "missing.pth"))


def test_layers_of_dinov2():
    encoder = dinov2(model_name=VIT_WITH_REGISTERS)
    layers = {name: encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    assert encoder.num_layers == 5
    for name, layer in layers.items():
        if "blocks." in name:
            assert layer == int(name.split("blocks.")[1].split(".")[0]) + 1
        else:
            assert layer == (4 if "norm" in name or "projection" in name else 0), name
    assert set(layers.values()) == {0, 1, 2, 3, 4}
    assert layers["backbone.pos_embed"] == layers["backbone.reg_token"] == 0


# --- timm's feature maps -----------------------------------------------------------------------


def timm_features(model_name: str, stages: list[int], **options) -> ImageEncoder:
    options = {"model_name": model_name, "stages": stages, "pretrained": "", **options}
    return build_image_encoder("TimmImageEncoder", out_channels=6, options=options).eval()


@pytest.mark.parametrize(
    "model_name,stages,stride,extra",
    [
        ("resnet10t", [1], 4, {}),
        ("resnet10t", [3, 1], 4, {}),
        ("convnext_atto", [0, 2], 4, {}),
        ("swin_tiny_patch4_window7_224", [0, 1], 4, {"img_size": 64, "window_size": 4}),  # NHWC
        ("vit_tiny_patch16_224", [1, 2], 16, {"dynamic_img_size": True, "depth": 3}),
    ],
)
def test_timm_features_at_the_finest_grid(model_name, stages, stride, extra):
    encoder = timm_features(model_name, stages, model_kwargs=extra)
    assert encoder.stride == stride
    found = encoder(photos(64))
    assert found.shape == (2, 6, 64 // stride, 64 // stride)
    # The features themselves, by timm alone.
    with torch.no_grad():
        features = encoder.backbone(encoder.statistics(photos(64)))
        if "swin" in model_name:
            features = [feature.movedim(-1, 1) for feature in features]
        features = [
            torch.nn.functional.interpolate(f, size=(64 // stride,) * 2, mode="bilinear")
            for f in features
        ]
        torch.testing.assert_close(found, encoder.projection(torch.cat(features, 1)))


@pytest.mark.parametrize("model_name,stages", [("resnet10t", [0, 2]), ("convnext_atto", [1, 2])])
def test_timm_features_load_local_weights(tmp_path, model_name, stages):
    torch.manual_seed(3)
    plain = timm.create_model(model_name)
    save_file(plain.state_dict(), tmp_path / "model.safetensors")
    encoder = timm_features(model_name, stages, pretrained=str(tmp_path))
    expected = {key.replace(".", "_"): value for key, value in plain.state_dict().items()}
    for key, value in encoder.backbone.state_dict().items():
        assert torch.equal(value, expected[key.replace(".", "_")]), key


def test_missing_stages_raise():
    with pytest.raises(ValueError, match="does not have the stages \\[9\\]"):
        timm_features("resnet10t", [9])
    with pytest.raises(ValueError, match="at least one"):
        timm_features("resnet10t", [])


# --- without a network -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name,options,advice",
    [
        ("DINOv2ImageEncoder", {}, "PRETRAINED to a local file of weights in timm's format"),
        ("DINOv2ImageEncoder", {"pretrained": True}, "to a local file"),
        ("TimmImageEncoder", {}, "to a local file"),
        (
            "VAEImageEncoder",
            {"pretrained": "a/b"},
            "to a local folder that AutoencoderKL.save_pretrained wrote",
        ),
        ("TinyVAEImageEncoder", {"pretrained": "a/b"}, "a local folder that AutoencoderTiny.save"),
    ],
)
@pytest.mark.parametrize("offline", [False, True])
def test_without_network_one_fast_error(monkeypatch, tmp_path, name, options, advice, offline):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError, match=advice) as error:
        build_image_encoder(name, out_channels=4, options=options)
    assert time.perf_counter() - start < 5
    assert ("HF_HUB_OFFLINE is set" if offline else "cannot be reached") in str(error.value)
    assert "MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS.PRETRAINED" in str(error.value)


def test_the_documents_list_every_encoder_and_option():
    page = (Path(__file__).resolve().parents[2] / "docs" / "EXTENDING.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+Encoder)` \|.*\| ([^|]+) \|$", page, re.MULTILINE))
    for name, encoder in IMAGE_ENCODER_REGISTRY:
        parameters = dict(inspect.signature(encoder.__init__).parameters)
        del parameters["self"], parameters["out_channels"]
        listed = dict(re.findall(r"`(\w+)` (\"[^\"]*\"|\[[^\]]*\]|\{\}|[\d.]+)", rows.pop(name)))
        assert set(listed) == {key.upper() for key in parameters}, name
        for key, parameter in parameters.items():
            default = parameter.default
            default = list(default) if isinstance(default, tuple) else default
            assert ast.literal_eval(listed[key.upper()].rstrip(".")) == default, f"{name}: {key}"
    assert not rows, "encoders that do not exist"
