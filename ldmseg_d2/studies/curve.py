"""A learning curve: the averaged model is evaluated in the midst of its training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import nn

from ldmseg_d2.engine.reporting import write_results

# From the config and the trained model to what is kept of its evaluation, as JSON can hold it.
Evaluate = Callable[[CfgNode, nn.Module], dict[str, Any]]


class Curve(NamedTuple):
    """Where, besides the end, a training is evaluated."""

    iterations: tuple[int, ...]  # finished iterations, each above 0 and below the training's
    evaluate: Evaluate


class CurveHook(HookBase):
    """Evaluates before the iteration that follows one of the curve's; no number depends on it.

    Before, and not after: a training that was interrupted while it evaluated starts again from a
    checkpoint of that iteration or an earlier one, and so evaluates there as well.
    """

    def __init__(self, path: Path, curve: Curve) -> None:
        """
        Args:
            path: of the JSON file: finished iterations to results.
            curve: what to do.
        """
        self._path = path
        self._curve = curve

    def before_step(self) -> None:
        done = self.trainer.iter
        if done not in self._curve.iterations:
            return
        results = read_curve(self._path)
        if str(done) in results:
            return
        model = self.trainer.evaluation_model
        was_training = model.training
        results[str(done)] = self._curve.evaluate(self.trainer.cfg, model.eval())
        model.train(was_training)
        write_results(self._path, results)


def read_curve(path: Path) -> dict[str, Any]:
    """What was evaluated so far, by the number of iterations, as text."""
    found = json.loads(path.read_text()) if path.is_file() else {}
    if isinstance(found, list):
        # The benchmark's form, from before it used this module.
        return {str(point["iteration"]): point["results"] for point in found}
    return found
