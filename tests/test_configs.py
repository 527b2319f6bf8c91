"""Every YAML under configs/ loads, builds, and says what it inherits."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from ldmseg_d2.model_zoo import config_root, get_config, get_config_file

CONFIGS = sorted(str(p.relative_to(config_root())) for p in config_root().rglob("*.yaml"))


def test_there_are_configs_for_every_data_set():
    assert {Path(name).parts[0] for name in CONFIGS} == {"scenes", "camvid", "coco"}
    for name in CONFIGS:
        if "quick" in name:
            assert "_BASE_" in (config_root() / name).read_text(), f"{name} inherits nothing"


@pytest.mark.parametrize("name", CONFIGS)
def test_config_loads_and_builds(name):
    cfg = get_config(name)
    if Path(name).name.startswith("Base-"):
        return
    assert cfg.MODEL.META_ARCHITECTURE in ("LDMSeg", "LDMSegAutoencoder")
    assert cfg.OUTPUT_DIR.startswith("output/"), "each config needs a folder of its own"
    # Stage 2's autoencoder need not have been trained for the networks to fit together; and on
    # the meta device the paper's 860M parameters cost neither memory nor time.
    cfg.MODEL.LDMSEG.AUTOENCODER.WEIGHTS = ""
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_model(cfg)
    assert any(p.requires_grad for p in model.parameters())


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
        stage1 = written[weights]
        for key in set(cfg.MODEL.LDMSEG.AUTOENCODER) - {"WEIGHTS", "LOSS"}:
            ours, theirs = cfg.MODEL.LDMSEG.AUTOENCODER[key], stage1.MODEL.LDMSEG.AUTOENCODER[key]
            assert ours == theirs, f"{weights}: AUTOENCODER.{key} is {theirs}, stage 2 says {ours}"
        assert cfg.INPUT.LDMSEG.IMAGE_SIZE == stage1.INPUT.LDMSEG.IMAGE_SIZE


def test_unknown_config_lists_what_there_is():
    with pytest.raises(FileNotFoundError, match="scenes/autoencoder_scenes64.yaml"):
        get_config_file("scenes/no_such.yaml")
