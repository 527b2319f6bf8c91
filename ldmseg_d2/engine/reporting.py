"""What a run says about itself: its model's size, its metrics, its results."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate
from torch import nn

# (key of a result, its metric, name in tables, digits): the numbers that are compared, in order.
HEADLINES = (
    ("panoptic_seg", "PQ", "PQ", 1),
    ("panoptic_seg", "SQ", "SQ", 1),
    ("panoptic_seg", "RQ", "RQ", 1),
    ("panoptic_seg", "PQ_th", "PQ things", 1),
    ("panoptic_seg", "PQ_st", "PQ stuff", 1),
    ("panoptic_class_agnostic", "PQ", "PQ class-agnostic", 1),
    ("panoptic_class_agnostic", "SQ", "SQ class-agnostic", 1),
    ("panoptic_class_agnostic", "RQ", "RQ class-agnostic", 1),
    ("sem_seg", "mIoU", "mIoU", 1),
    ("sem_seg", "pACC", "pixel accuracy", 1),
    ("segm", "AP", "mask AP", 1),
    ("segm", "AP50", "mask AP50", 1),
    ("depth", "AbsRel", "depth AbsRel", 3),
    ("depth", "RMSE", "depth RMSE, m", 3),
    ("depth", "delta1", "depth delta1", 3),
    ("reconstruction", "PQ", "PQ of the reconstruction", 1),
    ("reconstruction", "SQ", "SQ of the reconstruction", 1),
    ("reconstruction", "RQ", "RQ of the reconstruction", 1),
)


def describe_parameters(model: nn.Module) -> str:
    """The parameters of a model and of its direct parts, a line each."""
    lines = []
    for name, module in [("", model), *model.named_children()]:
        total = sum(p.numel() for p in module.parameters())
        frozen = sum(p.numel() for p in module.parameters() if not p.requires_grad)
        title = f"  {name} ({type(module).__name__})" if name else type(module).__name__
        if total:
            lines.append(f"{title}: {total:,} parameters, {frozen:,} frozen")
    return "\n".join(lines)


def trim_metrics(path: Path, start_iter: int) -> None:
    """Remove from a ``metrics.json`` what was written at `start_iter` or after.

    A line cut short by a kill is removed too; the file need not exist.
    """
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        # A whole line ends in a line break.
        if line.endswith("}\n") and json.loads(line).get("iteration", -1) < start_iter:
            kept.append(line)
    path.write_text("".join(kept), encoding="utf-8")


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Write nested results as JSON; numbers that are not finite become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_to_json(results), indent=2)
    path.write_text(f"{text}\n", encoding="utf-8")


def headlines(results: Mapping[str, Any]) -> dict[str, str]:
    """The numbers that are compared, of one data set: name to text; "-" is no number.

    Example:
        >>> headlines({"sem_seg": {"mIoU": 71.25}, "depth": {"AbsRel": 0.0625}})
        {'mIoU': '71.2', 'depth AbsRel': '0.062'}
    """
    numbers = {}
    for key, metric, name, digits in HEADLINES:
        metrics = results.get(key)
        if isinstance(metrics, Mapping) and metric in metrics:
            value = metrics[metric]
            known = value is not None and math.isfinite(value)
            numbers[name] = f"{value:.{digits}f}" if known else "-"
    return numbers


def results_table(results: Mapping[str, Any]) -> str:
    """A table of :func:`headlines`, a row each and a column a data set; empty: none is known."""
    columns = {name: headlines(one or {}) for name, one in results.items()}
    names = [h[2] for h in HEADLINES if any(h[2] in column for column in columns.values())]
    if not names:
        return ""
    rows = [[name, *(column.get(name, "") for column in columns.values())] for name in names]
    align = ("left", *("right" for _ in columns))
    return tabulate(rows, ["", *columns], tablefmt="pipe", colalign=align, disable_numparse=True)


def error_text(error: BaseException) -> str:
    """The message of an error; ``str`` of a KeyError would quote it."""
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error)


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
