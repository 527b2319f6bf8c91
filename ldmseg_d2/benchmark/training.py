"""Trains a contender within the budget, and notes its quality on the way."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from detectron2.config import CfgNode
from torch import nn

from ldmseg_d2.engine import load_config
from ldmseg_d2.studies.curve import Curve, Evaluate, read_curve
from ldmseg_d2.studies.runs import CURVE, Run, do_run, run_config
from ldmseg_d2.studies.timing import read_seconds

from .budget import Budget, plan
from .contenders import Contender
from .quality import evaluate


def train_contender(
    contender: Contender,
    output: Path,
    *,
    budget: Budget,
    seed: int,
    curve_points: int,
    curve_images: int,
) -> dict[str, Any]:
    """Train all stages, or continue, or read what was done before.

    Args:
        contender: without weights.
        output: folder of the benchmark.
        budget: of all stages together.
        seed: ``cfg.SEED``.
        curve_points: evaluations that are spread evenly over the model's own training, the last
            one at its end; 0: none.
        curve_images: pictures of each.

    Returns:
        ``weights``; ``opts`` to build the model with; ``stages``: the records of all trainings with
        their plans and ``seconds``; ``curve``: ``iteration``, ``seconds`` (of all stages so far)
        and ``results``; ``seconds`` of all.

    Raises:
        ValueError: see :func:`ldmseg_d2.benchmark.budget.plan` and
            :func:`ldmseg_d2.studies.do_run`.
    """
    opts = [*contender.opts, "SEED", seed]
    stages, spent, received = [], 0.0, []
    for stage in contender.stages:
        # Its result is the ceiling of what follows.
        record = _train_stage(
            Run(f"seed{seed}/{stage.name}", stage.config_file, 0, tuple(opts)),
            output,
            budget=budget,
            share=stage.share,
            evaluate=evaluate,
        )
        stages.append(record)
        spent += record["seconds"]
        # The model receives them, and no other stage does.
        received += [stage.key, record["weights"]]
    opts += received
    record = _train_stage(
        Run(f"seed{seed}/{contender.folder}", contender.config_file, 0, tuple(opts)),
        output,
        budget=budget,
        share=1 - sum(stage.share for stage in contender.stages),
        spent=spent,
        # Measured on all pictures later, at several numbers of steps.
        evaluate=partial(evaluate_first, number=curve_images) if curve_points else lambda *_: {},
        points=curve_points,
    )
    each = record["seconds"] / record["iterations"]
    curve, last = record.pop("curve"), record.pop("results")
    if last:
        curve[str(record["iterations"])] = last
    return {
        "weights": record["weights"],
        "opts": opts,
        "stages": [*stages, {**record, "results": {}}],
        "curve": [
            {"iteration": int(done), "seconds": spent + each * int(done), "results": results}
            for done, results in sorted(curve.items(), key=lambda item: int(item[0]))
        ],
        "seconds": spent + record["seconds"],
    }


def evaluate_first(cfg: CfgNode, model: nn.Module, *, number: int) -> dict[str, Any]:
    """As :func:`ldmseg_d2.benchmark.quality.evaluate`, on the first pictures alone."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.TEST.MAX_IMAGES = min(number, cfg.TEST.MAX_IMAGES or number)
    return evaluate(cfg, model)


def _train_stage(
    run: Run,
    output: Path,
    *,
    budget: Budget,
    share: float,
    evaluate: Evaluate,
    spent: float = 0.0,
    points: int = 0,
) -> dict[str, Any]:
    """Plan the run's iterations, and do it; `points`: of the curve, with the end of the training.

    Returns:
        The run's record, with "plan", "weights", "seconds", "curve" and "started_from".
    """
    folder = output / run.name
    planned = plan(run, folder, budget=budget, share=round(share, 6), spent_seconds=spent)
    iterations = planned["iterations"]
    opts = (*run.opts, *_scaled_schedule(run, iterations))
    run = replace(run, iterations=iterations, opts=opts)
    at = {round(iterations * k / points) for k in range(1, points)} - {0, iterations}
    record = do_run(run, output, evaluate=evaluate, curve=Curve(tuple(sorted(at)), evaluate))
    cfg = run_config(run, folder)
    return {
        **record,
        "plan": planned,
        "weights": str(folder / "model_final.pth"),
        # Their mean: an interrupted training has done some iterations twice.
        "seconds": fmean(read_seconds(cfg)) * iterations,
        "started_from": cfg.MODEL.WEIGHTS,
        # From the file: records from before the benchmark's curve was the studies' have none.
        "curve": read_curve(folder / CURVE),
    }


def _scaled_schedule(run: Run, iterations: int) -> list[Any]:
    """SOLVER.STEPS at the same shares of a training of another length."""
    cfg = load_config(run.config_file, run.opts)
    if "MultiStep" not in cfg.SOLVER.LR_SCHEDULER_NAME:
        return []
    factor = iterations / cfg.SOLVER.MAX_ITER
    return ["SOLVER.STEPS", tuple(max(round(step * factor), 1) for step in cfg.SOLVER.STEPS)]
