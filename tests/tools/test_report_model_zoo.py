"""The page of shipped models, from cards and measured results."""

import json
import math
import shutil
from pathlib import Path

import pytest
from load_tool import load_tool

from ldmseg_d2.engine.reporting import headlines, results_table

ROOT = Path(__file__).resolve().parents[2]
RESULTS = {
    "depth": {"AbsRel": 0.0625, "delta1": math.nan, "images": 3},
    "panoptic_seg": {"PQ": 61.04, "SQ": 80.0, "RQ": 75.0},
    "of_my_own": {"PQ": 3.0},
    "sem_seg": {"mIoU": 70.0, "IoU-box": 50.0},
    "panoptic_class_agnostic": {"PQ": 85.06},
}


@pytest.fixture
def tool(tmp_path, monkeypatch):
    module = load_tool("report_model_zoo")
    cards = tmp_path / "cards"
    shutil.copytree(module.CARDS, cards, ignore=shutil.ignore_patterns("*.safetensors"))
    monkeypatch.setattr(module, "CARDS", cards)
    return module


def test_headlines_have_one_order_and_mark_what_is_no_number():
    numbers = headlines(RESULTS)
    assert list(numbers.items()) == [
        ("PQ", "61.0"),
        ("SQ", "80.0"),
        ("RQ", "75.0"),
        ("PQ class-agnostic", "85.1"),
        ("mIoU", "70.0"),
        ("depth AbsRel", "0.062"),
        ("depth delta1", "-"),
    ]
    # Detectron2 gives {} for what it could not measure.
    assert headlines({"sem_seg": {}, "depth": None}) == {}
    table = results_table({"a_val": RESULTS, "b_val": {"sem_seg": {"mIoU": 5.0}}})
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()]
    assert rows[0] == ["", "a_val", "b_val"]
    assert ["mIoU", "70.0", "5.0"] in rows and ["PQ", "61.0", ""] in rows
    assert results_table({"a_val": {"of_my_own": {"PQ": 3.0}}}) == results_table({}) == ""


def test_one_model_is_measured_and_the_others_keep_their_results(tool, tmp_path, monkeypatch):
    page, name = tmp_path / "docs" / "page.md", "ldmseg_multitask_scenes64"
    before = {p.stem: p.read_text() for p in (tmp_path / "cards").glob("*.json")}
    asked = []
    monkeypatch.setattr(tool, "describe_settings", lambda config: "Test set of mine.")
    monkeypatch.setattr(
        tool, "evaluate", lambda card, opts: asked.append(opts[1]) or headlines(RESULTS)
    )
    tool.main(["--only", name, "--steps", "2", "7", "--output", str(page)])
    assert asked == [2, 7]
    after = {p.stem: p.read_text() for p in (tmp_path / "cards").glob("*.json")}
    assert [key for key in after if after[key] != before[key]] == [name]
    results = json.loads(after[name])["results"]
    assert results["rows"]["DDPM, 7"] == headlines(RESULTS)
    text = page.read_text()
    assert "| DDPM, 2 | 61.0 | 85.1 | 70.0 | 0.062 | - |" in text
    assert results["settings"] == "Test set of mine."
    assert all(f"## {key}\n" in text for key in before)
    # Without anything to measure, only the page is written, and it is the same.
    tool.main(["--only", "--output", str(page)])
    assert page.read_text() == text and asked == [2, 7]
    with pytest.raises(KeyError, match="no card of 'no_such_model'"):
        tool.main(["--only", "no_such_model"])


def test_the_page_is_what_the_cards_say(tool, tmp_path):
    tool.main(["--only", "--output", str(tmp_path / "page.md")])
    assert (tmp_path / "page.md").read_text() == (ROOT / "docs" / "MODEL_ZOO.md").read_text()
