"""Do tasks that share a model help or hinder one another? Runs, table and picture."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode
from matplotlib.figure import Figure
from tabulate import tabulate
from torch import nn

from ldmseg_d2.engine import Trainer

from .report import mean_and_spread
from .runs import Run, do_run

LETTERS = {"I": "instance", "S": "semantic", "D": "depth"}
SINGLE = ("I", "S", "D")
SEVERAL = ("IS", "ISD")
MODES = ("separate", "joint")


class Metric(NamedTuple):
    """A number of the table."""

    title: str
    key: tuple[str, str]  # in the results of an evaluation
    digits: int
    higher_is_better: bool


METRICS = (
    Metric("PQ, class-agnostic", ("panoptic_class_agnostic", "PQ"), 1, True),
    Metric("PQ", ("panoptic_seg", "PQ"), 1, True),
    Metric("mIoU", ("sem_seg", "mIoU"), 1, True),
    Metric("AbsRel", ("depth", "AbsRel"), 3, False),
)


@dataclass(frozen=True)
class Row:
    """A line of the table: the same training for every seed.

    Attributes:
        tasks: letters, see LETTERS.
        mode: "separate" or "joint"; a single task is "separate".
        equal_time: trained as long as the separate run of the same tasks.
    """

    tasks: str
    mode: str
    equal_time: bool = False

    @property
    def name(self) -> str:
        """Of the run's folder."""
        return f"{self.mode}_{self.tasks}" + ("_equal_time" if self.equal_time else "")

    @property
    def title(self) -> str:
        """For readers."""
        if len(self.tasks) == 1:
            return f"{{{self.tasks}}}"
        return f"{{{', '.join(self.tasks)}}} {self.mode}{', equal time' * self.equal_time}"


def table_rows(modes: Iterable[str]) -> list[Row]:
    """The rows of the study: single tasks, then for several tasks one or more rows each."""
    modes = set(modes)
    rows = [Row(task, "separate") for task in SINGLE]
    for tasks in SEVERAL:
        rows += [Row(tasks, mode) for mode in MODES if mode in modes]
        if modes == set(MODES):
            rows.append(Row(tasks, "joint", equal_time=True))
    return rows


def row_opts(row: Row) -> list[Any]:
    """The keys that make a row's model of a config of separate tasks."""
    separate = row.mode == "separate"
    return [
        *("MODEL.LDMSEG.TASKS", [LETTERS[letter] for letter in row.tasks]),
        *("MODEL.LDMSEG.TASK_MODE", row.mode),
        *("MODEL.LDMSEG.TASK_EMBEDDING.IN_TIME_EMBEDDING", separate),
        *("MODEL.LDMSEG.DENOISER.CROSS_ATTENTION", "kept" if separate else "removed"),
        *("MODEL.LDMSEG.CLASSIFIER", "semantic_task" if {"I", "S"} <= set(row.tasks) else "none"),
        # What known segments teach is another study's question.
        *("MODEL.LDMSEG.TRAIN_INPAINTING.PROB", 0.0),
    ]


def run_rows(
    modes: Iterable[str],
    output: str | Path,
    *,
    config_file: str,
    updates: int,
    seed: int,
    opts: Sequence[Any],
) -> dict[Row, dict[str, Any]]:
    """Train all rows of one seed.

    Every task of every row gets `updates` iterations of teaching: "separate" draws one task for a
    picture, so that it takes `updates` times the number of tasks; "joint" teaches all at once.

    Args:
        modes: of MODES.
        output: folder of the study.
        config_file: of a model with TASK_MODE "separate" and all three tasks.
        updates: for each task.
        seed: ``cfg.SEED``.
        opts: further keys and values.

    Returns:
        The record of each row, see :func:`ldmseg_d2.studies.runs.do_run`.
    """
    records: dict[Row, dict[str, Any]] = {}
    for row in table_rows(modes):
        iterations = updates * (len(row.tasks) if row.mode == "separate" else 1)
        if row.equal_time:
            separate = records[Row(row.tasks, "separate")]
            joint = records[Row(row.tasks, "joint")]
            minutes = joint["seconds_per_iteration"] / 60
            iterations = max(round(separate["training_minutes"] / minutes), 1)
        run = Run(
            f"seed{seed}/{row.name}",
            config_file,
            iterations,
            (*opts, *row_opts(row), "SEED", seed),
        )
        records[row] = do_run(run, output, evaluate=evaluate)
    return records


def evaluate(cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
    """All evaluators that fit, on DATASETS.TEST's only data set."""
    return dict(Trainer.test(cfg, model))


def value(record: dict[str, Any], metric: Metric) -> float | None:
    """A metric of a run; None where its tasks do not give it, or it is not finite."""
    task, name = metric.key
    return record["results"].get(task, {}).get(name)


def mean(records: Sequence[dict[str, Any]], metric: Metric) -> float | None:
    """Mean over the seeds."""
    numbers = [n for n in (value(record, metric) for record in records) if n is not None]
    return sum(numbers) / len(numbers) if numbers else None


def single_of(rows: dict[Row, list[dict[str, Any]]], metric: Metric) -> list[dict[str, Any]] | None:
    """The records of the single task that a metric measures; PQ with classes has none."""
    for row, records in rows.items():
        if len(row.tasks) == 1 and value(records[0], metric) is not None:
            return records
    return None


def table(rows: dict[Row, list[dict[str, Any]]]) -> str:
    """Markdown: each row's metrics, in brackets the difference to the single task."""
    lines = []
    for row, records in rows.items():
        steps = records[0]["steps"]
        forwards = steps * (len(row.tasks) if row.mode == "separate" else 1)
        cells = [
            row.title,
            " / ".join(dict.fromkeys(str(record["iterations"]) for record in records)),
            mean_and_spread([record["training_minutes"] for record in records]),
        ]
        for metric in METRICS:
            cell = mean_and_spread([value(record, metric) for record in records], metric.digits)
            reference = single_of(rows, metric)
            if len(row.tasks) > 1 and reference is not None and cell != "-":
                difference = mean(records, metric) - mean(reference, metric)
                cell += f" ({difference:+.{metric.digits}f})"
            cells.append(cell)
        lines.append([*cells, str(steps), str(forwards)])
    header = ["tasks", "iterations", "training, minutes", *(m.title for m in METRICS)]
    header += ["sampling steps", "UNet passes a picture"]
    return tabulate(lines, header, tablefmt="pipe", disable_numparse=True)


def findings(rows: dict[Row, list[dict[str, Any]]]) -> list[str]:
    """Which of separate and joint is ahead at equal training time, a line for each set of tasks."""
    lines = []
    for tasks in SEVERAL:
        pair = [rows.get(Row(tasks, "separate")), rows.get(Row(tasks, "joint", equal_time=True))]
        if None in pair:
            continue
        ahead: dict[str, list[str]] = {"joint": [], "separate": [], "neither": []}
        for metric in METRICS:
            separate, joint = (mean(records, metric) for records in pair)
            if separate is None or joint is None:
                continue
            gain = (joint - separate) * (1 if metric.higher_is_better else -1)
            winner = "joint" if gain > 0 else "separate" if gain < 0 else "neither"
            number = f"{separate:.{metric.digits}f} to {joint:.{metric.digits}f}"
            ahead[winner].append(f"{metric.title} ({number})")
        parts = [f"{name} is ahead in {', '.join(won)}" for name, won in ahead.items() if won]
        lines.append(
            f"- {{{', '.join(tasks)}}} at equal training time, separate to joint: "
            f"{'; '.join(parts) or 'nothing was measured'}."
        )
    return lines


def plot(rows: dict[Row, list[dict[str, Any]]], path: Path, *, caption: str) -> None:
    """Bars of every metric, a panel each; a dashed line is the single task."""
    figure = Figure(figsize=(3.2 * len(METRICS), 3.6), layout="constrained")
    panels = figure.subplots(1, len(METRICS))
    colours = {"single": "#7f7f7f", "separate": "#4c78a8", "joint": "#f58518", "time": "#e45756"}
    for panel, metric in zip(panels, METRICS, strict=True):
        shown = [row for row, records in rows.items() if mean(records, metric) is not None]
        for x, row in enumerate(shown):
            numbers = [n for n in (value(r, metric) for r in rows[row]) if n is not None]
            height = sum(numbers) / len(numbers)
            spread = [[height - min(numbers)], [max(numbers) - height]]
            kind = "time" if row.equal_time else "single" if len(row.tasks) == 1 else row.mode
            panel.bar(x, height, color=colours[kind], yerr=spread if len(numbers) > 1 else None)
            text = f"{height:.{metric.digits}f}"
            panel.text(x, height, text, ha="center", va="bottom", fontsize=7)
        reference = single_of(rows, metric)
        if reference is not None:
            panel.axhline(mean(reference, metric), color="#7f7f7f", linestyle="--", linewidth=0.8)
        labels = [row.title.replace("} ", "}\n").replace(", equal", ",\nequal") for row in shown]
        panel.set_xticks(range(len(shown)), labels, fontsize=6)
        arrow = "higher" if metric.higher_is_better else "lower"
        panel.set_title(f"{metric.title} ({arrow} is better)", fontsize=8)
        panel.tick_params(axis="y", labelsize=7)
        panel.margins(y=0.12)
    figure.suptitle(caption, fontsize=9)
    figure.savefig(path, dpi=110)
