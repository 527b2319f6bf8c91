"""PQ against latency."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from .tables import mean_metric

# The two qualities that are drawn: key of the results, title.
QUALITIES = {"panoptic_seg": "PQ", "panoptic_class_agnostic": "PQ, class-agnostic"}


def plot_latency(models: Sequence[Mapping[str, Any]], path: Path, *, caption: str) -> None:
    """Write a plot; a model's numbers of steps are joined by a line."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(caption, fontsize=9)
    panels = figure.subplots(1, len(QUALITIES))
    for panel, (key, title) in zip(panels, QUALITIES.items(), strict=True):
        for index, model in enumerate(models):
            values = [(row, mean_metric(row["results"], key, "PQ")) for row in model["rows"]]
            points = [(row["latency_ms"], value) for row, value in values if value is not None]
            if points:
                label = model["name"]
                panel.plot(*zip(*points, strict=True), "o-", label=label, color=f"C{index}")
                panel.legend(fontsize=7)
        panel.set(title=title, xlabel="latency, ms (batch 1, median)", ylabel="percent")
        panel.set(xscale="log", ylim=(0, 100))
        # More labels run into each other.
        panel.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        for axis in (panel.xaxis.set_major_formatter, panel.xaxis.set_minor_formatter):
            axis(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.tick_params(which="both", labelsize=7)
        panel.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
