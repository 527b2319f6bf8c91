"""Trains a contender within the budget, and notes its quality on the way."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import nn

from ldmseg_d2.engine import load_config
from ldmseg_d2.engine.reporting import write_results
from ldmseg_d2.studies.runs import TIMES, Run, StudyTrainer, do_run

from .budget import Budget, clock_of, plan
from .contenders import Contender
from .quality import evaluate

CURVE = "curve.json"


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
        record = _train_stage(
            f"seed{seed}/{stage.name}", stage.config_file, opts, output, budget, stage.share
        )
        stages.append(record)
        spent += record["seconds"]
        # The model receives them, and no other stage does.
        received += [stage.key, record["weights"]]
    opts += received
    record = _train_stage(
        f"seed{seed}/{contender.folder}",
        contender.config_file,
        opts,
        output,
        budget,
        1 - sum(stage.share for stage in contender.stages),
        spent=spent,
        curve=(curve_points, curve_images),
    )
    each = record["seconds"] / record["iterations"]
    curve = [{**p, "seconds": spent + each * p["iteration"]} for p in record.pop("curve")]
    return {
        "weights": record["weights"],
        "opts": opts,
        "stages": [*stages, record],
        "curve": curve,
        "seconds": spent + record["seconds"],
    }


def _train_stage(
    name: str,
    config_file: str,
    opts: Sequence[Any],
    output: Path,
    budget: Budget,
    share: float,
    *,
    spent: float = 0.0,
    curve: tuple[int, int] | None = None,
) -> dict[str, Any]:
    folder = output / name
    planned = plan(
        folder,
        budget=budget,
        share=round(share, 6),
        spent_seconds=spent,
        config_file=config_file,
        opts=opts,
    )
    iterations, (points, images) = planned["iterations"], curve or (0, 0)
    schedule = _scaled_schedule(config_file, opts, iterations)
    at = sorted({round(iterations * k / points) for k in range(1, points + 1)} - {0})

    def finish(cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        # A stage's result is the ceiling of the next one; the model's own is measured later, at
        # several numbers of steps.
        return evaluate(cfg, model) if curve is None else {}

    record = do_run(
        Run(name, config_file, iterations, (*opts, *schedule)),
        output,
        evaluate=finish,
        make_trainer=lambda cfg: CurveTrainer(cfg, at, images),
    )
    cfg = load_config(config_file, opts)
    times = json.loads((folder / TIMES).read_text())[clock_of(cfg.MODEL.DEVICE)]
    path = folder / CURVE
    return {
        **record,
        "plan": planned,
        "weights": str(folder / "model_final.pth"),
        # Their mean: an interrupted training has done some iterations twice.
        "seconds": fmean(times) * iterations,
        "curve": json.loads(path.read_text()) if path.is_file() else [],
        "started_from": cfg.MODEL.WEIGHTS,
    }


def _scaled_schedule(config_file: str, opts: Sequence[Any], iterations: int) -> list[Any]:
    """SOLVER.STEPS at the same shares of a training of another length."""
    cfg = load_config(config_file, opts)
    if "MultiStep" not in cfg.SOLVER.LR_SCHEDULER_NAME:
        return []
    factor = iterations / cfg.SOLVER.MAX_ITER
    return ["SOLVER.STEPS", tuple(max(round(step * factor), 1) for step in cfg.SOLVER.STEPS)]


class CurveTrainer(StudyTrainer):
    """The trainer of a study, which evaluates at some iterations, outside of the timed steps."""

    def __init__(self, cfg: CfgNode, iterations: Sequence[int], num_images: int) -> None:
        """
        Args:
            cfg: the config.
            iterations: numbers of finished iterations after which it evaluates.
            num_images: pictures that it evaluates on.
        """
        # The base class builds the hooks.
        self._curve = CurveHook(iterations, num_images)
        super().__init__(cfg)

    def build_hooks(self) -> list[HookBase]:
        """The curve comes last: it may fail, and then the checkpoint is there."""
        return [*super().build_hooks(), self._curve]


class CurveHook(HookBase):
    """Adds the evaluation of the averaged weights to a file; what is there stays."""

    def __init__(self, iterations: Sequence[int], num_images: int) -> None:
        """See :class:`CurveTrainer`."""
        self._iterations = set(iterations)
        self._num_images = num_images

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done not in self._iterations:
            return
        path = Path(self.trainer.cfg.OUTPUT_DIR, CURVE)
        points = json.loads(path.read_text()) if path.is_file() else []
        if any(point["iteration"] == done for point in points):
            return
        cfg = self.trainer.cfg.clone()
        cfg.defrost()
        images, limit = self._num_images, cfg.TEST.MAX_IMAGES
        cfg.TEST.MAX_IMAGES = min(images, limit) if limit else images
        results = evaluate(cfg, self.trainer.evaluation_model)
        points = [*points, {"iteration": done, "results": results}]
        write_results(path, sorted(points, key=lambda point: point["iteration"]))
