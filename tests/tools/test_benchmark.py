"""The benchmark at the smallest size: LDMSeg with its stage 1, and a Panoptic FPN."""

import json

import pytest
from load_tool import load_tool
from tiny import TINY_OPTS

from ldmseg_d2.data import register_all
from ldmseg_d2.data.datasets.scenes import write_scenes
from ldmseg_d2.experiments import runner
from ldmseg_d2.experiments.costs import peak_memory

TINY = (
    "MODEL.LDMSEG.AUTOENCODER.ENCODER_CHANNELS 64 MODEL.LDMSEG.AUTOENCODER.DECODER_CHANNELS 64 "
    "MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS 2"
).split() + TINY_OPTS
NAME = "panoptic_fpn_scenes64"
FPN = f"configs/scenes/baselines/{NAME}.yaml"


@pytest.mark.slow
def test_benchmark(tmp_path, catalogs, monkeypatch):
    for split, number in (("train", 8), ("val", 4)):
        write_scenes(tmp_path / "scenes", split, num_images=number, size=64, seed=0)
    register_all(str(tmp_path))
    tool, output, page = load_tool("benchmark"), tmp_path / "out", tmp_path / "docs" / "B.md"
    argv = ["--configs", "configs/scenes/ldmseg_scenes64.yaml", FPN]
    argv += ["--dataset", "scenes", "--budget", "iters:4", "--output", str(output)]
    argv += ["--first-stage", "configs/scenes/autoencoder_scenes64.yaml:0.25", "--steps", "1", "2"]
    argv += ["--rounds", "3", "--doc", str(page)]
    # Once is enough: it starts a process.
    monkeypatch.setattr(
        runner,
        "peak_memory",
        lambda cfg: None if cfg.MODEL.META_ARCHITECTURE != "LDMSeg" else peak_memory(cfg),
    )
    tool.main([*argv, "--opts", *TINY])

    found = json.loads((output / "results.json").read_text())
    ldmseg, other = found["models"]
    assert [row["steps"] for row in ldmseg["rows"]] == [1, 2] and other["rows"][0]["steps"] == 0
    assert [s["iterations"] for s in ldmseg["trainings"][0]["stages"]] == [1, 3]
    # What stage 2 decodes with is what stage 1 has learnt here.
    first, last = ldmseg["trainings"][0]["stages"]
    assert "MODEL.LDMSEG.AUTOENCODER.WEIGHTS" in last["overrides"]
    assert first["weights"] in last["overrides"] and "reconstruction" in first["results"]
    assert other["rows"][0]["results"][0]["sem_seg"]["mIoU"] >= 0
    one, two = (row["gflops"] for row in ldmseg["rows"])
    assert one < two and ldmseg["memory"] > 1e8

    text = page.read_text()
    assert text.count("| ldmseg_scenes64, 1 step") == 1 == text.count("| panoptic_fpn")
    assert "COUNT_THRESHOLD 20" in text and "# Benchmark" in text and "--budget iters:4" in text
    assert (page.parent / "images" / "out_pq_latency.png").stat().st_size > 5000
    assert "images/out_pq_latency.png" in text

    # Again: nothing is trained or measured.
    monkeypatch.setattr("ldmseg_d2.experiments.timed_training.TimedTrainer.train", None)
    with monkeypatch.context() as patch:
        for name in ("evaluate", "interleave", "picture_flops", "peak_memory"):
            patch.setattr(runner, name, None)
        tool.main([*argv, "--opts", *TINY])
    assert page.read_text() == text
    # Weights instead of a training: what is new is evaluated, the rest is not.
    monkeypatch.setattr(runner, "peak_memory", lambda _: None)
    given = ["--weights", f"{NAME}={output / 'seed0' / NAME / 'model_final.pth'}"]
    tool.main([*argv, *given, "--opts", *TINY])
    again = json.loads((output / "results.json").read_text())["models"][1]
    assert again["rows"][0]["results"] == other["rows"][0]["results"]
    assert again["trainings"][0]["stages"] == []
    # Another setting is not mixed with what is there.
    with pytest.raises(ValueError, match="scenes64.stage1.*BASE_LR is 0.002 there"):
        tool.main([*argv, "--opts", *TINY, "SOLVER.BASE_LR", "0.1"])
    with pytest.raises(ValueError, match="budget is '4 iterations' there"):
        tool.main([*argv, "--budget", "iters:5", "--opts", *TINY])
