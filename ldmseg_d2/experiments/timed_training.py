"""One training of an experiment: it can be interrupted at any moment, and is done only once."""

import json
import logging
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase, hooks
from detectron2.utils.env import seed_all_rng

from ldmseg_d2.engine import Trainer, load_config
from ldmseg_d2.engine.reporting import write_results

from .records import as_json, check_same, environment, flat_settings

logger = logging.getLogger(__name__)

PLAN, TIMES, RECORD = "plan.json", "seconds.json", "record.json"
UNITS = {"s": 1, "m": 60, "h": 3600}
# Iterations between checkpoints: a share of the run, which an interruption costs, or more.
CHECKPOINT_SHARE, LEAST_CHECKPOINT_PERIOD = 1 / 3, 100
# Iterations that measure how long one takes; the first ones, which are slower, are left out.
CALIBRATION, CALIBRATION_WARMUP = 20, 5


@dataclass(frozen=True)
class Budget:
    """What a model's training may take, all its stages together.

    Seconds of its iterations, CPU time of the process on a CPU and wall time on a GPU; or, where
    they are None, a number of iterations.
    """

    seconds: float | None = None
    iterations: int = 0

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read "90s", "20m", "1.5h" or "iters:2000".

        Raises ValueError for anything else, and for 0.

        >>> Budget.parse("20m").seconds, Budget.parse("iters:2000").iterations
        (1200.0, 2000)
        """
        found = re.fullmatch(r"(\d+(?:\.\d*)?)([smh])|iters:(\d+)", text)
        if not found or not float(found[1] or found[3]):
            raise ValueError(
                f"--budget {text!r}: give a time above 0 such as 90s, 20m or 1.5h, or a number of "
                "iterations such as iters:2000"
            )
        if found[3]:
            return cls(iterations=int(found[3]))
        return cls(seconds=float(found[1]) * UNITS[found[2]])

    def __str__(self) -> str:
        return f"{self.seconds:g} s" if self.seconds else f"{self.iterations} iterations"


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


def do_run(run: Run) -> dict[str, Any]:
    """Train, or continue, or read what was done before; gives what ``record.json`` keeps.

    The number of iterations is fixed before, since schedules need it. Raises ValueError where the
    folder holds a training with other settings, or the time is too short for an iteration.
    """
    plan_path, record_path = run.folder / PLAN, run.folder / RECORD
    settings = {"budget": str(run.budget), "share": round(run.share, 6)}
    settings |= flat_settings(load_config(run.config_file, run.opts))
    # Another evaluation is no other training.
    settings = {key: value for key, value in settings.items() if not key.startswith("TEST.")}
    if plan_path.is_file():
        plan = json.loads(plan_path.read_text())
        check_same(plan["settings"], settings, run.folder)
    else:
        plan = {"iterations": plan_iterations(run), "settings": settings}
        run.folder.mkdir(parents=True, exist_ok=True)
        plan_path.write_text(json.dumps(plan))
    if not record_path.is_file():
        logger.info("Training %s: %d iterations", run.folder, plan["iterations"])
        cfg = run_config(run, plan["iterations"])
        times = train(cfg)
        write_results(record_path, _record(run, cfg, times))
        # Of no use once the last one is there.
        for path in run.folder.glob("model_[0-9]*.pth"):
            path.unlink()
    return json.loads(record_path.read_text())


def plan_iterations(run: Run) -> int:
    """How many iterations a run's budget is, by a short training of its own that leaves no trace.

    Raises ValueError where the time is too short for one.
    """
    if not run.budget.seconds:
        return max(round(run.share * run.budget.iterations), 1)
    available = run.budget.seconds - run.spent if run.spent else run.share * run.budget.seconds
    with tempfile.TemporaryDirectory(prefix="ldmseg_calibration_") as folder:
        times = train(run_config(run, CALIBRATION_WARMUP + CALIBRATION, folder=Path(folder)))
    # Not their median: what the training is charged with are all its iterations.
    each = fmean(times[CALIBRATION_WARMUP:])
    if available < each:
        raise ValueError(
            f"--budget {run.budget}: {run.config_file} has {available:.2f} s of it, but one "
            f"iteration takes {each:.2f} s here. Give more time, or make SOLVER.IMS_PER_BATCH "
            "smaller"
        )
    return int(available / each)


def run_config(run: Run, iterations: int, *, folder: Path | None = None) -> CfgNode:
    """The run's config, with checkpoints and without evaluation and pictures in between."""
    quiet = ("VIS_PERIOD", 0, "DATALOADER.NUM_WORKERS", 0)
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


class StepTimer(HookBase):
    """Keeps every iteration's seconds in a JSON file, also over interruptions."""

    def __init__(self, path: Path, device: str) -> None:
        self._path = path
        self._on_gpu = device.startswith("cuda")
        self._seconds: list[float] = json.loads(path.read_text()) if path.is_file() else []

    def before_step(self) -> None:
        self._start = self._now()

    def after_step(self) -> None:
        self._seconds.append(self._now() - self._start)
        if self.trainer.iter + 1 == self.trainer.max_iter:
            # Before the last checkpoint: with it, nothing more is timed.
            self.after_train()

    def after_train(self) -> None:
        self._path.write_text(json.dumps(self._seconds))

    def _now(self) -> float:
        if self._on_gpu:
            torch.cuda.synchronize()
            return time.perf_counter()
        # Of this process: other programs must not decide.
        return time.process_time()


class TimedTrainer(Trainer):
    """The trainer whose iterations are timed, and which does not evaluate."""

    def build_hooks(self) -> list[HookBase]:
        """The timer comes first, so that it counts no hook's time."""
        timer = StepTimer(Path(self.cfg.OUTPUT_DIR, TIMES), self.cfg.MODEL.DEVICE)
        kept = [hook for hook in super().build_hooks() if not isinstance(hook, hooks.EvalHook)]
        return [timer, *kept]


def train(cfg: CfgNode) -> list[float]:
    """Train, or continue to train, in ``OUTPUT_DIR``; gives the seconds of all iterations."""
    seed_all_rng(cfg.SEED)
    trainer = TimedTrainer(cfg)
    trainer.resume_or_load(resume=True)
    if trainer.start_iter < trainer.max_iter:
        trainer.train()
    return json.loads(Path(cfg.OUTPUT_DIR, TIMES).read_text())


def _record(run: Run, cfg: CfgNode, times: list[float]) -> dict[str, Any]:
    amp = cfg.SOLVER.AMP
    return {
        "name": run.folder.name,
        "config_file": run.config_file,
        "overrides": as_json(run.opts),
        "iterations": cfg.SOLVER.MAX_ITER,
        "batch": cfg.SOLVER.IMS_PER_BATCH,
        "precision": amp.PRECISION if amp.ENABLED else "float32",
        "commit": environment(cfg.MODEL.DEVICE)["commit"],
        "weights": str(run.folder / "model_final.pth"),
        # Their mean: an interrupted training has done some iterations twice.
        "seconds": fmean(times) * cfg.SOLVER.MAX_ITER,
        "started_from": cfg.MODEL.WEIGHTS,
    }
