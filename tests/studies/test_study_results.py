"""What a study makes of its runs: settings, differences, pages. No training here."""

import json

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from tiny import AUTOENCODER, tiny_config

from ldmseg_d2.data import build_test_loader, register_all
from ldmseg_d2.data.annotations import read_id_png
from ldmseg_d2.data.datasets.scenes import write_scenes
from ldmseg_d2.engine import load_config
from ldmseg_d2.studies import capacity, mean_and_spread, runs, tasks, write_section
from ldmseg_d2.studies.report import describe_conditions, picture_path
from ldmseg_d2.studies.runs import Run, do_run

CONFIG = "configs/scenes/ldmseg_separate_tasks_scenes64.yaml"


def record(minutes=1.0, **metrics):
    """A record as do_run gives it, with `task.metric` results."""
    results: dict = {}
    for name, value in metrics.items():
        task, metric = name.rsplit("_", 1)
        results.setdefault(task, {})[metric] = value
    return {
        "iterations": 10, "batch": 8, "precision": "bfloat16", "seed": 0, "device": "CPU",
        "threads": 1, "torch": "2", "commit": "abc", "clock": "CPU time",
        "training_minutes": minutes, "sampler": "DDPM", "steps": 5, "thresholds": "X 1",
        "results": results,
    }  # fmt: skip


def task_records():
    both = {"panoptic_seg_PQ": 30.0, "panoptic_class_agnostic_PQ": 36.0, "sem_seg_mIoU": 40.0}
    joint = {**both, "panoptic_class_agnostic_PQ": 50.0, "sem_seg_mIoU": 39.0}
    return {
        tasks.Row("I", "separate"): [record(panoptic_class_agnostic_PQ=40.0)],
        tasks.Row("S", "separate"): [record(sem_seg_mIoU=60.0)],
        tasks.Row("D", "separate"): [record(depth_AbsRel=0.1)],
        tasks.Row("IS", "separate"): [record(**both)],
        tasks.Row("IS", "joint", equal_time=True): [record(**joint)],
    }


def test_rows_of_the_study():
    names = [row.name for row in tasks.table_rows(["separate", "joint"])]
    assert names == [
        "separate_I", "separate_S", "separate_D",
        "separate_IS", "joint_IS", "joint_IS_equal_time",
        "separate_ISD", "joint_ISD", "joint_ISD_equal_time",
    ]  # fmt: skip
    # There is nothing to be equal to.
    assert [row.name for row in tasks.table_rows(["joint"])][3:] == ["joint_IS", "joint_ISD"]


@pytest.mark.parametrize("row", tasks.table_rows(tasks.MODES), ids=lambda row: row.name)
def test_each_row_is_a_model_that_can_be_built(row):
    cfg = load_config(CONFIG, tasks.row_opts(row), freeze=False)
    small = tiny_config("scenes/ldmseg_separate_tasks_scenes64.yaml")
    cfg.MODEL.LDMSEG.AUTOENCODER = small.MODEL.LDMSEG.AUTOENCODER
    cfg.MODEL.LDMSEG.DEPTH.AUTOENCODER.WEIGHTS = ""
    for key in ("BLOCK_OUT_CHANNELS", "ATTENTION_HEAD_DIM", "NORM_NUM_GROUPS"):
        cfg.MODEL.LDMSEG.DENOISER[key] = small.MODEL.LDMSEG.DENOISER[key]
    cfg.MODEL.LDMSEG.NUM_CLASSES, cfg.MODEL.LDMSEG.THING_CLASSES = 3, [0]
    model = build_model(cfg)
    assert [task.name for task in model.tasks] == [tasks.LETTERS[letter] for letter in row.tasks]
    joint_channels = len(row.tasks) if row.mode == "joint" else 1
    assert model.latent_shape[0] == 16 * joint_channels
    assert not any("known" in name for name, _ in model.named_parameters())


def test_differences_are_to_the_single_task():
    rows = task_records()
    lines = {line.split("|")[1].strip(): line for line in tasks.table(rows).splitlines()}
    assert "36.0 (-4.0)" in lines["{I, S} separate"] and "40.0 (-20.0)" in lines["{I, S} separate"]
    # PQ with classes has no single task; 5 steps for each of two tasks, or for both.
    assert "| 30.0 " in lines["{I, S} separate"] and "| 10 " in lines["{I, S} separate"]
    assert "50.0 (+10.0)" in lines["{I, S} joint, equal time"]
    assert lines["{D}"].count("| - ") == 3 and "0.100" in lines["{D}"]
    (finding,) = tasks.findings(rows)
    assert "joint is ahead in PQ, class-agnostic (36.0 to 50.0)" in finding
    assert "separate is ahead in mIoU (40.0 to 39.0)" in finding
    assert "neither is ahead in PQ (30.0 to 30.0)" in finding


def test_several_seeds_have_a_spread(tmp_path):
    rows = task_records()
    rows[tasks.Row("I", "separate")].append(record(panoptic_class_agnostic_PQ=44.0))
    assert "42.0 ± 2.0" in tasks.table(rows)
    assert "36.0 (-6.0)" in tasks.table(rows)
    tasks.plot(rows, tmp_path / "a.png", caption="two seeds")
    assert (tmp_path / "a.png").stat().st_size > 5000
    assert mean_and_spread([1.0, None, 3.0], 0) == "2 ± 1"


def test_a_tool_rewrites_its_own_section_only(tmp_path):
    page = tmp_path / "docs" / "S.md"
    write_section(page, "one", ["first"])
    write_section(page, "two", ["second"])
    text = page.read_text()
    page.write_text(text.replace("# Studies", "# Studies, with a word by hand"))
    write_section(page, "one", ["new", "lines"])
    text = page.read_text()
    assert "first" not in text and "new\nlines" in text and "second" in text and "by hand" in text
    write_section(page, "one", ["new", "lines"])
    assert page.read_text() == text
    page.write_text(text.replace("<!-- /one -->", ""))
    with pytest.raises(ValueError, match="needs the lines"):
        write_section(page, "one", [])
    assert picture_path(page, "one") == tmp_path / "docs" / "images" / "one.png"


def test_conditions_are_all_named():
    line = " ".join(describe_conditions([record(), {**record(), "seed": 1}], num_images=7))
    for text in ("batch 8", "bfloat16", "seed 0 / 1", "CPU with 1", "abc", "7 pictures", "5 steps"):
        assert text in line


def test_another_runs_folder_is_left_alone(tmp_path):
    run = Run("r", CONFIG, 10, ("SEED", 3))
    folder = tmp_path / "r"
    cfg = runs.run_config(run, folder)
    assert cfg.SOLVER.WARMUP_ITERS == 1 and cfg.SOLVER.CHECKPOINT_PERIOD == 100
    folder.mkdir()
    (folder / runs.CONFIG).write_text(cfg.dump())
    (folder / runs.RECORD).write_text(json.dumps({"kept": 1}))
    # Done already: nothing is built.
    assert do_run(run, tmp_path, evaluate=None) == {"kept": 1}
    with pytest.raises(ValueError, match="SEED is 3 there, 4 was asked for"):
        do_run(Run("r", CONFIG, 10, ("SEED", 4)), tmp_path, evaluate=None)
    assert json.loads((folder / runs.RECORD).read_text()) == {"kept": 1}

    # A folder from before a key existed goes on with the key's default, and with nothing else.
    cfg.defrost()
    cfg.MODEL.LDMSEG.POSTPROCESS.pop("REGION_AREA")
    cfg.DATALOADER.pop("CACHE_GB")
    (folder / runs.CONFIG).write_text(cfg.dump())
    assert do_run(run, tmp_path, evaluate=None) == {"kept": 1}
    newer = Run("r", CONFIG, 10, ("SEED", 3, "MODEL.LDMSEG.POSTPROCESS.REGION_AREA", 9))
    with pytest.raises(ValueError, match="REGION_AREA is -1 there, 9 was asked for"):
        do_run(newer, tmp_path, evaluate=None)


@pytest.fixture
def mosaics(tmp_path, catalogs):
    capacity.prepare_mosaics(tmp_path, size=64, num_train=2, num_a_bin=1, seed=0)
    return DatasetCatalog.get(capacity.VAL)


def test_bins_count_their_own_pictures(mosaics):
    evaluator = capacity.BinnedEvaluator(capacity.VAL)
    assert sorted(capacity.bin_index(n) for n in evaluator.counts.values()) == list(range(7))
    entries = [{"image_id": record["image_id"]} for record in mosaics]
    truth = [
        torch.from_numpy(read_id_png(r["pan_seg_file_name"]).astype(np.int32)) for r in mosaics
    ]
    # The truth itself, but in the last bin half of the segments are missing.
    for ids in truth:
        if int(ids.max()) > 127:
            ids[ids > int(ids.max()) // 2] = 0
    evaluator.process(entries, [{"panoptic_seg": (ids, [])} for ids in truth])
    results = evaluator.evaluate()
    assert [results[label]["PQ"] for label in capacity.LABELS[:-1]] == [100.0] * 6
    last = results[capacity.LABELS[-1]]
    count = max(evaluator.counts.values())
    assert last["TP"] == count // 2 and last["FN"] == count - count // 2 and last["FP"] == 0
    assert last["PQ"] == pytest.approx(100 * last["TP"] / (last["TP"] + last["FN"] / 2))
    evaluator.reset()
    with pytest.raises(ValueError, match="300 segments"):
        capacity.bin_index(300)


def test_segments_above_the_limit_are_lost():
    lost = capacity.lost_share([100, 130, 254], 7)
    assert lost["65-127"] == 0 and lost["128-255"] == pytest.approx(100 * (3 + 127) / 384)
    assert set(capacity.lost_share([255], 8).values()) == {0.0}


def curve(*values):
    return {
        label: {"PQ": value, "lost": 0.0}
        for label, value in zip(capacity.LABELS, values, strict=True)
    }


def test_where_it_breaks(tmp_path):
    # Fewer than nine tenths of the best, after it.
    broken = curve(60, 80, 90, 82, 80.9, 50, 10)
    assert capacity.breaking_bin(broken) == "33-64"
    assert capacity.breaking_bin(curve(*range(7))) is None
    curves = {(stage, bits, "random"): broken for stage in capacity.STAGES for bits in (8, 7)}
    rows = capacity.table(curves).splitlines()
    assert [row.split("|")[2].strip() for row in rows[2:]] == ["7", "8", "7", "8", "7", "8"]
    assert rows[2].endswith("| 33-64       |")
    untaught = capacity.table({("full model", 7, "random"): curve(18, 2, 1, 1, 1, 1, 1)})
    assert "not trained enough to say" in untaught
    capacity.plot(curves, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_random_ids_are_those_of_the_autoencoder(mosaics):
    """The study's reconstruction is the META_ARCH's, and ordered ids are another one."""
    cfg = tiny_config(AUTOENCODER, "DATALOADER.NUM_WORKERS", 0, "TEST.IMS_PER_BATCH", 3)
    cfg.MODEL.LDMSEG.POSTPROCESS.MIN_SEGMENT_SCORE = 0.0
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    entries = next(iter(build_test_loader(cfg, capacity.VAL)))
    with torch.no_grad():
        expected = model(entries)
    results = {a: capacity.reconstruct(model, entries, a) for a in capacity.ASSIGNMENTS}
    maps = {a: [one["panoptic_seg"][0] for one in found] for a, found in results.items()}
    for one, other in zip(maps["random"], expected, strict=True):
        assert torch.equal(one, other["panoptic_seg"][0])
    assert any((a != b).any() for a, b in zip(maps["random"], maps["ordered"], strict=True))


@pytest.mark.parametrize("cache_gb, most, filling", [(0.0, 100, 0), (0.1, 100, 3), (0.1, 2, 2)])
def test_calibration_leaves_out_what_fills_the_cache(
    tmp_path, catalogs, monkeypatch, cache_gb, most, filling
):
    """5 pictures, batches of 2: each has been read once after three iterations."""
    write_scenes(tmp_path / "scenes", "train", num_images=5, size=64, seed=0)
    write_scenes(tmp_path / "scenes", "val", num_images=1, size=64, seed=0)
    register_all(str(tmp_path), overwrite=True)
    trained = []
    monkeypatch.setattr(runs, "MOST_TO_FILL_THE_CACHE", most)
    monkeypatch.setattr(runs, "train", trained.append)
    monkeypatch.setattr(runs, "read_seconds", lambda cfg: list(range(cfg.SOLVER.MAX_ITER)))
    opts = ("DATALOADER.CACHE_GB", cache_gb, "SOLVER.IMS_PER_BATCH", 2, "MODEL.DEVICE", "cpu")
    found = runs.calibrate(Run("one", "configs/scenes/autoencoder_scenes64.yaml", 7, opts))
    first = runs.CALIBRATION_WARMUP + filling
    assert found == list(range(first, first + runs.CALIBRATION))
    assert [cfg.SOLVER.MAX_ITER for cfg in trained] == [first + runs.CALIBRATION]
