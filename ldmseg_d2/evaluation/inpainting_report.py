"""What tools/evaluate_inpainting.py writes: tables, plots, panels of pictures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..visualization import draw_panoptic, enlarge, grid, shrink
from .inpainting import Hints, Picture

LABELS = {
    "no_hints": "model without hints",
    "nearest": "nearest neighbour",
    "random_walker": "random walker",
}
# Pictures of a panel are enlarged to about this side, pixels.
PANEL_SIDE = 192
# A wider panel is made smaller: photos would be megabytes.
MAX_PANEL_WIDTH = 1280


def label(method: str) -> str:
    """How a method is called in tables and plots."""
    return LABELS.get(method, f"model, {method}")


def results_table(results: Sequence[dict[str, Any]]) -> str:
    """One Markdown table for each pattern: methods by drop rates.

    Args:
        results: dicts with ``pattern``, ``drop``, ``method`` and the numbers of
            :func:`~ldmseg_d2.evaluation.inpainting.evaluate_completion`.
    """
    lines = []
    for pattern in dict.fromkeys(r["pattern"] for r in results):
        own = {(r["method"], r["drop"]): r for r in results if r["pattern"] == pattern}
        drops = sorted({drop for _, drop in own})
        lines += [f"**{pattern}**", ""]
        lines.append("| dropped | " + " | ".join(f"{100 * d:g} %" for d in drops) + " |")
        lines.append("| --- " * (len(drops) + 1) + "|")
        for method in dict.fromkeys(method for method, _ in own):
            cells = [_cell(own.get((method, drop))) for drop in drops]
            lines.append(f"| {label(method)} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return "-"
    return f"{result['PQ']:.1f} ({result['dropped_PQ']:.1f}, {result['dropped_mIoU']:.1f})"


def plot_results(results: Sequence[dict[str, Any]]) -> np.ndarray:
    """PQ of the completed masks, and PQ on the dropped region, over the drop rate.

    Args:
        results: see :func:`results_table`.

    Returns:
        (H, W, 3) uint8: a column for each pattern.
    """
    patterns = list(dict.fromkeys(r["pattern"] for r in results))
    methods = list(dict.fromkeys(r["method"] for r in results))
    figure = Figure(figsize=(3.4 * len(patterns) + 2.2, 6), layout="constrained")
    axes = figure.subplots(2, len(patterns), squeeze=False, sharex=True, sharey=True)
    rows = (("PQ", "PQ of the completed mask"), ("dropped_PQ", "PQ on the dropped region"))
    for column, pattern in enumerate(patterns):
        for row, (key, title) in enumerate(rows):
            axis = axes[row][column]
            for color, method in enumerate(methods):
                points = sorted(
                    (100 * r["drop"], r[key])
                    for r in results
                    if r["pattern"] == pattern and r["method"] == method
                )
                style = "--" if method in LABELS else "-"
                name = label(method) if row == column == 0 else None
                axis.plot(*zip(*points), style, marker="o", ms=3, color=f"C{color}", label=name)
            axis.grid(alpha=0.3)
            axis.set_ylim(0, 100)
            if column == 0:
                axis.set_ylabel(title)
        axes[0][column].set_title(pattern)
        axes[1][column].set_xlabel("dropped, %")
    figure.legend(loc="outside right upper", frameon=False)
    return _to_array(figure)


def plot_calibration(summary: dict[str, Any]) -> np.ndarray:
    """Error over disagreement (reliability), and how many pixels have it.

    Args:
        summary: of :meth:`Calibration.summary`.

    Returns:
        (H, W, 3) uint8.
    """
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axis = figure.subplots()
    x = [100 * b["disagreement"] for b in summary["bins"]]
    axis.plot([0, 100], [0, 100], ":", color="grey", label="error = disagreement")
    axis.plot(x, [100 * b["error"] for b in summary["bins"]], "-o", label="wrong pixels")
    share = [100 * b["pixels"] for b in summary["bins"]]
    axis.bar(x, share, width=4, alpha=0.25, label="share of pixels")
    axis.set_xlabel("disagreement between the samples, %")
    axis.set_ylabel("%")
    axis.set_xlim(-4, 104)
    axis.set_ylim(0, 100)
    axis.legend(frameon=False)
    return _to_array(figure)


def draw_panel(
    pictures: Sequence[Picture],
    hints: Sequence[Hints],
    completed: Sequence[np.ndarray],
) -> np.ndarray:
    """A row for each picture: photo, given, completed, ground truth; (H, W, 3) uint8."""
    rows, titles = [], []
    for picture, one, ids in zip(pictures, hints, completed, strict=True):
        scale = max(1, PANEL_SIDE // max(picture.truth.shape))
        look = {"scale": scale, "like": picture.truth}
        rows.append(
            [
                enlarge(picture.photo, scale),
                draw_panoptic(picture.photo, one.ids, **look),
                draw_panoptic(picture.photo, ids, **look),
                draw_panoptic(picture.photo, picture.truth, **look),
            ]
        )
        titles.append(["photo", "given", "completed", "ground truth"])
    return shrink(grid(rows, titles), MAX_PANEL_WIDTH)


def statement(run: dict[str, Any]) -> str:
    """What the numbers depend on, in a sentence.

    Args:
        run: as tools/evaluate_inpainting.py makes it: "pictures", "dataset", "sampler", "seed",
            "model_seed", "block_size", "thresholds", "device", "versions" and "command".
    """
    thresholds = ", ".join(f"{key} {value}" for key, value in run["thresholds"].items())
    sampler = run["sampler"]
    return (
        f"{run['pictures']} pictures of {run['dataset']}, {sampler['NAME']} with "
        f"{sampler['NUM_INFERENCE_STEPS']} steps, seeds {run['seed']} (patterns) and "
        f"{run['model_seed']} (model), blocks of {run['block_size']} px, thresholds: {thresholds}; "
        f"{run['device']}, torch {run['versions']['torch']}. Command: `{run['command']}`"
    )


def _to_array(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(120)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
