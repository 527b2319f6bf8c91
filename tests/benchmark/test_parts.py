"""What the benchmark is made of: budgets, contenders, clocks, operations, limits. No training."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from tiny import JOINT, LDMSEG, tiny_batch, tiny_config

from ldmseg_d2.benchmark import Budget, Session, Settings, budget, costs, read_contenders, tables
from ldmseg_d2.benchmark.quality import LimitsEvaluator
from ldmseg_d2.benchmark.records import once
from ldmseg_d2.data import register_all
from ldmseg_d2.data.annotations import read_id_png
from ldmseg_d2.data.datasets.scenes import write_scenes
from ldmseg_d2.engine.analysis import analyze
from ldmseg_d2.evaluation import ClassAgnosticPanopticEvaluator
from ldmseg_d2.studies.curve import read_curve
from ldmseg_d2.studies.runs import Run

SINGLE, ALL = f"configs/{LDMSEG}", f"configs/{JOINT}"


@pytest.mark.parametrize(
    "text, seconds, iterations",
    [("90s", 90, 0), ("20m", 1200, 0), ("1.5h", 5400, 0), ("iters:7", None, 7)],
)
def test_budgets(text, seconds, iterations):
    assert Budget.parse(text) == Budget(seconds, iterations)


@pytest.mark.parametrize("text", ["20", "m", "0s", "iters:0", "iters 5", "-3m", "20 m"])
def test_budgets_that_are_none(text):
    with pytest.raises(ValueError, match="such as 90s, 20m or 1.5h.*iters:2000"):
        Budget.parse(text)


def make_plan(folder, text, each, monkeypatch, **changes):
    monkeypatch.setattr(budget, "calibrate", lambda _: [each - 0.1, each - 0.1, each + 0.2])
    wanted = {"share": 0.5, "spent_seconds": 0.0, **changes}
    return budget.plan(Run("r", SINGLE, 0), folder, budget=Budget.parse(text), **wanted)


def test_a_time_becomes_iterations_once(tmp_path, monkeypatch):
    assert make_plan(tmp_path / "a", "10s", 0.5, monkeypatch)["iterations"] == 10
    # The machine is slower now, but the schedule stays.
    assert make_plan(tmp_path / "a", "10s", 5.0, monkeypatch)["iterations"] == 10
    # The last stage gets what is left: 10 s - 7 s.
    left = make_plan(tmp_path / "b", "10s", 0.5, monkeypatch, spent_seconds=7.0)
    assert left["iterations"] == 6
    assert make_plan(tmp_path / "c", "iters:9", None, monkeypatch)["iterations"] == 4
    with pytest.raises(ValueError, match="--budget is '10 s' there, '11 s' was asked for"):
        make_plan(tmp_path / "a", "11s", 0.5, monkeypatch)
    with pytest.raises(ValueError, match="one iteration takes 6.00 s.*Give more time"):
        make_plan(tmp_path / "d", "10s", 6.0, monkeypatch)
    assert not (tmp_path / "d").exists()


def test_costs_are_of_the_models_at_hand(tmp_path):
    path, made = tmp_path / "costs.json", iter(range(9))

    def measure(models, **settings):
        return once(path, settings, lambda: next(made), models=models)

    assert measure("seed1/model.pth", SEED=1) == 0
    assert measure("seed1/model.pth", SEED=1) == 0
    # Another seed comes first now: its own costs, not an error, and not the other's.
    assert measure("seed0/model.pth", SEED=0) == 1
    assert measure("seed0/model.pth", SEED=0) == 1
    with pytest.raises(ValueError, match="rounds is None there, 5 was asked for"):
        measure("seed0/model.pth", SEED=0, rounds=5)


def test_a_curve_of_the_first_benchmarks_is_read(tmp_path):
    points = [{"iteration": 2, "results": {"a": 1}}, {"iteration": 10, "results": {"a": 2}}]
    (tmp_path / "curve.json").write_text(json.dumps(points))
    assert read_curve(tmp_path / "curve.json") == {"2": {"a": 1}, "10": {"a": 2}}


def test_contenders():
    single, multi = read_contenders(
        [SINGLE, ALL], opts=["BENCHMARK.STEPS", [4, 1]], model_opts={"LDMSeg": ["SEED", 3]}
    )
    assert single.steps == (1, 4, 20) and single.own_steps == 20 and single.opts[-1] == 3
    assert [stage.name for stage in multi.stages] == [f"{multi.folder}.stage{i}" for i in (1, 2)]
    assert multi.stages[1].key == "MODEL.LDMSEG.DEPTH.AUTOENCODER.WEIGHTS"
    assert multi.title(1) == "LDMSeg, all tasks, 1 step"
    (other,) = read_contenders([SINGLE], dataset="scenes128")
    assert other.opts[:4] == (
        *("DATASETS.TRAIN", ("scenes128_train",)),
        *("DATASETS.TEST", ("scenes128_val",)),
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"config_files": ["configs/no.yaml"]}, "no config file 'configs/no.yaml'"),
        ({"config_files": [SINGLE, SINGLE]}, "different names.*BENCHMARK.NAME"),
        ({"weights": {"Nobody": "x.pth"}}, "--weights names Nobody.*none of the models LDMSeg"),
        ({"weights": {SINGLE: "no.pth"}}, "--weights LDMSeg=no.pth: there is no such file"),
        ({"model_opts": {"Nobody": ["SEED", 1]}}, "--model-opts names Nobody"),
        ({"opts": ["BENCHMARK.FIRST_STAGE_SHARE", 1.0]}, "sum below 1"),
        (
            {
                "config_files": [SINGLE, ALL],
                "model_opts": {ALL: ["DATASETS.TRAIN", ("scenes128_train",)]},
            },
            "learn from the same data.*--dataset",
        ),
        (
            {
                "config_files": [SINGLE, ALL],
                "model_opts": {ALL: ["DATASETS.TEST", ("scenes128_val",)]},
            },
            "evaluated on the same one data set",
        ),
    ],
)
def test_what_cannot_be_compared(arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_contenders(**{"config_files": [SINGLE], **arguments})


def test_missing_data_is_named_with_its_remedy(tmp_path, catalogs):
    register_all(str(tmp_path), overwrite=True)
    settings = Settings(output=tmp_path, budget=Budget(iterations=1))
    with pytest.raises(FileNotFoundError, match="prepare_dataset.py scenes"):
        Session(read_contenders([SINGLE]), settings)


def test_models_are_timed_in_turn():
    now, log = [0.0], []

    def call(name, seconds):
        def run(number):
            log.append((name, number))
            # The machine becomes slower and slower.
            now[0] += seconds * (1 + now[0])

        return run

    calls = {"A": call("A", 1.0), "B": call("B", 2.0), "C": call("C", 1.0)}
    seconds = costs.interleave(calls, rounds=3, warm_up=2, clock=lambda: (now[0], 10 * now[0]))
    assert [name for name, _ in log] == ["A", "B", "C"] * 5
    assert [number for _, number in log[6:]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for name in calls:
        assert len(seconds[name]) == 3
        walls = [wall for wall, _ in seconds[name]]
        assert all(b > a for a, b in pairwise(walls))
        assert all(cpu == pytest.approx(10 * wall) for wall, cpu in seconds[name])
    assert all(b[0] > a[0] for a, b in zip(seconds["A"], seconds["B"], strict=True))
    found = costs.summarize([(0.001 * k, 0.002 * k) for k in range(1, 12)])
    assert found == pytest.approx(
        {"median_ms": 6.0, "p90_ms": 10.0, "cpu_median_ms": 12.0, "rounds": 11}
    )


def test_throughput_stops_where_it_no_longer_rises():
    now = [0.0]

    def call(size):
        # 1 s of overhead; from 4 pictures on every picture costs as much as the overhead saves.
        now[0] += 1 + 0.1 * size if size <= 4 else 0.4 * size

    found = costs.best_throughput(call, clock=lambda: (now[0], now[0]))
    expected = {size: size / (1 + 0.1 * size) for size in (1, 2, 4)}
    assert found == pytest.approx({**expected, 8: 2.5})
    assert set(costs.best_throughput(call, clock=lambda: (now[0],), largest=2)) == {1, 2}


def test_operations_are_those_of_the_analysis():
    """It counts the networks; a real picture also has the product of bits and all ids' codes."""
    cfg = tiny_config(LDMSEG, "MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS", 2)
    model = build_model(cfg).eval()
    (inputs,) = tiny_batch(1, annotated=False)
    expected = analyze(cfg)["flops"]
    codes = 2 * 7 * 127 * 64 * 64
    for steps in (1, 2, 5):
        model.num_inference_steps = steps
        networks = expected["inference"] + (steps - 2) * expected["step"]
        assert costs.picture_flops(model, inputs) == networks + codes
    total, trained = costs.count_parameters(model)
    assert total > trained == sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.fixture
def scenes(tmp_path, catalogs):
    write_scenes(tmp_path / "scenes", "val", num_images=4, size=64, seed=0)
    register_all(str(tmp_path), overwrite=True)
    return DatasetCatalog.get("scenes_val")


def damaged(record, rng):
    """The truth, shifted, with one segment cut in two and one gone."""
    ids = read_id_png(record["pan_seg_file_name"]).astype(np.int32)
    ids = np.roll(ids, 3, axis=1)
    labels = np.unique(ids[ids > 0])
    ids[ids == rng.choice(labels)] = 0
    cut = ids == rng.choice(labels)
    cut[:, : ids.shape[1] // 2] = False
    ids[cut] = labels.max() + 1
    return torch.from_numpy(ids)


def test_limits_agree_with_panopticapi(scenes):
    rng = np.random.default_rng(0)
    theirs, ours = ClassAgnosticPanopticEvaluator("scenes_val"), LimitsEvaluator("scenes_val")
    for record in scenes:
        ids = damaged(record, rng)
        segments = [
            {"id": s["id"], "category_id": s["category_id"]} for s in record["segments_info"]
        ]
        segments.append({"id": int(ids.max()), "category_id": 0})
        for evaluator in (theirs, ours):
            entry = {"image_id": record["image_id"]}
            evaluator.process([entry], [{"panoptic_seg": (ids, segments)}])
    expected = theirs.evaluate()["panoptic_class_agnostic"]
    limits = ours.evaluate()["limits"]
    tp, fp, fn = (expected[key] for key in ("TP", "FP", "FN"))
    assert tp > 5 and fp > 2 and fn > 2
    assert limits["SQ"] == pytest.approx(expected["SQ"])
    assert limits["missed"] == pytest.approx(100 * fn / (tp + fn))
    assert limits["invented"] == pytest.approx(100 * fp / (tp + fp))
    assert 50 < limits["class"] <= 100
    # The sizes together are all of it.
    whole = LimitsEvaluator("scenes_val")
    whole._counted = ours._counted
    whole.edges = [1e9, 1e9]
    assert whole.evaluate()["limits"]["PQ_small"] == pytest.approx(expected["PQ"])
    low, high = limits["edges"]
    areas = [s["area"] for record in scenes for s in record["segments_info"]]
    assert np.quantile(areas, [1 / 3, 2 / 3]) == pytest.approx([low, high])
    assert limits["PQ_small"] < limits["PQ_large"]  # a shift costs small segments most


def test_nothing_predicted_has_no_limits(scenes):
    evaluator = LimitsEvaluator("scenes_val")
    evaluator.process([{"image_id": scenes[0]["image_id"]}], [{"sem_seg": torch.zeros(2, 64, 64)}])
    assert evaluator.evaluate() == {}


def model_record(name, pq, *, steps=0, ceiling=None):
    agnostic = {"PQ": pq, "SQ": 80.0, "RQ": pq / 0.8}
    limits = {"PQ_small": 1.0, "PQ_medium": 2.0, "PQ_large": 3.0, "missed": 30.0, "invented": 9.0}
    results = {"panoptic_class_agnostic": agnostic, "limits": {**limits, "edges": [10.0, 20.0]}}
    stages = [] if ceiling is None else [{"results": {"reconstruction": {"PQ": ceiling}}}]
    stages.append({"results": {}})
    training = {"seconds": 60.0, "stages": [{**s, "iterations": 5} for s in stages]}
    latency = {"median_ms": 5.0, "p90_ms": 6.0, "cpu_median_ms": 4.0, "relative": 1.0}
    row = {"title": name, "steps": steps, "own": True, "gflops": 1.5, "latency": latency}
    return {
        "name": name, "parameters": 2_000_000, "memory": None, "throughput": {"1": 3.0, "2": 5.0},
        "trainings": [training], "rows": [{**row, "results": [results, {**results}]}],
    }  # fmt: skip


def test_tables_say_what_was_measured():
    models = [model_record("Ours", 40.0, steps=3, ceiling=90.0), model_record("Other", 60.0)]
    lines = tables.quality_table(models).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        "Ours", *["-"] * 5, "40.0 ± 0.0", "-", "2.00", "1.0", "5 + 5",
    ]  # fmt: skip
    assert "5.0 (batch 2)" in tables.speed_table(models)
    lines = tables.limits_table(models).splitlines()
    assert lines[2].split("|")[2].strip() == "90.0" and lines[3].split("|")[2].strip() == "-"
    first, second = tables.findings(models)
    assert "missed or invented (RQ 50.0, SQ 80.0; 30 %" in first
    assert "allows PQ 90.0, of which it reaches 40.0" in first and "allows" not in second
    assert json.dumps(models)


def test_several_seeds_stand_in_a_table_of_their_own():
    model = model_record("Ours", 40.0, ceiling=90.0)
    row, (training,) = model["rows"][0], model["trainings"]
    second = {"panoptic_class_agnostic": {"PQ": 50.0}, "sem_seg": {"mIoU": 7.0}}
    model["rows"] = [{**row, "own": False}, {**row, "results": [row["results"][0], second]}]
    stages = [{**stage, "iterations": 9} for stage in training["stages"]]
    model["trainings"] = [
        {**training, "seed": 0},
        {**training, "seed": 3, "stages": stages, "seconds": 90.0},
    ]
    given = {**model_record("Given", 60.0), "trainings": [{"seed": 0, "stages": []}]}
    given["rows"][0]["results"] = given["rows"][0]["results"][:1]
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in tables.seeds_table([model, given]).splitlines()[2:]
    ]
    assert cells == [
        ["Ours", "0", *["-"] * 5, "40.0", "-", "1.0", "5 + 5"],
        ["Ours", "3", *["-"] * 5, "50.0", "7.0", "1.5", "9 + 9"],
        ["Given", "0", *["-"] * 5, "60.0", "-", "-", "-"],
    ]
    assert tables.seeds_table([given]) == ""
