import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.nn import functional as F

from ldmseg_d2.modeling.image_encoder import ImageEncoder, build_image_encoder

# A DINOv2 that a test can afford: the same code of timm, smaller.
TINY_VIT = {"depth": 3, "embed_dim": 32, "num_heads": 2}
SWIN = {"img_size": 64, "window_size": 4, "depths": (1, 1), "num_heads": (2, 2), "embed_dim": 16}
VIT = "vit_small_patch14_dinov2.lvd142m"
VIT_WITH_REGISTERS = "vit_small_patch14_reg4_dinov2.lvd142m"


def dinov2(**options) -> ImageEncoder:
    torch.manual_seed(0)
    options = {"model_name": VIT, "pretrained": "", "model_kwargs": TINY_VIT, **options}
    return build_image_encoder("DINOv2ImageEncoder", out_channels=5, options=options).eval()


def timm_features(model_name: str, stages: list[int], **options) -> ImageEncoder:
    options = {"model_name": model_name, "stages": stages, "pretrained": "", **options}
    return build_image_encoder("TimmImageEncoder", out_channels=6, options=options).eval()


def photos(side: int = 28) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("model_name,blocks", [(VIT, [0, 2]), (VIT_WITH_REGISTERS, [-1])])
@torch.no_grad()
def test_dinov2_features_equal_timms(model_name, blocks):
    encoder = dinov2(model_name=model_name, blocks=blocks)
    torch.manual_seed(0)
    plain = timm.create_model(model_name, dynamic_img_size=True, num_classes=0, **TINY_VIT).eval()
    for parameter in plain.parameters():  # a position embedding and class token that matter
        parameter.add_(0.1 * torch.randn(parameter.shape))
    kept = encoder.backbone.state_dict()
    encoder.backbone.load_state_dict({k: v for k, v in plain.state_dict().items() if k in kept})

    images = photos(42)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normal = ((images + 1) / 2 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    tokens, kept_tokens = plain._pos_embed(plain.patch_embed(normal)), []
    for block in plain.blocks:
        tokens = block(tokens)
        kept_tokens.append(plain.norm(tokens))
    prefix = 1 + 4 * ("reg4" in model_name)
    chosen = torch.cat([kept_tokens[i][:, prefix:] for i in blocks], dim=-1)  # [B, 9, D]
    norm, linear = encoder.projection
    expected = F.layer_norm(chosen, chosen.shape[-1:], norm.weight, norm.bias, norm.eps)
    expected = expected @ linear.weight.flatten(1).T + linear.bias
    found = encoder(images)
    assert found.shape == (2, 5, 3, 3)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected, atol=2e-5, rtol=1e-4)
    assert len(encoder.backbone.blocks) == max(i % 3 for i in blocks) + 1


ENCODER_FOR_SIZES = dinov2()


@given(side=st.integers(64, 512))
def test_the_patch_grid_fits_and_is_the_nearest(side):
    chosen = ENCODER_FOR_SIZES.input_side(side)
    assert chosen % 14 == 0
    assert abs(chosen - side) == min(abs(14 * n - side) for n in range(1, 40))
    assert chosen == 518 or side != 512


def test_wrong_options_raise():
    with pytest.raises(ValueError, match="RESOLUTION 100 is no multiple of the patch.*14 px"):
        dinov2(resolution=100)
    with pytest.raises(ValueError, match=r"3 blocks .*-3..2; got \[11\]"):
        dinov2(blocks=[11])
    with pytest.raises(ValueError, match="no model 'vit_base_patch14_dinov3x'"):
        dinov2(model_name="vit_base_patch14_dinov3x")
    with pytest.raises(ValueError, match="does not have the STAGES \\[9\\]"):
        timm_features("resnet10t", [9])


@pytest.mark.parametrize("kind", ["folder", "pth"])
def test_dinov2_loads_local_weights(tmp_path, kind):
    plain = timm.create_model(VIT_WITH_REGISTERS, num_classes=0, **TINY_VIT).state_dict()
    path = tmp_path / ("weights.pth" if kind == "pth" else "model.safetensors")
    torch.save(plain, path) if kind == "pth" else save_file(plain, path)
    source = tmp_path if kind == "folder" else path
    encoder = dinov2(model_name=VIT_WITH_REGISTERS, pretrained=str(source))
    for key, value in encoder.backbone.state_dict().items():
        torch.testing.assert_close(value, plain[key])
    # The file must not stay in memory (nor be copied with the model, for its moving average).
    assert encoder.backbone.pretrained_cfg["state_dict"] is None


def test_incomplete_or_wrong_weights_raise(tmp_path):
    name, sizes = "vit_tiny_patch16_224", {"depth": 2}  # with a classifier, which is left out
    plain = timm.create_model(name, **sizes).state_dict()
    save_file(plain, tmp_path / "model.safetensors")
    options = {"model_name": name, "model_kwargs": sizes, "pretrained": str(tmp_path)}
    dinov2(**options)
    del plain["blocks.1.attn.qkv.weight"]
    save_file(plain, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="1 of .* are missing, such as blocks.1.attn.qkv.weight"):
        dinov2(**options)
    with pytest.raises(ValueError, match="has not the weights of resnet18"):
        timm_features("resnet18", [1], pretrained=str(tmp_path))


@pytest.mark.parametrize(
    "model_name,stages,stride,extra",
    [
        ("resnet10t", [3, 1], 4, {}),
        ("swin_tiny_patch4_window7_224", [0, 1], 4, SWIN),  # NHWC
    ],
)
@torch.no_grad()
def test_timm_features_at_the_finest_grid(model_name, stages, stride, extra):
    encoder = timm_features(model_name, stages, model_kwargs=extra)
    assert encoder.stride == stride
    found = encoder(photos(64))
    assert found.shape == (2, 6, 64 // stride, 64 // stride)
    # The features themselves, by timm alone.
    features = encoder.backbone(encoder.normalize(photos(64)))
    if "swin" in model_name:
        features = [feature.movedim(-1, 1) for feature in features]
    size = (64 // stride,) * 2
    features = [F.interpolate(f, size=size, mode="bilinear") for f in features]
    torch.testing.assert_close(found, encoder.projection(torch.cat(features, 1)))
