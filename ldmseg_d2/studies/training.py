"""What makes the diffusion model learn faster? Equal training time, one factor at a time."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from torch import nn

from ldmseg_d2.data import build_dataset_mapper, load_dataset_dicts
from ldmseg_d2.engine import Trainer, load_config
from ldmseg_d2.evaluation.inpainting_evaluation import (
    complete,
    draw_hints,
    evaluate_completion,
    load_picture,
    segment_ids,
)

from .curve import Curve
from .runs import Run, do_run, seconds_per_iteration
from .training_rows import AUTOENCODER, BASELINE, FACTORS, IDS, REGRESSION, Row, table_rows

logger = logging.getLogger(__name__)

# Shares of a training after which it is evaluated, besides its end.
CURVE_SHARES = (1 / 3, 2 / 3)
# Share of the blocks that is dropped to see whether given ids are honoured.
DROP = 0.5
# Rows whose inpainting is evaluated: what they change may break it.
INPAINTED = (BASELINE, IDS, REGRESSION)
PQ = ("panoptic_class_agnostic", "PQ")
METRICS = {"PQ, classes": ("panoptic_seg", "PQ"), "mIoU": ("sem_seg", "mIoU")}


class Settings(NamedTuple):
    """Of the whole study."""

    config_file: str
    output: str
    opts: tuple[Any, ...] = ()  # beside the config, for all rows
    minutes: float = 4.0  # of each training, as its clock counts them
    iterations: int = 0  # instead of minutes, where it is not 0
    stage1_minutes: float = 4.0  # of each autoencoder; ``iterations`` counts for it as well
    steps: tuple[int, ...] = (1, 4, 20)  # of the sampler, increasing
    images: int = 100  # of each evaluation
    block_size: int = 16  # of the inpainting's blocks, pixels

    @property
    def common(self) -> tuple[Any, ...]:
        """Keys and values of all rows."""
        return (
            *("DATALOADER.NUM_WORKERS", 0, "TEST.MAX_IMAGES", self.images),
            *("MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS", self.steps[-1]),
            *self.opts,
        )


class Result(NamedTuple):
    """What is known of a row."""

    records: list[dict[str, Any]]  # of each seed, see do_run
    stage1: dict[str, Any] | None  # the record of its autoencoder, where one was trained
    same_as: Row | None  # an earlier row with the same settings, whose records these are


def run_study(
    settings: Settings, factors: Sequence[str], seeds: Sequence[int]
) -> dict[Row, Result]:
    """Train and evaluate all rows, seed by seed, so that all rows soon have one result.

    Args:
        settings: of the study.
        factors: names of FACTORS.
        seeds: values of SEED.

    Returns:
        The rows in the order of the table.
    """
    rows = table_rows(load_config(settings.config_file, settings.common), factors)
    first = first_rows(settings)
    source: dict[Row, Row] = {}
    for row in rows:
        source.setdefault(first[row], row)
    own = list(source.values())
    stage1 = {row.stage1: train_stage1(settings, row) for row in own if row.stage1 is not None}
    records: dict[Row, list[dict[str, Any]]] = {row: [] for row in own}
    for seed in seeds:
        for row in own:
            records[row].append(run_row(settings, row, first[row].name, seed))
    results = {}
    for row in rows:
        same = source[first[row]]
        trained = None if row.stage1 is None else stage1[row.stage1]
        results[row] = Result(records[same], trained, None if same == row else same)
    return results


def first_rows(settings: Settings) -> dict[Row, Row]:
    """For every row of all factors the first one with the same settings, perhaps itself."""
    cfg = load_config(settings.config_file, settings.common)
    known: dict[str, Row] = {}
    return {
        row: known.setdefault(
            load_config(settings.config_file, row_opts(settings, row)).dump(), row
        )
        for row in table_rows(cfg, list(FACTORS))
    }


def row_opts(settings: Settings, row: Row) -> tuple[Any, ...]:
    """Keys and values of a row's training, but for the seed."""
    opts = (*settings.common, *row.opts)
    if row.stage1 is not None:
        path = Path(settings.output, stage1_name(row), "model_final.pth")
        opts += (f"{AUTOENCODER}.WEIGHTS", str(path))
    return opts


def stage1_name(row: Row) -> str:
    """Of the folder of a row's autoencoder; rows with the same autoencoder share it."""
    return f"stage1_{row.name}" if row.stage1 else "stage1"


def train_stage1(settings: Settings, row: Row) -> dict[str, Any]:
    """Train a row's autoencoder; its record."""
    opts = (
        *("MODEL.META_ARCHITECTURE", "LDMSegAutoencoder"),
        *("INPUT.LDMSEG.ANNOTATIONS_AT_TEST", True),
    )
    run = Run(stage1_name(row), settings.config_file, 0, (*settings.common, *row.stage1, *opts))
    run = with_iterations(settings, run, settings.stage1_minutes, stage1_name(row))
    return do_run(run, settings.output, evaluate=lambda cfg, model: dict(Trainer.test(cfg, model)))


def run_row(settings: Settings, row: Row, name: str, seed: int) -> dict[str, Any]:
    """Train and evaluate a row with one seed; its record."""
    opts = (*row_opts(settings, row), "SEED", seed)
    run = Run(f"seed{seed}/{name}", settings.config_file, 0, opts)
    run = with_iterations(settings, run, settings.minutes, name)
    points = tuple(sorted({round(share * run.iterations) for share in CURVE_SHARES}))
    points = tuple(point for point in points if 0 < point < run.iterations)
    final = partial(evaluate, settings=settings, inpaint=row.factor in INPAINTED)
    last = settings._replace(steps=settings.steps[-1:])
    curve = Curve(points, partial(evaluate, settings=last, inpaint=False))
    return do_run(run, settings.output, evaluate=final, curve=curve)


def with_iterations(settings: Settings, run: Run, minutes: float, key: str) -> Run:
    """The run with as many iterations as its minutes hold, the same for every seed."""
    iterations = settings.iterations
    if not iterations:
        calibrated = Run(key, run.config_file, 0, run.opts)
        path = Path(settings.output, "seconds_per_iteration.json")
        iterations = max(round(60 * minutes / seconds_per_iteration(calibrated, path)), 1)
    return Run(run.name, run.config_file, iterations, run.opts)


def evaluate(
    cfg: CfgNode, model: nn.Module, *, settings: Settings, inpaint: bool
) -> dict[str, Any]:
    """Evaluate a row's model.

    Args:
        cfg: its config.
        model: in eval mode.
        settings: says with how many steps; a regression has one.
        inpaint: complete half-dropped masks as well.

    Returns:
        "steps", by number of steps as text what all fitting evaluators give, and "inpainting", what
        :func:`evaluate_completion` gives, where asked for.
    """
    results: dict[str, Any] = {"steps": {}}
    steps = (1,) if cfg.MODEL.LDMSEG.DIFFUSION.REGRESSION else settings.steps
    for number in steps:
        model.num_inference_steps = number
        results["steps"][str(number)] = dict(Trainer.test(cfg, model))
    if inpaint:
        results["inpainting"] = evaluate_inpainting(cfg, model, settings)
    return results


def evaluate_inpainting(cfg: CfgNode, model: nn.Module, settings: Settings) -> dict[str, float]:
    """How half-dropped masks are completed, and whether given ids are honoured."""
    mapper = build_dataset_mapper(cfg, is_train=False)
    records = load_dataset_dicts(list(cfg.DATASETS.TEST))[: settings.images]
    pictures = [load_picture(record, mapper) for record in records]
    size = {"block_size": settings.block_size}
    hints = [draw_hints(picture, "block", DROP, 0, **size) for picture in pictures]
    with torch.no_grad():
        outputs = complete(pictures, hints, model, batch_size=cfg.TEST.IMS_PER_BATCH)
        completed = [segment_ids(output) for output in outputs]
    return evaluate_completion(pictures, hints, completed)


def quality(results: dict[str, Any], steps: int | None = None) -> float | None:
    """Class-agnostic PQ of an evaluation, with some number of steps or the largest there is."""
    by_steps = results["steps"]
    key = max(by_steps, key=int) if steps is None else str(steps)
    return by_steps.get(key, {}).get(PQ[0], {}).get(PQ[1])


def data_set(settings: Settings) -> str:
    """Name of the data set that is evaluated on."""
    return load_config(settings.config_file, settings.common).DATASETS.TEST[0]
