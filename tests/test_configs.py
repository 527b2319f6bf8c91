"""Every YAML under configs/ loads and builds; every key of ours is in one, or in a document."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from diffusers import AutoencoderKL, UNet2DConditionModel

from ldmseg_d2.config import add_ldmseg_config
from ldmseg_d2.engine import load_config
from ldmseg_d2.model_zoo import config_root, get_config_file

REPOSITORY = Path(__file__).resolve().parents[1]
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
FILES = sorted(str(path.relative_to(config_root())) for path in config_root().rglob("*.yaml"))
# The YAML files of studies have a format of their own.
CONFIGS = [name for name in FILES if not name.startswith("studies/")]
MODELS = [name for name in CONFIGS if not Path(name).name.startswith("Base-")]


def get_config(name: str) -> CfgNode:
    """A shipped config with the keys of the baselines as well."""
    return load_config(get_config_file(name), freeze=False)


def forget_files(node: CfgNode) -> None:
    for key, value in node.items():
        if isinstance(value, CfgNode):
            forget_files(value)
        elif key in ("WEIGHTS", "PRETRAINED"):
            node[key] = ""


def build_on_meta(cfg: CfgNode) -> torch.nn.Module:
    """The model without any weights: 860M parameters cost neither memory nor time."""
    forget_files(cfg)
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return build_model(cfg)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_loads_and_builds(name):
    cfg = get_config(name)
    if name in MODELS:
        assert cfg.OUTPUT_DIR.startswith("output/"), "each config needs a folder of its own"
        assert any(p.requires_grad for p in build_on_meta(cfg).parameters())


def test_there_are_few_configs_and_each_writes_to_a_folder_of_its_own():
    assert len(FILES) <= 30
    folders = [get_config(name).OUTPUT_DIR for name in MODELS]
    assert len(set(folders)) == len(folders)


def leaves(node: dict, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_every_key_is_set_by_a_config_or_named_in_a_document():
    cfg = get_cfg()
    detectron2s = set(leaves(cfg))
    add_ldmseg_config(cfg)
    ours = set(leaves(cfg)) - detectron2s
    texts = {name: (config_root() / name).read_text() for name in FILES}
    used = {key for name in CONFIGS for key in leaves(yaml.safe_load(texts[name]))}
    used |= {key.rpartition(".")[0] for key in used}  # nodes that hold what they like
    studies = "\n".join(text for name, text in texts.items() if name.startswith("studies/"))
    used |= set(re.findall(r"[A-Z]\w*(?:\.\w+)+", studies))
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    words = set(re.findall(r"\w+", "\n".join(page.read_text() for page in pages)))
    assert not sorted(key for key in ours - used if key.rpartition(".")[2] not in words)


def test_sizes_of_stable_diffusion_1_5():
    """What is built without the hub is what the hub's weights fit into: its published sizes."""
    cfg = get_config("coco/ldmseg_sd15_coco.yaml")
    assert cfg.MODEL.LDMSEG.DENOISER.PRETRAINED == SD15
    assert cfg.MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS.PRETRAINED == SD15
    model = build_on_meta(cfg)
    with torch.device("meta"):  # diffusers' defaults, but for what is given: counted below
        published = UNet2DConditionModel(cross_attention_dim=768)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
    assert count(published) == 859_520_964 and count(vae) == 83_653_863
    theirs, ours = shapes(published), shapes(model.denoiser.unet)
    removed = {k for k in theirs if ".attn2." in k or ".norm2." in k and "transformer" in k}
    assert set(ours) == set(theirs) - removed
    assert {k for k in ours if ours[k] != theirs[k]} == {"conv_in.weight"}
    assert ours["conv_in.weight"] == (320, 12, 3, 3)
    for key in ("attention_head_dim", "norm_num_groups", "down_block_types", "up_block_types"):
        assert model.denoiser.unet.config[key] == published.config[key]
    expected = {k: v for k, v in shapes(vae).items() if k.startswith(("encoder.", "quant_conv."))}
    assert shapes(model.image_encoder.vae) == expected
    assert model.image_encoder.scaling_factor == 0.18215 and model.image_encoder.stride == 8
    assert model.frozen_prefixes == ("autoencoder.", "image_encoder.")


def test_sizes_of_dinov2_vit_b():
    cfg = get_config("coco/ldmseg_dinov2_vitb_coco.yaml")
    model = build_on_meta(cfg)
    # Published: 86,580,480 parameters with the mask token of its training; 37 x 37 patches.
    assert count(model.image_encoder.backbone) == 86_580_480 - 768
    assert model.image_encoder.backbone.pos_embed.shape == (1, 37 * 37 + 1, 768)
    assert model.image_encoder.input_side(cfg.INPUT.LDMSEG.IMAGE_SIZE) == 518
    assert model.denoiser.unet.conv_in.in_channels == 4 + 64 + 4
    assert model.frozen_prefixes == ("autoencoder.", "image_encoder.backbone.")


def test_schedule_of_the_paper():
    cfg = get_config("coco/ldmseg_sd15_coco.yaml")
    solver, diffusion = cfg.SOLVER, cfg.MODEL.LDMSEG.DIFFUSION
    assert (solver.BASE_LR, solver.WEIGHT_DECAY) == (1e-4, 0.05)
    assert (solver.IMS_PER_BATCH, solver.LR_SCHEDULER_NAME) == (256, "WarmupCosineLR")
    assert 100_000 <= solver.MAX_ITER <= 200_000
    clipping = solver.CLIP_GRADIENTS
    assert (clipping.CLIP_TYPE, clipping.CLIP_VALUE) == ("full_model", 1.0)
    assert diffusion.PREDICTION_TYPE == "epsilon"
    assert diffusion.LOSS_WEIGHTING == "min_snr"


@pytest.mark.parametrize("name", [name for name in MODELS if "baselines/" in name])
def test_baselines_differ_from_ours_in_the_model_only(name):
    """Same data, size, batch and learning-rate schedule; a third of the parameters from scratch."""
    ours = {"scenes": "ldmseg_scenes64", "camvid": "ldmseg_camvid", "coco": "ldmseg_sd15_coco"}
    folder = Path(name).parts[0]
    cfg, ours = get_config(name), get_config(f"{folder}/{ours[folder]}.yaml")
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (ours.DATASETS.TRAIN, ours.DATASETS.TEST)
    if not cfg.MODEL.MASK2FORMER.PRETRAINED:
        assert cfg.INPUT.LDMSEG == ours.INPUT.LDMSEG
        assert cfg.SOLVER.IMS_PER_BATCH == ours.SOLVER.IMS_PER_BATCH
        assert cfg.SOLVER.LR_SCHEDULER_NAME == ours.SOLVER.LR_SCHEDULER_NAME
        assert 2_000_000 < count(build_on_meta(cfg)) < 3_000_000


def test_stage_two_has_the_sizes_of_stage_one():
    configs = [get_config(name) for name in MODELS]
    written = {f"{cfg.OUTPUT_DIR}/model_final.pth": cfg for cfg in configs}
    # As its comment says.
    eight_bits = get_config("coco/autoencoder_coco.yaml")
    eight_bits.MODEL.LDMSEG.NUM_BITS = 8
    written["output/autoencoder_8bits_coco/model_final.pth"] = eight_bits
    for cfg in configs:
        ldmseg = cfg.MODEL.LDMSEG
        weights = ldmseg.AUTOENCODER.WEIGHTS
        if cfg.MODEL.META_ARCHITECTURE == "LDMSeg" and weights.startswith("output/"):
            stage1 = written[weights].MODEL.LDMSEG
            assert ldmseg.NUM_BITS == stage1.NUM_BITS
            for key in set(ldmseg.AUTOENCODER) - {"WEIGHTS", "LOSS"}:
                assert ldmseg.AUTOENCODER[key] == stage1.AUTOENCODER[key], f"{weights}: {key}"


@pytest.mark.parametrize(
    "name,classes,things",
    [
        ("coco/ldmseg_panoptic_coco.yaml", 133, 80),
        ("ade20k/ldmseg_ade20k.yaml", 150, 100),
        ("cityscapes/ldmseg_cityscapes.yaml", 19, 8),
    ],
)
def test_classes_of_the_full_size_configs(name, classes, things):
    """From the data sets' metadata; their ids hold them."""
    model = build_on_meta(get_config(name))
    known = model.classifier.classes
    assert (known.num_classes, sum(known.is_thing)) == (classes, things)
    assert model.denoiser.task_tokens.shape == (2, 4, 768)
    assert int(model.layout.tasks[1].class_ids.max()) < model.autoencoder.num_ids


def test_unknown_config_lists_what_there_is():
    with pytest.raises(FileNotFoundError, match="scenes/autoencoder_scenes64.yaml"):
        get_config_file("scenes/no_such.yaml")
