"""The study tools from end to end, at the smallest size: two updates, a handful of pictures."""

import json

import pytest
import torch
from load_tool import load_tool

from ldmseg_d2.data import register_all
from ldmseg_d2.data.datasets.scenes import write_scenes
from ldmseg_d2.studies import capacity, runs
from ldmseg_d2.studies.curve import Curve, read_curve
from ldmseg_d2.studies.runs import Run

TINY = (
    "SOLVER.AMP.ENABLED False MODEL.DEVICE cpu "
    "MODEL.LDMSEG.DENOISER.BLOCK_OUT_CHANNELS [16,32] MODEL.LDMSEG.DENOISER.ATTENTION_HEAD_DIM 2 "
    "MODEL.LDMSEG.DENOISER.NORM_NUM_GROUPS 8 MODEL.LDMSEG.IMAGE_ENCODER.OUT_CHANNELS 8 "
    "MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS 1"
).split()


@pytest.mark.slow
def test_tasks(tmp_path, catalogs, monkeypatch):
    for split, number in (("train", 6), ("val", 2)):
        write_scenes(tmp_path / "scenes", split, num_images=number, size=64, seed=0)
    register_all(str(tmp_path), overwrite=True)
    tool = load_tool("study_tasks")
    output = tmp_path / "study"
    argv = ["--updates", "2", "--batch", "2", "--images", "2", "--output", str(output), *TINY]
    tool.main(argv)
    page = output / "STUDIES.md"
    text = page.read_text()
    for title in ("{I}", "{S}", "{D}", "{I, S} separate", "{I, S, D} joint, equal time"):
        assert f"| {title} " in text
    assert "2 pictures, DDPM, 1 steps, thresholds: COUNT_THRESHOLD 20" in text
    assert (output / "images" / "study_tasks.png").is_file()
    results = json.loads((output / "results.json").read_text())
    runs = {run["name"]: run for run in results["runs"]}
    assert len(runs) == 9 and "--updates 2" in results["command"]
    assert runs["seed0/separate_ISD"]["iterations"] == 6
    assert runs["seed0/joint_ISD"]["iterations"] == 2
    found = {"panoptic_class_agnostic", "panoptic_seg", "segm", "bbox", "sem_seg", "depth"}
    assert set(runs["seed0/joint_ISD"]["results"]) == found
    equal = runs["seed0/joint_IS_equal_time"]
    separate = runs["seed0/separate_IS"]["training_minutes"]
    expected = separate * 60 / runs["seed0/joint_IS"]["seconds_per_iteration"]
    assert equal["iterations"] == max(round(expected), 1)

    # Again: nothing is trained. An evaluation that was lost is made from the last checkpoint.
    folder = output / "seed0" / "separate_S"
    before = (folder / "model_final.pth").stat().st_mtime_ns
    (folder / "record.json").unlink()
    monkeypatch.setattr("ldmseg_d2.studies.runs.StudyTrainer.train", None)
    tool.main(argv)
    assert page.read_text() == text
    assert (folder / "model_final.pth").stat().st_mtime_ns == before


@pytest.mark.slow
def test_capacity(tmp_path, catalogs):
    tool = load_tool("study_capacity")
    argv = ["--autoencoder-iterations", "2", "--iterations", "2", "--batch", "2", "--size", "64"]
    argv += ["--images", "1", "--train-images", "4", "--bits", "7", "--output", str(tmp_path)]
    tool.main([*argv, "--doc", str(tmp_path / "docs" / "S.md"), *TINY])
    text = (tmp_path / "docs" / "S.md").read_text()
    lines = [[c.strip() for c in line.split("|")] for line in text.splitlines() if "|" in line]
    titles = [line[1:4] for line in lines[2:6]]
    stages = ("reconstruction", "full model")
    assert titles == [[s, "7", a] for s in stages for a in ("ordered", "random")]
    assert (tmp_path / "docs" / "images" / "study_capacity.png").is_file()
    runs = json.loads((tmp_path / "results.json").read_text())["runs"]
    names = ["autoencoder_7bits", "ldmseg_7bits_random", "ldmseg_7bits_ordered"]
    assert [run["name"] for run in runs] == names
    assert set(runs[0]["results"]) == set(capacity.ASSIGNMENTS)
    assert set(runs[2]["results"]["ordered"]) == set(capacity.LABELS)
    with pytest.raises(FileExistsError, match="another size, seed"):
        tool.main([*argv, "--seed", "1", *TINY])


@pytest.mark.slow
def test_samplers(tmp_path, catalogs):
    write_scenes(tmp_path / "scenes", "val", num_images=2, size=64, seed=0)
    register_all(str(tmp_path), overwrite=True)
    tool = load_tool("study_samplers")
    argv = ["--weights", "", "--samplers", "DDPM", "Heun", "--steps", "1", "2", "--images", "2"]
    argv += ["--spacings", "trailing", "--latency-rounds", "1", "--output", str(tmp_path / "out")]
    tool.main([*argv, "--doc", str(tmp_path / "docs" / "S.md"), *TINY])
    text = (tmp_path / "docs" / "S.md").read_text()
    for title in ("| PQ, class-agnostic ", "| PQ ", "| mIoU ", "| passes / latency "):
        assert title in text
    assert "with random weights" in text and "the first 2 pictures of scenes_val, seed(s) 0" in text
    assert "| 3 / " in text  # passes of Heun with two steps
    assert (tmp_path / "docs" / "images" / "study_samplers.png").is_file()
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(found["records"]) == 4 and len(found["latency"]) == 5
    # Another seed joins what is there, in its own page.
    tool.main(["--seeds", "1", *argv, *TINY])
    text = (tmp_path / "out" / "STUDIES.md").read_text()
    assert "mean of 2 seeds of the noise" in text and "seed(s) 0, 1" in text
    with pytest.raises(ValueError, match="another run: images is 2 there and 1 here"):
        tool.main([*argv, "--images", "1", *TINY])


@pytest.mark.slow
def test_training(tmp_path, catalogs, monkeypatch):
    for split, number in (("train", 4), ("val", 2)):
        write_scenes(tmp_path / "scenes", split, num_images=number, size=64, seed=0)
    register_all(str(tmp_path), overwrite=True)
    tool = load_tool("study_training")
    output = tmp_path / "study"
    argv = ["--factors", "noise", "latent_noise", "--images", "2", "--steps", "2", "1"]
    argv += ["--minutes", "0.001", "--output", str(output), "SOLVER.IMS_PER_BATCH", "2", *TINY]
    monkeypatch.setattr("ldmseg_d2.studies.runs.CALIBRATION", 2)
    # The minutes hold at least one iteration: three, for points of the curve.
    seconds = tool.study.seconds_per_iteration
    monkeypatch.setattr(tool.study, "seconds_per_iteration", lambda *a: min(seconds(*a), 0.02))
    tool.main(argv)
    page = output / "STUDIES.md"
    text = page.read_text()
    for title in ("uniform t, min-SNR", "0.3, trained here", "matched ids", "positional ids"):
        assert f"| {title} " in text
    assert (output / "images" / "study_training_scenes_val.png").is_file()
    runs = {run["name"]: run for run in json.loads((output / "results.json").read_text())["runs"]}
    assert {"stage1", "stage1_latent_noise_0", "seed0/regression_positional_ids"} <= set(runs)
    baseline = runs["seed0/baseline_the_config"]
    assert baseline["iterations"] == 3 and set(baseline["curve"]) == {"1", "2"}
    assert set(baseline["results"]["steps"]) == {"1", "2"}
    assert 0 <= baseline["results"]["inpainting"]["given_ids"] <= 100
    assert set(runs["seed0/regression_matched_ids"]["results"]["steps"]) == {"1"}
    times = json.loads((output / "seconds_per_iteration.json").read_text())
    assert set(times) == {name.removeprefix("seed0/") for name in runs}

    # Again: nothing is measured or trained.
    monkeypatch.setattr("ldmseg_d2.studies.runs.StudyTrainer.train", None)
    tool.main(argv)
    assert page.read_text() == text


def test_a_curve_does_not_change_the_training(tmp_path, catalogs):
    """Evaluated in between, and interrupted at such a point: the same weights, all points."""
    write_scenes(tmp_path / "scenes", "train", num_images=4, size=64, seed=0)
    register_all(str(tmp_path), overwrite=True)
    run = Run("r", "configs/scenes/ldmseg_scenes64.yaml", 4, (*TINY, "SOLVER.IMS_PER_BATCH", 2))
    seen = []

    def evaluate(cfg, model):
        assert not model.training
        seen.append(torch.rand(()))
        if len(seen) == 2 and "stop" in cfg.OUTPUT_DIR:
            raise KeyboardInterrupt
        return {"mean": sum(float(p.mean()) for p in model.parameters())}

    finals, curves = [], []
    for name, curve in (("plain", None), ("stop", Curve((1, 3), evaluate))):
        seen.clear()
        cfg = runs.run_config(run, tmp_path / name)
        for _ in range(2):
            try:
                trainer = runs.train(cfg, curve)
            except KeyboardInterrupt:
                continue
        finals.append(trainer.unwrapped_model.state_dict())
        curves.append(read_curve(tmp_path / name / runs.CURVE))
    assert finals[0].keys() == finals[1].keys()
    assert all(torch.equal(finals[0][key], finals[1][key]) for key in finals[0])
    assert set(curves[1]) == {"1", "3"} and curves[0] == {} and len(seen) == 3
