"""The pictures of an experiment: two plots, and a panel of photos."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from PIL import Image

from ldmseg_d2.engine.demo import Demo
from ldmseg_d2.visualization import fit, grid

# A wider panel is made smaller: photos would be megabytes.
MAX_WIDTH = 1600
TRUTH = "ground truth"  # as Demo calls it
# The two qualities that are drawn: key of the results, title.
QUALITIES = (("panoptic_seg", "PQ"), ("panoptic_class_agnostic", "PQ, class-agnostic"))


def mean_metric(results: Sequence[Mapping[str, Any]], key: str, name: str = "PQ") -> float | None:
    """Mean over the seeds; None where the model does not give it."""
    numbers = [v for r in results if (v := r.get(key, {}).get(name)) is not None]
    return sum(numbers) / len(numbers) if numbers else None


def plot_latency(models: Sequence[Mapping[str, Any]], path: Path, *, caption: str) -> None:
    """PQ against the median latency; a model's numbers of steps are joined by a line."""
    figure, panels = _panels(caption, "latency, ms (batch 1, median)")
    for panel, (key, _) in zip(panels, QUALITIES, strict=True):
        for index, model in enumerate(models):
            points = [
                (row["latency"]["median_ms"], value, row["steps"])
                for row in model["rows"]
                if (value := mean_metric(row["results"], key)) is not None
            ]
            if not points:
                continue
            xs, ys, steps = zip(*points, strict=True)
            panel.plot(xs, ys, "o-", label=model["name"], color=f"C{index}")
            for x, y, number in points:
                if number:
                    panel.annotate(f"{number}", (x, y), fontsize=7, xytext=(3, 3),
                                   textcoords="offset points")  # fmt: skip
        panel.set_xscale("log")
        # More labels run into each other.
        panel.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        for axis in (panel.xaxis.set_major_formatter, panel.xaxis.set_minor_formatter):
            axis(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.tick_params(axis="x", which="both", labelsize=7)
    _finish(figure, panels, path)


def plot_training(models: Sequence[Mapping[str, Any]], path: Path, *, caption: str) -> None:
    """PQ against training time, stages before the model's own included."""
    figure, panels = _panels(caption, "training, minutes")
    for panel, (key, _) in zip(panels, QUALITIES, strict=True):
        for index, model in enumerate(models):
            label = model["name"]
            for training in model["trainings"]:
                points = [
                    (point["seconds"] / 60, value)
                    for point in training["curve"]
                    if (value := mean_metric([point["results"]], key)) is not None
                ]
                if points:
                    xs, ys = zip(*points, strict=True)
                    panel.plot(xs, ys, "o-", label=label, color=f"C{index}")
                    label = None
    _finish(figure, panels, path)


def _panels(caption: str, axis: str) -> tuple[Figure, Sequence[Any]]:
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, len(QUALITIES))
    for panel, (_, title) in zip(panels, QUALITIES, strict=True):
        panel.set_title(title, fontsize=9)
        panel.set_xlabel(axis, fontsize=8)
        panel.set_ylabel("percent", fontsize=8)
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.3)
    figure.suptitle(caption, fontsize=9)
    return figure, panels


def _finish(figure: Figure, panels: Sequence[Any], path: Path) -> None:
    for panel in panels:
        if panel.lines:
            panel.legend(fontsize=7)
        else:
            panel.text(0.5, 0.5, "no model gives it", ha="center", transform=panel.transAxes)
        panel.set_ylim(0, max(1.05 * panel.get_ylim()[1], 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def draw_panel(
    models: Mapping[str, tuple[Demo, Callable[[], None]]],
    records: Sequence[dict[str, Any]],
    path: Path,
) -> None:
    """Write a picture: a row a photo; the photo, its ground truth, and every model's first result.

    `models` are by title: the model, and what prepares it for its turn.
    """
    rows, titles = [], []
    for record in records:
        row: dict[str, Any] = {}
        for title, (demo, prepare) in models.items():
            prepare()
            sheet = demo.segment(**demo.load(record))
            names = [name for line in sheet.titles for name in line]
            panels = [panel for line in sheet.rows for panel in line]
            result = next(i for i, name in enumerate(names) if name not in ("photo", TRUTH))
            row.setdefault("photo", panels[0])
            for name, panel in zip(names, panels, strict=True):
                if name in (TRUTH, "true panoptic"):
                    row.setdefault(TRUTH, panel)
            row[title] = panels[result]
        rows.append(list(row.values()))
        titles.append(list(row))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(fit(grid(rows, titles), MAX_WIDTH)).save(path)
