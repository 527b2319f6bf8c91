"""What the tables and the page say, from made-up records."""

import pytest

from ldmseg_d2.experiments import Study, tables
from ldmseg_d2.experiments.pages import write_section
from ldmseg_d2.experiments.results_page import write_report
from ldmseg_d2.experiments.study_file import Row


def model(name, *pqs, steps=0, ceiling=None):
    """A record of a model with one result a seed."""
    results = [{"panoptic_class_agnostic": {"PQ": pq}, "counts": {"1-4": 7.0}} for pq in pqs]
    record = {"batch": 8, "precision": "float32", "started_from": "", "iterations": 5}
    first = {"reconstruction": {"PQ": ceiling}, "counts": {"5-8": 3.0}}
    stages = [{**record, "name": f"{name}.stage1", "seconds": 20.0, "results": first}]
    stages = [*stages * bool(ceiling), {**record, "name": name, "seconds": 40.0}]
    row = {"title": name, "steps": steps, "own": True, "gflops": 1.5, "latency_ms": 5.0}
    return {
        "name": name, "config_file": "c.yaml", "meta_architecture": "LDMSeg", "thresholds": "X 1",
        "parameters": 2_000_000, "memory": None, "rows": [{**row, "results": results}],
        "trainings": [{"seed": i, "stages": stages} for i in range(len(pqs))],
    }  # fmt: skip


def cells(table):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def test_tables_say_what_was_measured():
    models = [model("Ours", 40.0, 44.0, steps=3, ceiling=90.0), model("Other", 60.0)]
    header, _, *rows = cells(tables.model_table(models))
    # Nobody has classes: no column for them.
    assert header == [
        "model", "PQ class-agnostic", "its autoencoder's PQ", "parameters, M", "GFLOPs",
        "latency, ms", "training, minutes", "iterations",
    ]  # fmt: skip
    costs = ["2.00", "1.50", "5.0"]
    assert rows[0] == ["Ours", "42.0 ± 2.0", "90.0 ± 0.0", *costs, "1.0 ± 0.0", "5 + 5"]
    assert rows[1] == ["Other", "60.0", "-", *costs, "0.7", "5"]


def test_a_study_shows_the_base_again_where_nothing_changed():
    models = [model("base", 40.0, steps=4), model("ids random", 30.0, steps=4)]
    rows = [Row("base", "", "base"), Row("ids", "random", "ids random"), Row("ids", "own", "base")]
    header, _, *lines = cells(tables.study_table(rows, models))
    kept = [header.index(name) for name in ("value", "PQ class-agnostic, 4 steps", "difference")]
    assert [[line[i] for i in kept] for line in lines] == [
        ["", "40.0", "-"],
        ["random", "30.0", "-10.0"],
        ["own (= base)", "40.0", "-"],
    ]
    header, _, *lines = cells(tables.counts_table([model("base", 40.0, ceiling=90.0)]))
    assert header[2:] == ["1-4", "5-8"]
    assert [line[2:] for line in lines] == [["-", "3.0"], ["7.0", "-"]]


def test_a_tool_rewrites_its_own_section_only(tmp_path):
    page = tmp_path / "docs" / "S.md"
    found = {
        "models": [model("base", 40.0, steps=4)],
        "environment": {"device": "CPU", "threads": 1, "clock": "CPU time", "commit": "abc",
                        "torch": "2"},
        "settings": {"dataset": "d", "budget": "b", "images": 7, "seeds": [0], "rounds": 3},
    }  # fmt: skip
    study = Study("mine", (), (Row("base", "", "base"),))
    (tmp_path / "out").mkdir()
    write_section(page, "other", ["by hand"], header="# Studies")
    for _ in range(2):
        write_report(found, tmp_path / "out", command="python x", doc=str(page), study=study)
    text = page.read_text()
    assert text.count("<!-- out -->") == 1 and "by hand" in text and "## mine: d, b" in text
    assert "7 pictures of d" in text and "commit abc" in text.lower() and "python x" in text
    assert "![PQ against latency](images/out_pq_latency.png)" in text
    assert (page.parent / "images" / "out_pq_latency.png").stat().st_size > 5000
    page.write_text(text.replace("<!-- /out -->", ""))
    with pytest.raises(ValueError, match="needs the lines"):
        write_section(page, "out", [], header="")
