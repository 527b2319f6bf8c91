import pytest
import torch
from safetensors.torch import save_file
from tiny import CLASSES, JOINT, LDMSEG, tiny_config, tiny_model

from ldmseg_d2.meta_arch.build import build_autoencoders, build_mask_autoencoder


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("MODEL.LDMSEG.DIFFUSION.SEGMENT_BALANCE", -0.1, "must be from 0"),
        ("MODEL.LDMSEG.ID_ASSIGNMENT", "sorted", "allowed: random, matched"),
        ("MODEL.LDMSEG.DIFFUSION.PREDICTION_TYPE", "x0", "epsilon, sample, v_prediction"),
        ("MODEL.LDMSEG.SAMPLER.NAME", "Euler", "allowed: DDIM"),
        ("MODEL.LDMSEG.DEPTH.NORMALIZATION", "absolute", "relative, metric"),
        ("MODEL.LDMSEG.TASKS", ["instance", "normals"], "one or more of .*semantic"),
        ("MODEL.LDMSEG.TASKS", ["depth", "depth"], "each once"),
        ("INPUT.LDMSEG.IMAGE_SIZE", 66, "multiple of"),
        ("INPUT.LDMSEG.IMAGE_SIZE", 68, "denoiser's levels"),
        ("INPUT.LDMSEG.TRAIN_SIZE", 36, "denoiser's levels"),
        ("MODEL.LDMSEG.NUM_BITS", 1, "must be 2..16"),
        ("MODEL.LDMSEG.CLASSIFIER", "vote", "none, semantic_task, mask_pooling"),
        ("MODEL.LDMSEG.CLASSIFIER", "semantic_task", r"needs \['instance', 'semantic'\]"),
    ],
)
def test_wrong_config_values_name_the_key(key, value, message):
    name = JOINT if "DEPTH" in key else LDMSEG
    with pytest.raises(ValueError, match=f"(?s){key.replace('.', '[.]')}.*{message}"):
        tiny_model(name, *CLASSES, key, value)


def test_an_autoencoders_weights_are_loaded_or_refused(tmp_path):
    key, path = "MODEL.LDMSEG.AUTOENCODER.WEIGHTS", tmp_path / "weights.safetensors"
    cfg = tiny_config(LDMSEG)
    trained = build_mask_autoencoder(cfg)
    trained.running_mean.fill_(3.0)
    save_file({f"autoencoder.{k}": v for k, v in trained.state_dict().items()}, path)
    loaded = build_autoencoders(tiny_config(LDMSEG, key, str(path)))["autoencoder"]
    for name, value in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    fixed = ("MODEL.LDMSEG.AUTOENCODER.NORMALIZATION", "fixed")
    build_autoencoders(tiny_config(LDMSEG, key, str(path), *fixed))  # needs no statistics
    save_file({"autoencoder.encoder.0.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(ValueError, match=key):
        build_autoencoders(tiny_config(LDMSEG, key, str(path)))
    with pytest.raises(FileNotFoundError, match="missing.pth"):
        build_autoencoders(tiny_config(LDMSEG, key, str(tmp_path / "missing.pth")))
