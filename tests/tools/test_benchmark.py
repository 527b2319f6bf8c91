"""The benchmark at the smallest size: LDMSeg with its stage 1, and a semantic segmentation."""

import json
from pathlib import Path

import pytest
from detectron2.data import MetadataCatalog
from load_tool import load_tool
from tiny import TINY_OPTS

from ldmseg_d2.data import register_all
from ldmseg_d2.data.datasets.scenes import write_scenes
from ldmseg_d2.experiments.costs import peak_memory

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "MODEL.LDMSEG.AUTOENCODER.ENCODER_CHANNELS 64 MODEL.LDMSEG.AUTOENCODER.DECODER_CHANNELS 64 "
    "MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS 2"
).split() + TINY_OPTS
SEMANTIC = """
_BASE_: "{base}"
MODEL:
  META_ARCHITECTURE: "SemanticSegmentor"
  WEIGHTS: ""
  BACKBONE: {{NAME: "build_resnet_fpn_backbone", FREEZE_AT: 0}}
  RESNETS:
    DEPTH: 18
    RES2_OUT_CHANNELS: 64
    NORM: "BN"
    OUT_FEATURES: ["res2", "res3", "res4", "res5"]
  FPN: {{IN_FEATURES: ["res2", "res3", "res4", "res5"], OUT_CHANNELS: 16}}
  SEM_SEG_HEAD: {{NUM_CLASSES: {classes}, CONVS_DIM: 16, NORM: ""}}
"""


@pytest.mark.slow
def test_benchmark(tmp_path, catalogs, monkeypatch):
    for split, number in (("train", 8), ("val", 4)):
        write_scenes(tmp_path / "scenes", split, num_images=number, size=64, seed=0)
    register_all(str(tmp_path))
    classes = len(MetadataCatalog.get("scenes_train").stuff_classes)
    semantic = tmp_path / "semantic.yaml"
    base = ROOT / "configs" / "scenes" / "Base-scenes.yaml"
    semantic.write_text(SEMANTIC.format(base=base, classes=classes))
    tool, output, page = load_tool("benchmark"), tmp_path / "out", tmp_path / "docs" / "B.md"
    argv = ["--configs", "configs/scenes/ldmseg_scenes64.yaml", str(semantic)]
    argv += ["--dataset", "scenes", "--budget", "iters:4", "--output", str(output)]
    argv += ["--first-stage", "configs/scenes/autoencoder_scenes64.yaml:0.25", "--steps", "1", "2"]
    argv += ["--curve-points", "2", "--rounds", "3", "--doc", str(page)]
    # Once is enough: it starts a process.
    monkeypatch.setattr(
        "ldmseg_d2.experiments.runner.peak_memory",
        lambda file, opts: None if file == str(semantic) else peak_memory(file, opts),
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
    curve = ldmseg["trainings"][0]["curve"]
    assert [p["iteration"] for p in curve] == [2, 3]
    assert first["seconds"] < curve[0]["seconds"] < curve[1]["seconds"]
    assert curve[1]["seconds"] == pytest.approx(ldmseg["trainings"][0]["seconds"])
    one, two = (row["gflops"] for row in ldmseg["rows"])
    assert one < two and ldmseg["memory"] > 1e8

    text = page.read_text()
    assert text.count("| ldmseg_scenes64, 1 step") == 2 and text.count("| semantic") == 2
    assert "COUNT_THRESHOLD 20" in text and "# Benchmark" in text and "--budget iters:4" in text
    for name in ("pq_latency", "pq_training_time", "panel"):
        assert (page.parent / "images" / f"out_{name}.png").stat().st_size > 5000
        assert f"images/out_{name}.png" in text

    # Again: nothing is trained or measured.
    monkeypatch.setattr("ldmseg_d2.experiments.timed_training.TimedTrainer.train", None)
    with monkeypatch.context() as patch:
        for name in ("evaluate", "interleave", "picture_flops", "peak_memory"):
            patch.setattr(f"ldmseg_d2.experiments.runner.{name}", None)
        tool.main([*argv, "--opts", *TINY])
    assert page.read_text() == text
    # Weights instead of a training: what is new is evaluated, the rest is not.
    monkeypatch.setattr("ldmseg_d2.experiments.runner.peak_memory", lambda *_: None)
    given = ["--weights", f"semantic={output / 'seed0' / 'semantic' / 'model_final.pth'}"]
    tool.main([*argv, *given, "--opts", *TINY])
    again = json.loads((output / "results.json").read_text())["models"][1]
    assert again["rows"][0]["results"] == other["rows"][0]["results"]
    assert again["trainings"][0]["stages"] == []
    # Another setting is not mixed with what is there.
    with pytest.raises(ValueError, match="scenes64.stage1.*BASE_LR is 0.002 there"):
        tool.main([*argv, "--opts", *TINY, "SOLVER.BASE_LR", "0.1"])
    with pytest.raises(ValueError, match="budget is '4 iterations' there"):
        tool.main([*argv, "--budget", "iters:5", "--opts", *TINY])
    register_all(str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match="prepare_scenes.py"):
        tool.main([*argv, "--opts", *TINY])
