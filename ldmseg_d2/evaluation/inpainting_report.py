"""What an evaluation of inpainting shows: tables, plots, panels of pictures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from ..visualization import draw_panoptic, enlarge, grid
from .inpainting_evaluation import Hints, Picture

LABELS = {
    "no_hints": "model without hints",
    "nearest": "nearest neighbour",
    "random_walker": "random walker",
    "model": "model",
}
CAPTION = "Class-agnostic PQ of the completed mask / PQ / mIoU on the dropped region alone."
# So many pictures are shown, enlarged to about this side; pixels.
NUM_PANEL, PANEL_SIDE = 6, 192


def results_table(results: Sequence[dict[str, Any]]) -> str:
    """One Markdown table for each pattern: methods by drop rates.

    Results are dicts with ``pattern``, ``drop``, ``method`` and what ``evaluate_completion`` gives.
    """
    parts = [CAPTION]
    for pattern in dict.fromkeys(r["pattern"] for r in results):
        own = sorted((r for r in results if r["pattern"] == pattern), key=lambda r: r["drop"])
        header = {f"{100 * r['drop']:g} %": None for r in own}
        rows = {r["method"]: [LABELS[r["method"]]] for r in results if r["pattern"] == pattern}
        for r in own:
            rows[r["method"]].append("{PQ:.1f}/{dropped_PQ:.1f}/{dropped_mIoU:.1f}".format(**r))
        table = tabulate(list(rows.values()), ["dropped", *header], tablefmt="pipe")
        parts.append(f"**{pattern}**\n\n{table}")
    return "\n\n".join([*parts, ""])


def draws_table(summary: dict[str, Any]) -> str:
    """What ``evaluate_draws`` gives, as Markdown."""
    rows = []
    for one in summary["bins"]:
        level, share, error = (100 * one[key] for key in ("disagreement", "pixels", "error"))
        rows.append([f"{level:.0f} %", f"{share:.2f} %", f"{error:.1f} %"])
    return (
        f"{summary['num_samples']} masks a picture: PQ {summary['single']:.1f} on average, "
        f"{summary['consensus']:.1f} for their consensus.\n\n"
        f"{tabulate(rows, ['disagreement', 'pixels', 'wrong'], tablefmt='pipe')}\n"
    )


def plot_results(results: Sequence[dict[str, Any]]) -> Figure:
    """PQ of the completed masks, and on the dropped region, over the drop rate, by pattern."""
    patterns = list(dict.fromkeys(r["pattern"] for r in results))
    methods = list(dict.fromkeys(r["method"] for r in results))
    figure = Figure(figsize=(3.4 * len(patterns) + 2.2, 6), layout="constrained")
    axes = figure.subplots(2, len(patterns), squeeze=False, sharex=True, sharey=True)
    rows = (("PQ", "PQ of the completed mask"), ("dropped_PQ", "PQ on the dropped region"))
    for column, pattern in enumerate(patterns):
        own = [r for r in results if r["pattern"] == pattern]
        for axis, (key, title) in zip(axes[:, column], rows):
            for method in methods:
                points = sorted((100 * r["drop"], r[key]) for r in own if r["method"] == method)
                style = "-" if method == "model" else "--"
                axis.plot(*zip(*points), style, marker="o", ms=3, label=LABELS[method])
            axis.grid(alpha=0.3)
            axis.set_ylim(0, 100)
            axes[0][column].set_title(pattern)
            axis.set_ylabel(title if column == 0 else "")
        axes[1][column].set_xlabel("dropped, %")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def draw_panel(
    pictures: Sequence[Picture], hints: Sequence[Hints], completed: Sequence[np.ndarray]
) -> np.ndarray:
    """A row for some of the pictures: photo, given, completed, ground truth; (H, W, 3) uint8."""
    rows = []
    # Of a video's frames, one after the other looks the same.
    step = max(1, len(pictures) // NUM_PANEL)
    for picture, one, ids in list(zip(pictures, hints, completed))[::step][:NUM_PANEL]:
        scale = max(1, PANEL_SIDE // max(picture.truth.shape))
        maps = [
            draw_panoptic(picture.photo, drawn, scale=scale, like=picture.truth)
            for drawn in (one.ids, ids, picture.truth)
        ]
        rows.append([enlarge(picture.photo, scale), *maps])
    titles = [["photo", "given", "completed", "ground truth"]] * len(rows)
    return grid(rows, titles)
