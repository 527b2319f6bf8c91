"""The command line of inpainting's evaluation, with the shipped model on generated scenes."""

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

OPTS = [
    "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "ldmseg://ldmseg_multitask_scenes64.safetensors",
    "MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS", "4",
]  # fmt: skip


@pytest.fixture
def arguments(tmp_path, catalogs):
    write_scenes(tmp_path / "tiny_scenes", "val", num_images=3, seed=1234)
    register_scenes(str(tmp_path), name="tiny_scenes")
    config = "configs/scenes/ldmseg_multitask_scenes64.yaml"
    more = ["--output", str(tmp_path / "out"), "--drop", "0.5", "--num-samples", "2"]
    return ["--config-file", config, "--dataset", "tiny_scenes_val", *more]


def test_the_shipped_model_beats_the_fillings(arguments, tmp_path):
    page = tmp_path / "docs" / "page.md"
    assert tool.main([*arguments, "--doc", str(page), "--opts", *OPTS]) == 0
    pictures = [line for line in page.read_text().splitlines() if line.startswith("![")]
    assert len(pictures) == 2  # the plot, the panel
    for line in pictures:
        assert (page.parent / line.split("(")[1].rstrip(")")).stat().st_size > 1000
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    found = {r["method"]: r for r in content["results"]}
    for key in ("PQ", "dropped_PQ", "dropped_mIoU"):
        assert found["model"][key] > found["nearest"][key]
    assert found["model"]["given_ids"] > 80
    assert sum(one["pixels"] for one in content["draws"]["bins"]) == pytest.approx(1)
    text = (tmp_path / "out" / "results.md").read_text()
    assert "| nearest neighbour " in text and "3 pictures of tiny_scenes_val" in text


@pytest.mark.parametrize(
    "changed,message",
    [
        (["--drop", "50"], "share to drop is 50"),
        (["--dataset", "nowhere"], "nowhere"),
        (["--config-file", "configs/scenes/autoencoder_scenes64.yaml"], "completes no masks"),
    ],
)
def test_mistakes_end_with_a_message(arguments, changed, message, caplog):
    with caplog.at_level(logging.ERROR):
        assert tool.main([*arguments, *changed, "--opts", *OPTS]) == 1
    assert message in caplog.text
