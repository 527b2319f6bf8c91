"""One training of an experiment: it can be interrupted at any moment, and is done only once."""

import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase, hooks
from detectron2.utils.env import seed_all_rng

from ldmseg_d2.engine import Trainer, load_config
from ldmseg_d2.engine.reporting import write_results

from .budget import Budget
from .records import as_json, check_same, commit, flat_settings
from .step_hooks import CurveHook, Evaluate, StepTimer, read_curve

logger = logging.getLogger(__name__)

PLAN, CONFIG, RECORD = "plan.json", "config.json", "record.json"
CURVE, TIMES = "curve.json", "seconds.json"
# Iterations between checkpoints: a share of the run, which an interruption costs, or more.
CHECKPOINT_SHARE, LEAST_CHECKPOINT_PERIOD = 1 / 3, 100
# Iterations that measure how long one takes; the first ones, which are slower, are left out.
CALIBRATION, CALIBRATION_WARMUP = 20, 5


@dataclass(frozen=True)
class Run:
    """A training, and its `share` of the budget of the whole model.

    Attributes:
        spent: seconds that the stages before it took, for a model's last stage, which gets what
            they left of the time; 0: it gets its share.
    """

    folder: Path
    config_file: str
    opts: tuple[Any, ...]
    budget: Budget
    share: float = 1.0
    spent: float = 0.0


def do_run(run: Run, *, evaluate: Evaluate, points: int = 1) -> dict[str, Any]:
    """Train and evaluate, or continue, or read what was done before.

    Args:
        run: what to train.
        evaluate: called with the config and the averaged model in eval mode.
        points: of the learning curve, evenly spread, the last one at the end.

    Returns:
        The settings, and ``weights``, ``seconds`` of all iterations, ``curve`` (finished iterations
        to results) and ``results``, those of its end.

    Raises:
        ValueError: the folder holds a training with other settings.
    """
    planned = plan_iterations(run)
    iterations = planned["iterations"]
    cfg = run_config(run, iterations)
    settings_path, record_path = run.folder / CONFIG, run.folder / RECORD
    # Another evaluation is no other training.
    settings = {k: v for k, v in flat_settings(cfg).items() if not k.startswith("TEST.")}
    if settings_path.is_file():
        check_same(json.loads(settings_path.read_text()), settings, run.folder)
    else:
        run.folder.mkdir(parents=True, exist_ok=True)
        settings_path.write_text(json.dumps(settings))
    if not record_path.is_file():
        logger.info("Training %s: %d iterations", run.folder, iterations)
        at = {round(iterations * k / points) for k in range(1, points)} - {0, iterations}
        trainer = train(cfg, CurveHook(run.folder / CURVE, at, evaluate))
        results = evaluate(cfg, trainer.evaluation_model.eval())
        # Also turns what is not finite into null.
        write_results(record_path, _record(run, cfg, planned, results))
        # Of no use once the last one is there.
        for path in run.folder.glob("model_[0-9]*.pth"):
            path.unlink()
    return json.loads(record_path.read_text())


def plan_iterations(run: Run) -> dict[str, Any]:
    """Fix a training's number of iterations, or read what was fixed before: schedules need it.

    Raises ValueError where the time is too short for one, or another budget was planned before.
    """
    path, share = run.folder / PLAN, round(run.share, 6)
    settings = {"budget": str(run.budget), "share": share}
    if path.is_file():
        planned = json.loads(path.read_text())
        check_same({key: planned.get(key) for key in settings}, settings, path)
        return planned
    planned = {**settings, "iterations": max(round(share * run.budget.iterations), 1)}
    if run.budget.seconds:
        available = run.budget.seconds - run.spent if run.spent else share * run.budget.seconds
        # Not their median: what the training is charged with are all its iterations.
        each = fmean(calibrate(run))
        planned.update(iterations=int(available / each), planned_seconds_per_iteration=each)
        if planned["iterations"] < 1:
            raise ValueError(
                f"--budget {run.budget}: {run.config_file} has {available:.2f} s of it, but one "
                f"iteration takes {each:.2f} s here. Give more time, or make SOLVER.IMS_PER_BATCH "
                "smaller"
            )
    write_results(path, planned)
    return planned


def calibrate(run: Run) -> Sequence[float]:
    """Seconds of iterations of a run, by a short training of its own that leaves no trace."""
    with tempfile.TemporaryDirectory(prefix="ldmseg_calibration_") as name:
        folder = Path(name)
        cfg = run_config(run, CALIBRATION_WARMUP + CALIBRATION, folder=folder)
        train(cfg)
        return json.loads((folder / TIMES).read_text())[CALIBRATION_WARMUP:]


def run_config(run: Run, iterations: int, *, folder: Path | None = None) -> CfgNode:
    """The run's config, with checkpoints and without evaluation and pictures in between."""
    quiet = ("VIS_PERIOD", 0, "DATALOADER.NUM_WORKERS", 0, "TEST.EVAL_PERIOD", 0)
    cfg = load_config(run.config_file, [*quiet, *run.opts], freeze=False)
    solver = cfg.SOLVER
    # Steps of the learning rate stay at the same shares of a training of another length, and a
    # warm-up longer than a tenth of it would be most of a short one.
    factor = iterations / solver.MAX_ITER
    solver.STEPS = tuple(max(round(step * factor), 1) for step in solver.STEPS)
    solver.WARMUP_ITERS = min(solver.WARMUP_ITERS, iterations // 10)
    solver.MAX_ITER = iterations
    solver.CHECKPOINT_PERIOD = max(round(CHECKPOINT_SHARE * iterations), LEAST_CHECKPOINT_PERIOD)
    cfg.OUTPUT_DIR = str(folder or run.folder)
    cfg.freeze()
    return cfg


class TimedTrainer(Trainer):
    """The trainer whose iterations are timed; with a curve instead of the usual evaluation."""

    def __init__(self, cfg: CfgNode, curve: CurveHook | None = None) -> None:
        self._curve = curve
        super().__init__(cfg)

    def build_hooks(self) -> list[HookBase]:
        """The timer comes first, so that it counts no hook's time, but for the curve's."""
        timer = StepTimer(Path(self.cfg.OUTPUT_DIR, TIMES), self.cfg.MODEL.DEVICE)
        kept = [hook for hook in super().build_hooks() if not isinstance(hook, hooks.EvalHook)]
        return [*([self._curve] if self._curve else []), timer, *kept]


def train(cfg: CfgNode, curve: CurveHook | None = None) -> TimedTrainer:
    """Train, or continue to train, in ``OUTPUT_DIR``; returns the trainer with what it trained."""
    seed_all_rng(cfg.SEED)
    trainer = TimedTrainer(cfg, curve)
    trainer.resume_or_load(resume=True)
    if trainer.start_iter < trainer.max_iter:
        trainer.train()
    return trainer


def _record(
    run: Run, cfg: CfgNode, planned: dict[str, Any], results: dict[str, Any]
) -> dict[str, Any]:
    # Their mean: an interrupted training has done some iterations twice.
    each = fmean(json.loads((run.folder / TIMES).read_text()))
    amp = cfg.SOLVER.AMP
    return {
        "name": run.folder.name,
        "config_file": run.config_file,
        "overrides": as_json(run.opts),
        "plan": planned,
        "iterations": planned["iterations"],
        "batch": cfg.SOLVER.IMS_PER_BATCH,
        "precision": amp.PRECISION if amp.ENABLED else "float32",
        "seed": cfg.SEED,
        "commit": commit(),
        "weights": str(run.folder / "model_final.pth"),
        "seconds": each * planned["iterations"],
        "started_from": cfg.MODEL.WEIGHTS,
        "curve": {**read_curve(run.folder / CURVE), str(planned["iterations"]): results},
        "results": results,
    }
