import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_model import TinyNet, tiny_config
from torch import nn

from ldmseg_d2.engine import LDMSegCheckpointer, ModelEMA
from ldmseg_d2.modeling.weights import load_into, load_weights


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    return TinyNet(tiny_config(tmp_path))


def other_model(tmp_path):
    torch.manual_seed(1)
    return TinyNet(tiny_config(tmp_path))


def assert_same_weights(ours: nn.Module, theirs: nn.Module, *, but: str = "autoencoder."):
    expected = theirs.state_dict()
    for key, value in ours.state_dict().items():
        assert torch.equal(value, expected[key]) == (not key.startswith(but)), key


def save_averaged(model, folder) -> tuple[ModelEMA, str]:
    """Save a checkpoint whose averaged weights differ from the model's."""
    ema = ModelEMA(model, decay=0.9)
    with torch.no_grad():
        for parameter in ema.module.parameters():
            if parameter.ndim == 1:
                parameter.add_(1.0)
    LDMSegCheckpointer(model, str(folder), ema=ema).save("both")
    return ema, str(folder / "both.pth")


def test_frozen_keys_stay_out_and_others_come_back(model, tmp_path):
    LDMSegCheckpointer(model, str(tmp_path)).save("m", iteration=4)
    saved = torch.load(tmp_path / "m.pth", weights_only=True)
    assert not any(key.startswith("autoencoder.") for key in saved["model"])
    save_file(saved["model"], tmp_path / "m.safetensors")
    for name, expected in (("m.pth", {"iteration": 4}), ("m.safetensors", {})):
        other = other_model(tmp_path)
        assert LDMSegCheckpointer(other).load(str(tmp_path / name)) == expected
        assert_same_weights(other, model)


def test_weights_alone_are_the_averaged_ones_and_resuming_loads_both(model, tmp_path):
    ema, path = save_averaged(model, tmp_path)
    other = other_model(tmp_path)
    LDMSegCheckpointer(other).load(path)
    assert torch.equal(other.norm.bias, ema.module.norm.bias)
    assert torch.equal(load_weights(path, prefer_ema=False)["norm.bias"], model.norm.bias)
    other_ema = ModelEMA(other, decay=0.9)
    LDMSegCheckpointer(other, ema=other_ema).load(path)
    assert torch.equal(other.norm.bias, model.norm.bias)
    assert torch.equal(other_ema.module.norm.bias, ema.module.norm.bias)


def test_all_misfits_are_named_at_once(model):
    state = model.state_dict()
    del state["head.bias"]
    state["head.weight"] = torch.zeros(5, 4, 1, 1)
    state["stranger"] = torch.zeros(2)
    before = model.norm.weight.clone()
    state["norm.weight"] = before + 1
    with pytest.raises(ValueError) as info:
        load_into(model, state, source="file.pth", ignore_missing=("autoencoder.",))
    assert str(info.value) == (
        "The weights in 'file.pth' do not fit the TinyNet: does the config match the checkpoint?\n"
        "  1 missing:\n    head.bias (4,)\n"
        "  1 not in the model:\n    stranger (2,)\n"
        "  1 of another shape:\n    head.weight (5, 4, 1, 1), the model has (4, 4, 1, 1)"
    )
    assert torch.equal(model.norm.weight, before), "nothing is loaded where something misfits"


class NotPlain:
    pass


@pytest.mark.parametrize(
    "content, message",
    [
        ({"model": {"a": NotPlain()}}, "needs pickle"),
        ([1, 2], "holds a list"),
        ({"model": {}}, "holds no weights"),
        ({"a": 3}, "'a' is no tensor"),
    ],
)
def test_files_that_are_no_weights(tmp_path, content, message):
    path = str(tmp_path / "bad.pth")
    torch.save(content, path)
    with pytest.raises(ValueError, match=message) as info:
        load_weights(path)
    assert path in str(info.value)


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
def test_file_cut_short(tmp_path, model, name):
    path = tmp_path / name
    (torch.save if name.endswith(".pth") else save_file)(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="read"):
        load_weights(str(path))


def test_missing_file_is_named(model, tmp_path):
    for net, name in ((model, "nowhere.pth"), (nn.Linear(1, 1), "nowhere.pkl")):
        with pytest.raises(FileNotFoundError, match=name):
            LDMSegCheckpointer(net).load(str(tmp_path / name))


def test_other_models_load_as_in_detectron2(tmp_path, model):
    """Loosely, averaged weights or not; from Detectron2's pickles, which ours refuse."""
    linear, state = nn.Linear(2, 2), {"weight": torch.ones(2, 2), "stranger": torch.ones(1)}
    torch.save({"model": state}, tmp_path / "m.pth")
    save_file(state, tmp_path / "m.safetensors")
    content = {"model": {"weight": np.ones((2, 2), np.float32)}, "__author__": "someone"}
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(content))
    for name in ("m.pth", "m.safetensors", "m.pkl", "m.pkl?matching_heuristics=True"):
        nn.init.zeros_(linear.weight)
        LDMSegCheckpointer(linear).load(str(tmp_path / name))
        assert linear.weight.sum() == 4
    with pytest.raises(ValueError, match="needs pickle"):
        LDMSegCheckpointer(model).load(str(tmp_path / "m.pkl"))


def test_kill_while_saving_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    checkpointer = save_numbered(tmp_path, 1)

    def save_half(data, file):
        file.write(b"half a checkpoint")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", save_half)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save("model_0000001", iteration=2)
    assert checkpointer.resume_or_load("", resume=True) == {"iteration": 1}


def save_numbered(folder, *iterations: int) -> LDMSegCheckpointer:
    """Checkpoints of a tiny model as PeriodicCheckpointer names them."""
    net = nn.Linear(2, 2)
    net.frozen_prefixes = ()
    checkpointer = LDMSegCheckpointer(net, str(folder))
    for iteration in iterations:
        checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
    return checkpointer


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("damage", [cut_short, Path.unlink, lambda path: path.write_bytes(b"")])
def test_the_last_good_checkpoint_is_found(tmp_path, caplog, damage):
    save_numbered(tmp_path, 900)  # of a training that was overwritten
    checkpointer = save_numbered(tmp_path, 1, 3, 5, 7)
    for iteration in (5, 7):
        damage(tmp_path / f"model_{iteration:07d}.pth")
    assert checkpointer.resume_or_load("", resume=True) == {"iteration": 3}
    assert "model_0000007.pth" in caplog.text and "Passing over a checkpoint" in caplog.text


def test_no_checkpoint_is_whole(tmp_path):
    checkpointer = save_numbered(tmp_path, 1, 3)
    for path in tmp_path.glob("*.pth"):
        cut_short(path)
    with pytest.raises(ValueError, match="None of the checkpoints in .* can be read"):
        checkpointer.resume_or_load("", resume=True)
    # Weights that do not fit are no damage: older ones would not fit either.
    checkpointer = save_numbered(tmp_path, 1, 3)
    checkpointer.model = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="do not fit"):
        checkpointer.resume_or_load("", resume=True)


def test_frozen_networks_that_came_with_the_weights_come_with_them_again(model, tmp_path):
    """A converted model brings its own frozen networks; checkpoints of its training do not."""
    whole = str(tmp_path / "whole.safetensors")
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, whole)
    trained = LDMSegCheckpointer(model, str(tmp_path / "run"))
    trained.save("model_0000002", iteration=2)
    other = other_model(tmp_path)
    LDMSegCheckpointer(other, str(tmp_path / "run")).resume_or_load(whole, resume=True)
    for key, value in other.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
