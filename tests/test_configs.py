"""Every YAML under configs/ loads, builds, and says what it inherits."""

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from diffusers import AutoencoderKL, UNet2DConditionModel

from ldmseg_d2.model_zoo import config_root, get_config, get_config_file

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
# The sizes in that repository's unet/config.json and vae/config.json.
SD15_UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "norm_num_groups": 32,
}
SD15_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
}

OURS = ("LDMSeg", "LDMSegAutoencoder", "LDMSegDepthAutoencoder", "LDMSegImageEncoder")
BASELINES = ("HFMask2Former", "PanopticFPNBaseline", "PanopticDeepLabBaseline")

# Studies are read by experiments/study_file.py.
CONFIGS = sorted(
    str(path.relative_to(config_root()))
    for path in config_root().rglob("*.yaml")
    if path.parent.name != "studies"
)


def test_there_are_configs_for_every_data_set():
    folders = {Path(name).parts[0] for name in CONFIGS}
    assert folders == {"scenes", "camvid", "coco", "ade20k", "cityscapes"}
    for name in CONFIGS:
        if "quick" in name:
            assert "_BASE_" in (config_root() / name).read_text(), f"{name} inherits nothing"


def build_on_meta(cfg: CfgNode) -> torch.nn.Module:
    """The config's model without any weights: those of stage 1 and of the hub need not be here.

    The networks must fit together all the same, and on the meta device the paper's 860M parameters
    cost neither memory nor time.
    """
    cfg.MODEL.LDMSEG.AUTOENCODER.WEIGHTS = cfg.MODEL.LDMSEG.DEPTH.AUTOENCODER.WEIGHTS = ""
    cfg.MODEL.LDMSEG.DENOISER.PRETRAINED = cfg.MODEL.MASK2FORMER.PRETRAINED = ""
    cfg.MODEL.LDMSEG.IMAGE_ENCODER.WEIGHTS = ""
    if "PRETRAINED" in cfg.MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS:
        cfg.MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS.PRETRAINED = ""
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return build_model(cfg)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_config_loads_and_builds(name):
    cfg = get_config(name)
    if Path(name).name.startswith("Base-"):
        return
    names = BASELINES if "baselines" in name else OURS
    assert cfg.MODEL.META_ARCHITECTURE in names
    assert cfg.OUTPUT_DIR.startswith("output/"), "each config needs a folder of its own"
    model = build_on_meta(cfg)
    assert any(p.requires_grad for p in model.parameters())


def test_sizes_of_stable_diffusion_1_5():
    """What is built without the hub is what the hub's weights fit into: its published sizes."""
    cfg = get_config("coco/ldmseg_sd15_coco.yaml")
    assert cfg.MODEL.LDMSEG.DENOISER.PRETRAINED == SD15
    assert cfg.MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS.PRETRAINED == SD15
    model = build_on_meta(cfg)

    # The UNet: 859,520,964 parameters with cross-attention and 4 input channels.
    with torch.device("meta"):
        published = UNet2DConditionModel(**SD15_UNET)
        vae = AutoencoderKL(**SD15_VAE)
    assert count(published) == 859_520_964 and count(vae) == 83_653_863
    theirs = {k: tuple(v.shape) for k, v in published.state_dict().items()}
    ours = {k: tuple(v.shape) for k, v in model.denoiser.unet.state_dict().items()}
    removed = {k for k in theirs if ".attn2." in k or ".norm2." in k and "transformer" in k}
    assert set(ours) == set(theirs) - removed
    differing = {k for k in ours if ours[k] != theirs[k]}
    assert differing == {"conv_in.weight"} and ours["conv_in.weight"] == (320, 12, 3, 3)
    for key in ("attention_head_dim", "norm_num_groups", "down_block_types", "up_block_types"):
        assert getattr(model.denoiser.unet.config, key) == SD15_UNET[key]

    # The VAE: its encoder, with the same names and shapes.
    theirs = {k: tuple(v.shape) for k, v in vae.state_dict().items()}
    ours = {k: tuple(v.shape) for k, v in model.image_encoder.vae.state_dict().items()}
    assert ours == {k: v for k, v in theirs.items() if k.startswith(("encoder.", "quant_conv."))}
    assert model.image_encoder.scaling_factor == 0.18215 and model.image_encoder.stride == 8
    assert model.frozen_prefixes == ("autoencoder.", "image_encoder.")


def test_sizes_of_dinov2_vit_b():
    cfg = get_config("coco/ldmseg_dinov2_vitb_coco.yaml")
    assert cfg.MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS.PRETRAINED == "hub"
    model = build_on_meta(cfg)
    # Published: 86,580,480 parameters with the mask token of its training; 37 x 37 patches.
    assert count(model.image_encoder.backbone) == 86_580_480 - 768
    assert model.image_encoder.backbone.pos_embed.shape == (1, 37 * 37 + 1, 768)
    assert model.image_encoder.input_side(cfg.INPUT.LDMSEG.IMAGE_SIZE) == 518
    assert model.denoiser.unet.conv_in.in_channels == 4 + 64 + 4
    assert model.frozen_prefixes == ("autoencoder.", "image_encoder.backbone.")


@pytest.mark.parametrize("name", ["ldmseg_sd15_coco", "ldmseg_dinov2_vitb_coco"])
def test_schedule_of_the_paper(name):
    cfg = get_config(f"coco/{name}.yaml")
    solver, diffusion = cfg.SOLVER, cfg.MODEL.LDMSEG.DIFFUSION
    assert (solver.OPTIMIZER, solver.BASE_LR, solver.WEIGHT_DECAY) == ("ADAMW", 1e-4, 0.05)
    assert (solver.IMS_PER_BATCH, solver.LR_SCHEDULER_NAME) == (256, "WarmupCosineLR")
    assert 100_000 <= solver.MAX_ITER <= 200_000
    clipping = solver.CLIP_GRADIENTS
    assert (clipping.CLIP_TYPE, clipping.CLIP_VALUE) == ("full_model", 1.0)
    assert (diffusion.PREDICTION_TYPE, diffusion.NUM_TRAIN_TIMESTEPS) == ("epsilon", 1000)
    assert (diffusion.LOSS_WEIGHTING, diffusion.MIN_SNR_GAMMA) == ("min_snr", 2.0)
    assert cfg.MODEL.LDMSEG.DENOISER.FREEZE == ["time_embedding"]


@pytest.mark.parametrize("name", [name for name in CONFIGS if "baselines/" in name])
def test_baselines_differ_from_ours_in_the_model_only(name):
    """Same data, size, batch and learning-rate schedule; about as many parameters from scratch."""
    data = Path(name).parts[0]
    size = 128 if "128" in name else 0
    cfg = get_config(name)
    ours = get_config(
        {"scenes": "scenes/ldmseg_scenes64.yaml", "camvid": "camvid/ldmseg_camvid.yaml"}.get(
            data, "coco/ldmseg_coco.yaml"
        )
    )
    if not size:
        assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (ours.DATASETS.TRAIN, ours.DATASETS.TEST)
        if not cfg.MODEL.MASK2FORMER.PRETRAINED:
            assert cfg.INPUT.LDMSEG == ours.INPUT.LDMSEG
            assert cfg.SOLVER.IMS_PER_BATCH == ours.SOLVER.IMS_PER_BATCH
            assert cfg.SOLVER.LR_SCHEDULER_NAME == ours.SOLVER.LR_SCHEDULER_NAME
    if not cfg.MODEL.MASK2FORMER.PRETRAINED:
        assert 2_000_000 < count(build_on_meta(cfg)) < 3_000_000


def test_output_folders_are_all_different():
    folders = [get_config(n).OUTPUT_DIR for n in CONFIGS if not Path(n).name.startswith("Base-")]
    assert len(set(folders)) == len(folders)


def test_stage_two_reads_what_stage_one_writes():
    """A config of LDMSeg points at the output of an autoencoder config of the same sizes."""
    configs = [get_config(name) for name in CONFIGS]
    written = {
        f"{c.OUTPUT_DIR}/model_final.pth": c
        for c in configs
        if c.MODEL.META_ARCHITECTURE == "LDMSegAutoencoder"
    }
    for cfg in configs:
        weights = cfg.MODEL.LDMSEG.AUTOENCODER.WEIGHTS
        if cfg.MODEL.META_ARCHITECTURE != "LDMSeg" or weights.startswith("ldmseg://"):
            continue
        if "official" in cfg.OUTPUT_DIR:  # its MODEL.WEIGHTS brings the autoencoder along
            assert weights == ""
            continue
        stage1 = written[weights]
        for key in set(cfg.MODEL.LDMSEG.AUTOENCODER) - {"WEIGHTS", "LOSS"}:
            ours, theirs = cfg.MODEL.LDMSEG.AUTOENCODER[key], stage1.MODEL.LDMSEG.AUTOENCODER[key]
            assert ours == theirs, f"{weights}: AUTOENCODER.{key} is {theirs}, stage 2 says {ours}"
        assert cfg.INPUT.LDMSEG.IMAGE_SIZE == stage1.INPUT.LDMSEG.IMAGE_SIZE
        assert cfg.MODEL.LDMSEG.NUM_BITS == stage1.MODEL.LDMSEG.NUM_BITS


def test_stage_two_reads_the_image_encoder_that_was_trained_before():
    """Of the same sizes."""
    configs = [(name, get_config(name)) for name in CONFIGS]
    written = {
        f"{c.OUTPUT_DIR}/model_final.pth": c
        for _, c in configs
        if c.MODEL.META_ARCHITECTURE == "LDMSegImageEncoder"
    }
    readers = [c for _, c in configs if c.MODEL.LDMSEG.IMAGE_ENCODER.WEIGHTS]
    assert readers and written
    for cfg in readers:
        encoder = cfg.MODEL.LDMSEG.IMAGE_ENCODER
        before = written[encoder.WEIGHTS]
        for key in set(encoder) - {"WEIGHTS"}:
            assert encoder[key] == before.MODEL.LDMSEG.IMAGE_ENCODER[key], key
        assert cfg.DATASETS.TRAIN == before.DATASETS.TRAIN and cfg.INPUT == before.INPUT


def test_classes_of_the_full_size_configs():
    """133, 150 and 19 classes and their things, from the data sets' metadata; ids hold them."""
    for name, classes, things in (
        ("coco/ldmseg_panoptic_coco.yaml", 133, 80),
        ("ade20k/ldmseg_ade20k.yaml", 150, 100),
        ("cityscapes/ldmseg_cityscapes.yaml", 19, 8),
    ):
        model = build_on_meta(get_config(name))
        assert (model.classifier.classes.num_classes, sum(model.classifier.classes.is_thing)) == (
            classes,
            things,
        )
        assert model.denoiser.task_tokens.shape == (2, 4, 768)
        assert model.layout.names == ["instance", "semantic"]
        assert int(model.tasks[1].class_ids.max()) < model.autoencoder.num_ids


def test_unknown_config_lists_what_there_is():
    with pytest.raises(FileNotFoundError, match="scenes/autoencoder_scenes64.yaml"):
        get_config_file("scenes/no_such.yaml")
