"""How long a model is trained: a time or a number of iterations, fixed before it starts."""

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ldmseg_d2.engine.reporting import write_results
from ldmseg_d2.studies.runs import Run, calibrate, check_same

logger = logging.getLogger(__name__)

BUDGET = "budget.json"
SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Budget:
    """What a model's training may take, all its stages together.

    Attributes:
        seconds: of training iterations: CPU time of the process on a CPU, wall time on a GPU. None:
            `iterations` counts instead.
        iterations: of training; shared out among stages as a time is.
    """

    seconds: float | None = None
    iterations: int = 0

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read "90s", "20m", "1.5h" or "iters:2000".

        Raises:
            ValueError: for anything else, and for 0.

        Example:
            >>> Budget.parse("20m").seconds, Budget.parse("iters:2000").iterations
            (1200.0, 2000)
        """
        time = re.fullmatch(r"(\d+(?:\.\d*)?)([smh])", text)
        if time and float(time[1]) > 0:
            return cls(seconds=float(time[1]) * SECONDS[time[2]])
        iterations = re.fullmatch(r"iters:(\d+)", text)
        if iterations and int(iterations[1]) > 0:
            return cls(iterations=int(iterations[1]))
        raise ValueError(
            f"--budget {text!r}: give a time above 0 such as 90s, 20m or 1.5h, or a number of "
            "iterations such as iters:2000"
        )

    def __str__(self) -> str:
        return f"{self.seconds:g} s" if self.seconds else f"{self.iterations} iterations"


def plan(
    run: Run, folder: Path, *, budget: Budget, share: float, spent_seconds: float
) -> dict[str, Any]:
    """Fix a stage's number of iterations, or read what was fixed before.

    Args:
        run: of the stage; its ``iterations`` do not matter.
        folder: of the stage; the plan is kept in it.
        budget: of the whole model.
        share: of the budget, for this stage. The last stage gets what the others left.
        spent_seconds: what the stages before it took; 0 where this is not the last one.

    Returns:
        ``budget`` (text), ``share``, ``iterations``, and for a time ``available_seconds`` and
        ``calibrated_seconds_per_iteration``.

    Raises:
        ValueError: the time is too short for one iteration, or another budget was planned before.
    """
    path = folder / BUDGET
    settings = {"--budget": str(budget), "share": share}
    if path.is_file():
        planned = json.loads(path.read_text())
        check_same({key: planned.get(key) for key in settings}, settings, path)
        return planned
    planned = {**settings, "iterations": max(round(share * budget.iterations), 1)}
    if budget.seconds:
        available = budget.seconds - spent_seconds if spent_seconds else share * budget.seconds
        # Not their median: what the training is charged with are all its iterations.
        each = fmean(calibrate(run))
        iterations = int(available / each)
        if iterations < 1:
            raise ValueError(
                f"--budget {budget}: {run.config_file} has {available:.2f} s of it, but one "
                f"iteration takes {each:.2f} s here. Give more time, or make SOLVER.IMS_PER_BATCH "
                "smaller"
            )
        planned.update(
            iterations=iterations,
            available_seconds=available,
            calibrated_seconds_per_iteration=each,
        )
    logger.info("Plan of %s: %s", folder, planned)
    write_results(path, planned)
    return planned
