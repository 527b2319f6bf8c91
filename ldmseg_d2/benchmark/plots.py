"""The pictures of the benchmark: two plots, and a panel of photos."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from PIL import Image

from ldmseg_d2.engine.demo import MIN_SIDE, Demo
from ldmseg_d2.visualization import draw_annotations, draw_outputs, enlarge, fit, grid

# A wider panel is made smaller: photos would be megabytes.
MAX_WIDTH = 1600
# The two qualities that are drawn: key of the results, title.
QUALITIES = (("panoptic_seg", "PQ"), ("panoptic_class_agnostic", "PQ, class-agnostic"))


def quality(results: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Mean PQ over the seeds; None where the model does not give it."""
    values = [r.get(key, {}).get("PQ") for r in results]
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def plot_latency(models: Sequence[Mapping[str, Any]], path: Path, *, caption: str) -> None:
    """PQ against the median latency; a model's numbers of steps are joined by a line."""
    figure, panels = _panels(caption, "latency, ms (batch 1, median)")
    for panel, (key, _) in zip(panels, QUALITIES, strict=True):
        for index, model in enumerate(models):
            points = [
                (row["latency"]["median_ms"], value, row["steps"])
                for row in model["rows"]
                if (value := quality(row["results"], key)) is not None
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
        for number, model in enumerate(models):
            curves = [training["curve"] for training in model["trainings"] if training["curve"]]
            label = model["name"]
            for curve in curves:
                points = [
                    (point["seconds"] / 60, value)
                    for point in curve
                    if (value := quality([point["results"]], key)) is not None
                ]
                if points:
                    xs, ys = zip(*points, strict=True)
                    panel.plot(xs, ys, "o-", label=label, color=f"C{number}")
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


@torch.no_grad()
def draw_panel(
    models: Mapping[str, tuple[Demo, int]], records: Sequence[dict[str, Any]], path: Path
) -> None:
    """Write a picture: a row a photo; the photo, its ground truth, and every model's segments.

    Args:
        models: by title: the model, and its number of steps (0: it does not sample).
        records: of the photos, as the data set lists them.
        path: of the PNG.
    """
    rows, titles = [], []
    for record in records:
        row: list[Any] = []
        names = ["photo"]
        for title, (demo, steps) in models.items():
            loaded = demo.load(record)
            photo, truth = loaded["photo"], loaded["truth"]
            # No names: the segments have the colours of the true ones.
            style = demo.style._replace(
                scale=max(1, MIN_SIDE // max(photo.shape[:2])), class_names=None
            )
            if not row:
                row.append(enlarge(photo, style.scale))
                drawn = draw_annotations(photo, truth, style)
                if "panoptic" in drawn:
                    row.append(drawn["panoptic"])
                    names.append("ground truth")
            if steps:
                demo.model.num_inference_steps = steps
            panels = draw_outputs(photo, demo.model([loaded["inputs"]])[0], style, truth)
            shown = panels.get("panoptic", next(iter(panels.values()), None))
            if shown is not None:
                row.append(shown)
                names.append(title)
        rows.append(row)
        titles.append(names)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(fit(grid(rows, titles), MAX_WIDTH)).save(path)
