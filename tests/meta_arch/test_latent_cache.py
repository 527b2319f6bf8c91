"""The cache of a frozen image encoder: the same losses, whatever is in its folder."""

import logging

import pytest
import torch
from detectron2.modeling import build_model
from tiny import tiny_batch, tiny_config

from ldmseg_d2.meta_arch.latent_cache import read_tensor, to_half, write_tensor

FREEZE = ("MODEL.LDMSEG.IMAGE_ENCODER.FREEZE", True)
CACHE = "MODEL.LDMSEG.IMAGE_ENCODER.CACHE_DIR"


def build(*opts, seed=0):
    torch.manual_seed(seed)
    cfg = tiny_config("scenes/ldmseg_scenes64.yaml", "MODEL.LDMSEG.ID_ASSIGNMENT", "random", *opts)
    return build_model(cfg).train()


def loss(model, batch) -> float:
    torch.manual_seed(7)
    return float(model(batch)["loss_diffusion"].detach())


def count_calls(model) -> list:
    calls = []
    model.image_encoder.register_forward_hook(lambda *args: calls.append(args))
    return calls


def files(folder) -> list:
    return sorted(folder.rglob("*.safetensors"))


def test_same_losses_and_a_second_epoch_without_the_encoder(tmp_path):
    batch = tiny_batch(3)
    expected = loss(build(*FREEZE), batch)
    model = build(*FREEZE, CACHE, str(tmp_path))
    calls = count_calls(model)
    first = loss(model, batch)
    assert first == pytest.approx(expected, rel=2e-3)
    assert len(calls) == 3 == len(files(tmp_path))
    # Also of another process with the same weights, and bit for bit.
    again = build(*FREEZE, CACHE, str(tmp_path))
    other_calls = count_calls(again)
    assert loss(model, batch) == loss(again, batch) == first
    assert len(calls) == 3 and not other_calls
    # Inference does not use it.
    with torch.no_grad():
        model.eval()(batch)
    assert len(calls) == 4


def test_flips_names_and_weights_make_other_files(tmp_path):
    model = build(*FREEZE, CACHE, str(tmp_path))
    (entry,) = tiny_batch(1)
    loss(model, [entry])
    loss(model, [{**entry, "image": entry["image"].flip(-1)}])
    assert len(files(tmp_path)) == 2
    loss(model, [{**entry, "file_name": "other.png"}])
    assert len(files(tmp_path)) == 3
    loss(build(*FREEZE, CACHE, str(tmp_path), seed=1), [entry])
    assert len(files(tmp_path)) == 4 and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped"])
def test_damaged_files_are_made_again(tmp_path, caplog, damage):
    model = build(*FREEZE, CACHE, str(tmp_path))
    batch = tiny_batch(1)
    expected = loss(model, batch)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    damaged = {"cut": whole[:-9], "empty": b"", "flipped": whole[:-1] + bytes([whole[-1] ^ 1])}
    path.write_bytes(damaged[damage])
    with caplog.at_level(logging.WARNING):
        assert loss(model, batch) == expected
    assert "is damaged" in caplog.text and path.read_bytes() == whole


def test_large_values_stay_float32_and_a_full_disk_is_survived(tmp_path, caplog):
    assert to_half(torch.tensor([1e6])).dtype == torch.float32
    write_tensor(tmp_path / "a.safetensors", to_half(torch.tensor([[1e6]])))
    assert read_tensor(tmp_path / "a.safetensors").item() == 1e6
    (tmp_path / "file").touch()
    write_tensor(tmp_path / "file" / "b.safetensors", torch.zeros(1))
    assert "Cannot write" in caplog.text
    assert read_tensor(tmp_path / "none.safetensors") is None


def test_needs_a_frozen_encoder(tmp_path):
    with pytest.raises(ValueError, match="CACHE_DIR is set, but FREEZE is False"):
        build(CACHE, str(tmp_path))
    model = build(*FREEZE, CACHE, str(tmp_path))
    next(model.image_encoder.parameters()).requires_grad_(True)
    with pytest.raises(ValueError, match="frozen as a whole, but ConvImageEncoder is trained"):
        loss(model, tiny_batch(1))
