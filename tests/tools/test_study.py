"""A study of each kind from end to end, at the smallest size."""

import json
from pathlib import Path

import pytest
import yaml
from load_tool import load_tool
from tiny import TINY_OPTS

from ldmseg_d2.data import register_all
from ldmseg_d2.data.datasets.scenes import write_scenes
from ldmseg_d2.experiments import mosaics, runner

STUDIES = Path(__file__).resolve().parents[2] / "configs" / "studies"


@pytest.fixture
def study(tmp_path, catalogs):
    """Runs a shipped study, with fewer of its values or other keys."""
    for split in ("train", "val"):
        write_scenes(tmp_path / "scenes", split, num_images=2, size=64, seed=0)
    register_all(str(tmp_path))
    tool = load_tool("study")

    def run(name, *argv, values=None, **changes):
        content = {**yaml.safe_load((STUDIES / f"{name}.yaml").read_text()), **changes}
        content["FACTORS"] = {
            factor: {value: keys for value, keys in of.items() if values is None or value in values}
            for factor, of in content["FACTORS"].items()
        }
        file, output = tmp_path / f"{name}.yaml", tmp_path / "out"
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        tool.main(["--study", str(file), "--output", str(output), "--images", "2", *argv])
        found = json.loads((output / "results.json").read_text())
        return found, (output / "results.md").read_text()

    return run


@pytest.mark.slow
def test_tasks(study):
    values = ("depth", "separate")
    found, text = study("tasks", "--budget", "iters:1", *TINY_OPTS, values=values)
    results = {model["name"]: model["rows"][0]["results"][0] for model in found["models"]}
    everything = {"panoptic_class_agnostic", "panoptic_seg", "segm", "sem_seg", "depth"}
    assert set(results["base"]) == set(results["all three separate"]) == everything
    assert set(results["one task depth"]) == {"depth"} and "AbsRel" in text
    flops = {model["name"]: model["rows"][0]["gflops"] for model in found["models"]}
    # Three sampling runs, and an attention to the task's tokens.
    assert flops["all three separate"] > flops["base"]


@pytest.mark.slow
def test_samplers(study):
    argv = ("--seeds", "0", "1", "--", *TINY_OPTS[:2])
    found, text = study("samplers", *argv, values=("DDIM",), STEPS=[1, 2])
    base, ddim = found["models"]
    assert len(base["rows"][1]["results"]) == 2 and base["trainings"][0]["stages"] == []
    # The first prediction from the same noise is the same, and the shipped model is good.
    assert ddim["rows"][0]["results"] == base["rows"][0]["results"]
    assert base["rows"][1]["results"][0]["panoptic_class_agnostic"]["PQ"] > 70
    assert "ldmseg://ldmseg_multitask_scenes64" in text and "±" in text


@pytest.mark.slow
def test_capacity(study, monkeypatch):
    monkeypatch.setattr(mosaics, "MOSAICS", {"mosaics_train": 4, "mosaics_val": 3})
    monkeypatch.setattr(runner, "MOSAICS", mosaics.MOSAICS)
    argv = ("--budget", "iters:2", *TINY_OPTS, "INPUT.LDMSEG.IMAGE_SIZE", "64")
    found, text = study("capacity", *argv, values=("8",))
    more = found["models"][1]["trainings"][0]
    assert [stage["iterations"] for stage in more["stages"]] == [1, 1]
    assert "mosaics_val" in text and "| reconstruction " in text and "| full model " in text
