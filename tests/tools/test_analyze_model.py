"""Counts against closed forms and against the real networks on the CPU."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from load_tool import load_tool
from tiny import AUTOENCODER, LDMSEG, tiny_batch, tiny_config
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ldmseg_d2.engine import analysis, memory
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


def test_counts_are_those_of_the_real_model():
    cfg = tiny_config(LDMSEG, "MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS", 3)
    found = analysis.analyze(cfg)
    model = build_model(cfg)
    for name, (total, trained) in found["parameters"].items():
        parameters = list(getattr(model, name).parameters())
        assert total == sum(p.numel() for p in parameters)
        assert trained == sum(p.numel() for p in parameters if p.requires_grad)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        with sdpa_kernel(SDPBackend.MATH):
            model.eval()(tiny_batch(1))
    # The factored head's expansion to all ids comes after the decoder.
    head = 2 * cfg.MODEL.LDMSEG.NUM_BITS * (2**cfg.MODEL.LDMSEG.NUM_BITS - 1) * 64 * 64
    assert counter.get_total_flops() - head == pytest.approx(found["flops"]["inference"], rel=0.01)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        sum(model.train()(tiny_batch(1)).values()).backward()
    assert counter.get_total_flops() == pytest.approx(found["flops"]["training"], rel=0.02)


@pytest.mark.parametrize("ids", ["ordered", "matched"])
def test_the_pass_of_self_aligned_denoising_is_counted_once(ids):
    opts = ("MODEL.LDMSEG.ID_ASSIGNMENT", ids, "MODEL.LDMSEG.DIFFUSION.SELF_ALIGNED_PROB", 1.0)
    cfg = tiny_config("scenes/ldmseg_scenes64.yaml", *opts)
    found = analysis.analyze(cfg)["flops"]["training"]
    model = build_model(cfg).train()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        sum(model(tiny_batch(1)).values()).backward()
    assert counter.get_total_flops() == pytest.approx(found, rel=0.02)


DEPTH = "scenes/depth_autoencoder_scenes64.yaml"
JOINT, SEPARATE = (
    "scenes/ldmseg_multitask_scenes64.yaml",
    "scenes/ldmseg_separate_tasks_scenes64.yaml",
)


def tiny_tasks(name):
    cfg = tiny_config(name, "MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS", 3)
    cfg.MODEL.LDMSEG.DEPTH.AUTOENCODER.WEIGHTS = ""
    cfg.MODEL.LDMSEG.DEPTH.AUTOENCODER.CHANNELS = 16
    return cfg


@pytest.mark.parametrize(
    "name, sampler, runs", [(JOINT, "DDPM", 3), (SEPARATE, "DDPM", 9), (JOINT, "Heun", 5)]
)
def test_tasks_are_counted_as_they_are_run(name, sampler, runs):
    cfg = tiny_tasks(name)
    cfg.MODEL.LDMSEG.SAMPLER.NAME = sampler
    found = analysis.analyze(cfg)
    assert found["forwards"] == runs
    model = build_model(cfg).eval()
    calls = []
    model.denoiser.unet.register_forward_hook(lambda m, args, out: calls.append(len(args[0])))
    for part, (total, _) in found["parameters"].items():
        assert total == sum(p.numel() for p in getattr(model, part).parameters())
    assert {"autoencoder", "depth_autoencoder", "denoiser"} < set(found["parameters"])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        with sdpa_kernel(SDPBackend.MATH):
            model(memory.fake_batch(64, 1))
    assert sum(calls) == found["forwards"]
    # The factored head's expansion to all ids, for segments and for classes.
    head = 2 * cfg.MODEL.LDMSEG.NUM_BITS * (2**cfg.MODEL.LDMSEG.NUM_BITS - 1) * 64 * 64
    counted = found["flops"]["inference"]
    assert counted <= counter.get_total_flops() <= 1.01 * counted + 2 * head
    assert found["flops"]["inference"] > found["flops"]["step"] * 3


CELLS = ("MODEL.LDMSEG.IMAGE_ENCODER.CELL_LOSS_WEIGHT", 1.0)
PROBS = (*CELLS, "MODEL.LDMSEG.IMAGE_ENCODER.CELL_PROBS", True)


@pytest.mark.parametrize("opts", [(), PROBS])
def test_training_of_joint_tasks_is_counted(opts):
    cfg = tiny_tasks(JOINT)
    cfg.merge_from_list(list(opts))
    found, model = analysis.analyze(cfg), build_model(cfg).train()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        sum(model(memory.fake_batch(64, 1)).values()).backward()
    assert counter.get_total_flops() == pytest.approx(found["flops"]["training"], rel=0.02)


def test_image_encoder_is_counted():
    cfg = tiny_tasks(JOINT)
    cfg.merge_from_list([*PROBS, "MODEL.META_ARCHITECTURE", "LDMSegImageEncoder"])
    model = build_model(cfg)
    cfg.MODEL.LDMSEG.IMAGE_ENCODER.WEIGHTS = "not_needed_to_count.pth"
    found = analysis.analyze(cfg)
    parameters = sum(total for total, _ in found["parameters"].values())
    assert parameters == sum(p.numel() for p in model.parameters()) and found["forwards"] == 0
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(memory.fake_batch(64, 1))
    assert counter.get_total_flops() == found["flops"]["inference"]
    with FlopCounterMode(display=False) as counter:
        model.train()(memory.fake_batch(64, 1))["loss_cells"].backward()
    assert counter.get_total_flops() == found["flops"]["training"]


def test_depth_autoencoder_is_counted():
    cfg = tiny_tasks(DEPTH)
    found, model = analysis.analyze(cfg), build_model(cfg).eval()
    assert found["parameters"]["autoencoder"][0] == sum(p.numel() for p in model.parameters())
    assert found["forwards"] == 0
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(memory.fake_batch(64, 1))
    assert counter.get_total_flops() == found["flops"]["inference"]


def test_full_size_is_counted_without_memory():
    before = memory.peak_resident_bytes()
    found = analysis.analyze(get_config("coco/ldmseg_coco.yaml"))
    # 860M parameters of Stable Diffusion's UNet without cross-attention; about 0.8 TFLOPs.
    assert 780e6 < found["parameters"]["denoiser"][0] < 870e6
    assert 0.7e12 < found["flops"]["step"] < 0.9e12
    assert found["least_bytes"] > 16 * found["parameters"]["denoiser"][1]
    assert memory.peak_resident_bytes() - before < 0.5e9


def test_memory_is_measured_by_running(tool, monkeypatch):
    cfg = tiny_config(AUTOENCODER, "SOLVER.IMS_PER_BATCH", 2)
    assert memory.measure_here(cfg, "train", 2) > 1e7
    asked = []
    monkeypatch.setattr(tool, "measure", lambda f, o, what, n: asked.append((what, n)) or 1e9 * n)
    found = analysis.analyze(cfg)
    monkeypatch.setattr(tool, "free_bytes", lambda device: 10e9)
    peaks = tool.measure_all("a.yaml", [], cfg, found)
    assert asked == [("train", 1), ("train", 2), ("inference", 1)] and peaks["train", 2] == 2e9
    assert tool.fits(found, peaks) == "8 GB and more, batch 2"
    # No room for the larger batch, then for nothing.
    monkeypatch.setattr(tool, "free_bytes", lambda device: 3e9)
    assert ("train", 2) not in tool.measure_all("a.yaml", [], cfg, found)
    monkeypatch.setattr(tool, "free_bytes", lambda device: 0.0)
    assert tool.measure_all("a.yaml", [], cfg, found) == {}
    counted = {**found, "least_bytes": 17e9, "activation_bytes": 1e9}
    assert tool.fits(counted, {}) == "24 GB and more, batch 1"


def test_table_is_written_between_the_markers(tool, tmp_path):
    page = tmp_path / "page.md"
    kept, gone = "configs/scenes/ldmseg_scenes64.yaml", "configs/scenes/there_is_none.yaml"
    rows = f"| `{gone}` | 1 |\n| `{kept}` | 2 |"
    page.write_text(f"before\n\n{tool.BEGIN}\nold\n{rows}\n{tool.END}\n\nafter\n")
    config = tmp_path / "tiny.yaml"
    config.write_text(tiny_config(LDMSEG).dump())
    for _ in range(2):
        tool.main(["--config-file", str(config), "--no-run", "--write", str(page)])
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert text.count("tiny.yaml") == 1 and "counted" in text
    # Of other configs, the lines stay as long as there is the config.
    assert f"| `{kept}` | 2 |" in text and gone not in text
    page.write_text("no markers")
    with pytest.raises(ValueError, match="needs the lines"):
        tool.write(page, [])


def test_the_page_names_every_shipped_config():
    page = (ROOT / "docs" / "TRAINING.md").read_text()
    for path in ROOT.glob("configs/*/*.yaml"):
        if path.parent.name == "studies":
            continue
        assert path.name.startswith("Base") or f"`{path.relative_to(ROOT)}`" in page, path


def test_activations_are_what_autograd_keeps():
    """Linear keeps its input, SiLU its input: 3 x 4 and 3 x 5 floats; attention q, k, v, output."""
    net = nn.Sequential(nn.Linear(4, 5), nn.SiLU())
    x = torch.zeros(3, 4)
    for device in ("cpu", "meta"):
        assert analysis.activation_bytes(net.to(device), net, x.to(device)) == 4 * (12 + 15)
    q, k, v = (torch.zeros(1, 2, 7, 8, requires_grad=True) for _ in range(3))

    def attention(q):
        return nn.functional.scaled_dot_product_attention(q, k, v)

    assert analysis.activation_bytes(attention, nn.Identity(), q) == 4 * 4 * q.numel()
