"""Plans, what is not mixed, and a curve that changes nothing."""

import json

import pytest
import torch
from tiny import LDMSEG, TINY_OPTS

from ldmseg_d2.data import register_all
from ldmseg_d2.data.datasets.scenes import write_scenes
from ldmseg_d2.experiments import Budget, timed_training
from ldmseg_d2.experiments.step_hooks import CurveHook, read_curve
from ldmseg_d2.experiments.timed_training import Run, do_run, plan_iterations, run_config

CONFIG = f"configs/{LDMSEG}"


def plan(folder, text, each, monkeypatch, **changes):
    monkeypatch.setattr(timed_training, "calibrate", lambda _: [each - 0.1, each - 0.1, each + 0.2])
    wanted = {"share": 0.5, **changes}
    return plan_iterations(Run(folder, CONFIG, (), Budget.parse(text), **wanted))["iterations"]


def test_a_time_becomes_iterations_once(tmp_path, monkeypatch):
    assert plan(tmp_path / "a", "10s", 0.5, monkeypatch) == 10
    # The machine is slower now, but the schedule stays.
    assert plan(tmp_path / "a", "10s", 5.0, monkeypatch) == 10
    # The last stage gets what is left: 10 s - 7 s.
    assert plan(tmp_path / "b", "10s", 0.5, monkeypatch, spent=7.0) == 6
    assert plan(tmp_path / "c", "iters:9", None, monkeypatch) == 4
    with pytest.raises(ValueError, match="budget is '10 s' there, '11 s' was asked for"):
        plan(tmp_path / "a", "11s", 0.5, monkeypatch)
    with pytest.raises(ValueError, match="one iteration takes 6.00 s.*Give more time"):
        plan(tmp_path / "d", "10s", 6.0, monkeypatch)


def test_another_runs_folder_is_left_alone(tmp_path):
    def run(*opts):
        return Run(tmp_path / "r", CONFIG, ("SOLVER.STEPS", (3000,), *opts), Budget(iterations=10))

    cfg = run_config(run(), 10)
    assert (cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.CHECKPOINT_PERIOD) == (1, 100)
    assert cfg.SOLVER.STEPS == (5,)  # half of MAX_ITER, as before
    record = tmp_path / "r" / timed_training.RECORD
    record.parent.mkdir()
    record.write_text(json.dumps({"kept": 1}))
    # Done already: nothing is built, whatever it would be evaluated on.
    assert do_run(run("SEED", 3), evaluate=None) == {"kept": 1}
    assert do_run(run("SEED", 3, "TEST.MAX_IMAGES", 9), evaluate=None) == {"kept": 1}
    with pytest.raises(ValueError, match="SEED is 3 there, 4 was asked for"):
        do_run(run("SEED", 4), evaluate=None)


def test_a_curve_does_not_change_the_training(tmp_path, catalogs):
    """Evaluated in between, and interrupted at such a point: the same weights, all points."""
    write_scenes(tmp_path / "scenes", "train", num_images=4, size=64, seed=0)
    register_all(str(tmp_path))
    seen = []

    def evaluate(cfg, model):
        assert not model.training
        seen.append(torch.rand(()))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return {"mean": sum(float(p.mean()) for p in model.parameters())}

    finals = []
    for name in ("plain", "stop"):
        folder = tmp_path / name
        cfg = run_config(Run(folder, CONFIG, (*TINY_OPTS,), Budget(iterations=4)), 4)
        for _ in range(2):
            curve = CurveHook(folder / "curve.json", {1, 3}, evaluate) if name == "stop" else None
            try:
                trainer = timed_training.train(cfg, curve)
            except KeyboardInterrupt:
                continue
        finals.append(trainer.unwrapped_model.state_dict())
    assert finals[0].keys() == finals[1].keys()
    assert all(torch.equal(finals[0][key], finals[1][key]) for key in finals[0])
    assert set(read_curve(tmp_path / "stop" / "curve.json")) == {"1", "3"} and len(seen) == 3
