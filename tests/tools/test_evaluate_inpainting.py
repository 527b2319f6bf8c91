"""The command line of the inpainting study, with the shipped model on generated scenes."""

import importlib.util
import json
import logging
from pathlib import Path

import pytest

from ldmseg_d2.data.datasets.scenes import register_scenes, write_scenes

TOOL = Path(__file__).parents[2] / "tools" / "evaluate_inpainting.py"
spec = importlib.util.spec_from_file_location("ldmseg_evaluate_inpainting_tool", TOOL)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


@pytest.fixture
def arguments(tmp_path, catalogs):
    write_scenes(tmp_path / "tiny_scenes", "val", num_images=3, seed=1234)
    register_scenes(str(tmp_path), name="tiny_scenes")
    return [
        "--config-file", "configs/scenes/ldmseg_multitask_scenes64.yaml",
        "--dataset", "tiny_scenes_val", "--output", str(tmp_path / "out"),
        "--drop", "0.5", "--patterns", "block",
        "--methods", "fixed", "x0:any", "--opts", "MODEL.DEVICE", "cpu",
        "MODEL.WEIGHTS", "ldmseg://ldmseg_multitask_scenes64.safetensors",
        "MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS", "4",
    ]  # fmt: skip


def test_the_shipped_model_beats_the_fillings(arguments, tmp_path):
    at = arguments.index("--opts")
    page = tmp_path / "docs" / "page.md"
    more = ["--num-samples", "2", "--doc", str(page)]
    assert tool.main([*arguments[:at], *more, *arguments[at:]]) == 0
    pictures = [line for line in page.read_text().splitlines() if line.startswith("![")]
    assert len(pictures) == 3  # the plot, the panel, the calibration
    for line in pictures:
        assert (page.parent / line.split("(")[1].rstrip(")")).is_file()
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    found = {r["method"]: r for r in content["results"]}
    assert list(found) == ["no_hints", "nearest", "random_walker", "fixed", "x0:any"]
    for key in ("PQ", "dropped_PQ", "dropped_mIoU"):
        assert found["fixed"][key] > found["nearest"][key]
    assert found["fixed"]["given_ids"] > 80
    run = content["run"]
    assert run["pictures"] == 3 and run["sampler"]["NUM_INFERENCE_STEPS"] == 4
    assert run["thresholds"]["COUNT_THRESHOLD"] == 20
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "results.json", "results.md", "results.png", "panel_block.png",
        "calibration.json", "calibration.md", "calibration.png",
    }  # fmt: skip


@pytest.mark.parametrize(
    "changed,message",
    [
        (["--methods", "paste"], "unknown method 'paste'; allowed: fixed, noised, x0, repaint"),
        (["--drop", "50"], "--drop takes shares from 0 to 1"),
        (["--dataset", "nowhere"], "nowhere"),
        (["--config-file", "configs/scenes/autoencoder_scenes64.yaml"], "completes no masks"),
    ],
)
def test_mistakes_end_with_a_message(arguments, changed, message, caplog):
    at = arguments.index("--opts")
    weights = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "ldmseg://autoencoder_scenes64.safetensors"]
    opts = weights if "autoencoder" in changed[-1] else arguments[at + 1 :]
    with caplog.at_level(logging.ERROR):
        assert tool.main([*arguments[:at], *changed, "--opts", *opts]) == 1
    assert message in caplog.text
