"""Counts against closed forms and against the real networks on the CPU."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from load_tool import load_tool
from tiny import (
    AUTOENCODER,
    CLASSES,
    DEPTH_AUTOENCODER,
    JOINT,
    LDMSEG,
    SEPARATE,
    tiny_batch,
    tiny_config,
    tiny_multitask_batch,
)
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ldmseg_d2.engine import analysis
from ldmseg_d2.model_zoo import get_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    return load_tool("analyze_model")


class Attention(nn.Module):
    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(x, x, x)


def test_two_operations_a_multiplication():
    conv = nn.Conv2d(3, 8, 3, padding=1, device="meta")
    x = torch.zeros(1, 3, 16, 16, device="meta")
    flops, _ = analysis.count_flops(conv, x)
    assert flops == 2 * 16 * 16 * 8 * 3 * 9
    # Backward: the weights' gradient; the picture needs none.
    assert analysis.count_flops(conv, x, backward=True)[0] == 2 * flops
    tokens, width = 10, 4
    q = torch.zeros(1, 1, tokens, width, device="meta")
    assert analysis.count_flops(Attention(), q)[0] == 2 * 2 * tokens * tokens * width


def counted(model: nn.Module, batch: list[dict]) -> int:
    """Operations of the real model, in training with the way back."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        if model.training:
            sum(model(batch).values()).backward()
        else:
            with torch.no_grad():
                model(batch)
    return counter.get_total_flops()


def factored_head(cfg) -> int:
    """Its expansion to all ids comes after the decoder."""
    bits = cfg.MODEL.LDMSEG.NUM_BITS
    return 2 * bits * (2**bits - 1) * 64 * 64


@pytest.mark.parametrize("name, passes", [(LDMSEG, 3), (JOINT, 3), (SEPARATE, 9)])
def test_counts_are_those_of_the_real_model(name, passes):
    cfg = tiny_config(name, *CLASSES)
    found = analysis.analyze(cfg)
    model = build_model(cfg)
    for part, (total, trained) in found["parameters"].items():
        parameters = list(getattr(model, part).parameters())
        assert total == sum(p.numel() for p in parameters)
        assert trained == sum(p.numel() for p in parameters if p.requires_grad)
    calls = []
    model.denoiser.unet.register_forward_hook(lambda m, args, out: calls.append(len(args[0])))
    batch = tiny_batch(1) if name == LDMSEG else tiny_multitask_batch(1)
    inference = found["flops"]["inference"]
    assert inference <= counted(model.eval(), batch) <= 1.01 * inference + 2 * factored_head(cfg)
    assert sum(calls) == found["forwards"] == passes
    if name != SEPARATE:  # which trains one of its tasks, drawn at random
        training = found["flops"]["training"]
        assert counted(model.train(), batch) == pytest.approx(training, rel=0.02)


@pytest.mark.parametrize("name", [AUTOENCODER, DEPTH_AUTOENCODER])
def test_autoencoders_are_counted(name):
    cfg = tiny_config(name)
    found, model = analysis.analyze(cfg), build_model(cfg).eval()
    assert found["parameters"]["autoencoder"][0] == sum(p.numel() for p in model.parameters())
    head = 0 if name == DEPTH_AUTOENCODER else factored_head(cfg)
    assert counted(model, tiny_multitask_batch(1)) - head == found["flops"]["inference"]


def test_full_size_is_counted():
    found = analysis.analyze(get_config("coco/ldmseg_official.yaml"))
    # 860M parameters of Stable Diffusion's UNet without cross-attention; about 0.8 TFLOPs.
    assert 780e6 < found["parameters"]["denoiser"][0] < 870e6
    assert 0.7e12 < found["flops"]["step"] < 0.9e12
    assert found["least_bytes"] > 16 * found["parameters"]["denoiser"][1]


def test_memory_is_measured_by_running(tool, monkeypatch):
    cfg = tiny_config(AUTOENCODER, "SOLVER.IMS_PER_BATCH", 2)
    for what in ("train", "inference"):
        assert analysis.measure_memory(cfg, what, 1) > 1e8
    asked = []
    monkeypatch.setattr(tool, "measure", lambda cfg, what, n: asked.append((what, n)) or 1e9 * n)
    assert "| 1.0 (batch 1), 2.0 (batch 2) | 1.0 |" in tool.row("a.yaml", cfg, run=True)
    assert asked == [("train", 1), ("train", 2), ("inference", 1)]


def test_table_is_written_between_the_markers(tool, tmp_path):
    page, config = tmp_path / "page.md", tmp_path / "tiny.yaml"
    page.write_text(f"before\n\n{tool.BEGIN}\nold\n{tool.END}\n\nafter\n")
    config.write_text(tiny_config(LDMSEG).dump())
    for _ in range(2):
        tool.main(["--config-file", str(config), "--no-run", "--write", str(page)])
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert text.count("tiny.yaml") == 1 and "at least" in text


def test_the_page_names_every_shipped_config():
    page = (ROOT / "docs" / "TRAINING.md").read_text()
    for path in ROOT.glob("configs/*/*.yaml"):
        if path.parent.name == "studies":
            continue
        assert path.name.startswith("Base") or f"`{path.relative_to(ROOT)}`" in page, path
