"""Hooks of an experiment's training: how long iterations take, and what is reached in between."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import nn

from ldmseg_d2.engine.reporting import write_results

# From the config and the trained model to what is kept of its evaluation, as JSON can hold it.
Evaluate = Callable[[CfgNode, nn.Module], dict[str, Any]]


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
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._seconds))

    def _now(self) -> float:
        if self._on_gpu:
            torch.cuda.synchronize()
            return time.perf_counter()
        # Of this process: other programs must not decide.
        return time.process_time()


class CurveHook(HookBase):
    """Evaluates before the iteration that follows one of the curve's; no number depends on it.

    Before, and not after: a training that was interrupted while it evaluated starts again from a
    checkpoint of that iteration or an earlier one, and so evaluates there as well.
    """

    def __init__(self, path: Path, iterations: set[int], evaluate: Evaluate) -> None:
        """`path`: of a JSON file, finished iterations to results; `iterations`: which."""
        self._path, self._iterations, self._evaluate = path, iterations, evaluate

    def before_step(self) -> None:
        done = self.trainer.iter
        results = read_curve(self._path)
        if done not in self._iterations or str(done) in results:
            return
        model = self.trainer.evaluation_model
        was_training = model.training
        results[str(done)] = self._evaluate(self.trainer.cfg, model.eval())
        model.train(was_training)
        write_results(self._path, results)


def read_curve(path: Path) -> dict[str, Any]:
    """What was evaluated so far, by the number of iterations, as text."""
    return json.loads(path.read_text()) if path.is_file() else {}
