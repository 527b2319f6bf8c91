"""Budgets, plans, and what is not mixed."""

import json

import pytest
from tiny import LDMSEG

from ldmseg_d2.experiments import Budget, timed_training
from ldmseg_d2.experiments.timed_training import Run, do_run, plan_iterations, run_config

CONFIG = f"configs/{LDMSEG}"


def test_budgets():
    assert [Budget.parse(text).seconds for text in ("90s", "20m", "1.5h")] == [90, 1200, 5400]
    assert Budget.parse("iters:7") == Budget(None, 7)


@pytest.mark.parametrize("text", ["20", "m", "0s", "iters:0", "iters 5", "-3m", "20 m"])
def test_budgets_that_are_none(text):
    with pytest.raises(ValueError, match="such as 90s, 20m or 1.5h.*iters:2000"):
        Budget.parse(text)


def test_a_time_becomes_iterations(tmp_path, monkeypatch):
    def plan(text, each, **changes):
        times = [9.0] * timed_training.CALIBRATION_WARMUP + [each - 0.1, each - 0.1, each + 0.2]
        monkeypatch.setattr(timed_training, "train", lambda cfg: times)
        wanted = {"share": 0.5, **changes}
        return plan_iterations(Run(tmp_path, CONFIG, (), Budget.parse(text), **wanted))

    assert plan("10s", 0.5) == 10
    # The last stage gets what is left: 10 s - 7 s.
    assert plan("10s", 0.5, spent=7.0) == 6
    assert plan("iters:9", 0.5) == 4
    with pytest.raises(ValueError, match="one iteration takes 6.00 s.*Give more time"):
        plan("10s", 6.0)


def test_another_runs_folder_is_left_alone(tmp_path):
    def run(*opts, iterations=10):
        opts = ("SOLVER.STEPS", (3000,), *opts)
        return Run(tmp_path / "r", CONFIG, opts, Budget(iterations=iterations))

    cfg = run_config(run(), 10)
    assert (cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.CHECKPOINT_PERIOD) == (1, 100)
    assert cfg.SOLVER.STEPS == (5,)  # half of MAX_ITER, as before
    record = tmp_path / "r" / timed_training.RECORD
    record.parent.mkdir()
    record.write_text(json.dumps({"kept": 1}))
    # Done already: nothing is built, whatever it would be evaluated on.
    assert do_run(run("SEED", 3)) == {"kept": 1}
    assert do_run(run("SEED", 3, "TEST.MAX_IMAGES", 9)) == {"kept": 1}
    with pytest.raises(ValueError, match="SEED is 3 there, 4 was asked for"):
        do_run(run("SEED", 4))
    with pytest.raises(ValueError, match="'10 iterations' there, '11 iterations' was asked for"):
        do_run(run("SEED", 3, iterations=11))
