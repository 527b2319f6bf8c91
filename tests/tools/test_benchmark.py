"""The benchmark from end to end, at the smallest size: LDMSeg with its stage 1, and Detectron2's
semantic segmentation, on eight scenes."""

import json
from pathlib import Path

import pytest
from load_tool import load_tool

from ldmseg_d2.data import register_all
from ldmseg_d2.data.datasets.scenes import write_scenes

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "MODEL.DEVICE cpu SOLVER.IMS_PER_BATCH 2 BENCHMARK.STEPS [1,2] "
    "MODEL.LDMSEG.AUTOENCODER.ENCODER_CHANNELS 64 MODEL.LDMSEG.AUTOENCODER.DECODER_CHANNELS 64 "
    "MODEL.LDMSEG.DENOISER.BLOCK_OUT_CHANNELS [16,32] MODEL.LDMSEG.DENOISER.ATTENTION_HEAD_DIM 2 "
    "MODEL.LDMSEG.DENOISER.NORM_NUM_GROUPS 8 MODEL.LDMSEG.IMAGE_ENCODER.OUT_CHANNELS 8 "
    "MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS 2"
).split()
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


def rows_of(text):
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return [row for row in rows if row]


@pytest.mark.slow
def test_benchmark(tmp_path, catalogs, monkeypatch):
    for split, number in (("train", 8), ("val", 4)):
        write_scenes(tmp_path / "scenes", split, num_images=number, size=64, seed=0)
    register_all(str(tmp_path), overwrite=True)
    # The memory is measured in a process of its own.
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    from detectron2.data import MetadataCatalog

    classes = len(MetadataCatalog.get("scenes_train").stuff_classes)
    semantic = tmp_path / "semantic.yaml"
    base = ROOT / "configs" / "scenes" / "Base-scenes.yaml"
    semantic.write_text(SEMANTIC.format(base=base, classes=classes))
    tool, output, page = load_tool("benchmark"), tmp_path / "out", tmp_path / "docs" / "B.md"
    argv = ["--configs", "configs/scenes/ldmseg_scenes64.yaml", str(semantic)]
    argv += ["--dataset", "scenes", "--budget", "iters:4", "--output", str(output)]
    argv += ["--curve-points", "2", "--curve-images", "2", "--rounds", "3", "--warm-up", "1"]
    argv += ["--panel-photos", "2", "--doc", str(page)]
    tool.main([*argv, "--opts", *TINY])

    found = json.loads((output / "results.json").read_text())
    ldmseg, other = found["models"]
    assert [row["steps"] for row in ldmseg["rows"]] == [1, 2] and other["rows"][0]["steps"] == 0
    assert [s["iterations"] for s in ldmseg["trainings"][0]["stages"]] == [1, 3]
    assert [s["iterations"] for s in other["trainings"][0]["stages"]] == [4]
    # What stage 2 decodes with is what stage 1 has learnt here.
    first, last = ldmseg["trainings"][0]["stages"]
    assert "MODEL.LDMSEG.AUTOENCODER.WEIGHTS" in last["overrides"]
    assert first["weights"] in last["overrides"] and "reconstruction" in first["results"]
    assert set(ldmseg["rows"][0]["results"][0]) == {"panoptic_class_agnostic", "limits"}
    assert other["rows"][0]["results"][0]["sem_seg"]["mIoU"] >= 0
    assert [p["iteration"] for p in ldmseg["trainings"][0]["curve"]] == [2, 3]
    seconds = [p["seconds"] for p in ldmseg["trainings"][0]["curve"]]
    assert first["seconds"] < seconds[0] < seconds[1]
    assert seconds[1] == pytest.approx(ldmseg["trainings"][0]["seconds"])
    one, two = (row["gflops"] for row in ldmseg["rows"])
    assert one < two and ldmseg["memory"]["peak_bytes"] > ldmseg["memory"]["libraries_bytes"] > 1e8
    assert ldmseg["rows"][0]["latency"]["relative"] == 1 and ldmseg["throughput"]["1"] > 0
    assert {"torch", "detectron2", "diffusers"} <= set(found["environment"]["versions"])
    assert "--budget iters:4" in found["command"]

    text = page.read_text()
    titles = [row[0] for row in rows_of(text)]
    assert titles.count("LDMSeg, 1 step") == 2 and titles.count("semantic") == 3
    assert "COUNT_THRESHOLD 20" in text and "# Benchmark" in text
    for name in ("pq_latency", "pq_training_time", "panel"):
        assert (output / f"{name}.png").stat().st_size > 5000
        assert (page.parent / "images" / f"out_{name}.png").is_file()
        assert f"images/out_{name}.png" in text

    # Again: nothing is trained, evaluated or timed.
    monkeypatch.setattr("ldmseg_d2.studies.runs.StudyTrainer.train", None)
    for name in ("evaluate", "interleave", "best_throughput", "picture_flops", "peak_memory"):
        monkeypatch.setattr(f"ldmseg_d2.benchmark.session.{name}", None)
    tool.main([*argv, "--opts", *TINY])
    assert page.read_text() == text
    # Weights instead of a training: what is new is evaluated, the rest is not.
    monkeypatch.undo()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setattr("ldmseg_d2.studies.runs.StudyTrainer.train", None)
    given = ["--weights", f"semantic={output / 'seed0' / 'semantic' / 'model_final.pth'}"]
    tool.main([*argv, *given, "--opts", *TINY])
    again = json.loads((output / "results.json").read_text())["models"][1]
    assert again["rows"][0]["results"] == other["rows"][0]["results"]
    assert "not trained here" in page.read_text()
    # Another setting is not mixed with what is there.
    with pytest.raises(ValueError, match="ldmseg.stage1.*BASE_LR is 0.002 there"):
        tool.main([*argv, "--opts", *TINY, "SOLVER.BASE_LR", "0.1"])
    with pytest.raises(ValueError, match="--budget is '4 iterations' there"):
        tool.main([*argv, "--budget", "iters:5", "--opts", *TINY])
