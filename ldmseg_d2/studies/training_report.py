"""Table, findings and curves of the study of training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tabulate import tabulate

from .report import mean_and_spread
from .training import METRICS, Result, quality
from .training_rows import BASELINE, FACTORS, REGRESSION, Row

# PQ: with one seed a smaller difference is called noise; with several, one that is smaller than
# both half ranges together, or than the second number.
NOISE_ONE_SEED, NOISE_SEVERAL = 3.0, 1.0

Results = dict[Row, Result]


def headline(result: Result) -> float | None:
    """Mean over the seeds of the class-agnostic PQ with the largest number of steps."""
    return _mean([quality(record["results"]) for record in result.records])


def reference_of(row: Row, results: Results) -> Row:
    """The row that a row is compared with."""
    own = [other for other in results if other.factor == row.factor and other.is_reference]
    return own[0] if own else next(iter(results))


def table(results: Results, steps: Sequence[int]) -> str:
    """Markdown, grouped by factor; in brackets the difference to the reference.

    Args:
        results: of all rows, the baseline first.
        steps: of the sampler.
    """
    metrics = [title for title, key in METRICS.items() if _has(results, key)]
    lines, last = [], None
    for row, result in results.items():
        records = result.records
        title = FACTORS.get(row.factor, BASELINE)
        by_steps = [
            mean_and_spread([quality(record["results"], n) for record in records]) for n in steps
        ]
        others = [
            mean_and_spread([_metric(record, METRICS[metric]) for record in records])
            for metric in metrics
        ]
        inpainting = [record["results"].get("inpainting", {}) for record in records]
        stage1 = result.stage1
        reconstruction = stage1["results"]["reconstruction"]["PQ"] if stage1 else None
        lines.append(
            [
                f"**{title}**" if title != last else "",
                _value(row, result, results),
                mean_and_spread([record["seconds_per_iteration"] for record in records], 2),
                mean_and_spread([record["iterations"] for record in records], 0),
                *by_steps,
                _difference(row, results),
                *others,
                mean_and_spread([one.get("given_ids") for one in inpainting]),
                mean_and_spread([one.get("PQ") for one in inpainting]),
                mean_and_spread([stage1["training_minutes"] if stage1 else None]),
                mean_and_spread([reconstruction]),
            ]
        )
        last = title
    header = ["factor", "value", "s an iteration", "iterations"]
    header += [f"PQ, {n} step{'s' * (n > 1)}" for n in steps]
    header += ["difference", *metrics, "given ids, %", "completed PQ", "stage 1, minutes"]
    header += ["its PQ"]
    kept = [i for i in range(len(header)) if i < 4 or any(line[i] != "-" for line in lines)]
    lines = [[line[i] for i in kept] for line in lines]
    return tabulate(lines, [header[i] for i in kept], tablefmt="pipe", disable_numparse=True)


def findings(results: Results) -> list[str]:
    """The best value of every factor, and whether it is more than noise; a line of a list each."""
    lines = []
    for factor, title in FACTORS.items():
        rows = [row for row in results if row.factor == factor]
        measured = [row for row in rows if headline(results[row]) is not None]
        if not measured or factor == REGRESSION:
            continue
        reference = reference_of(measured[0], results)
        best = max({reference: None, **dict.fromkeys(measured)}, key=lambda r: _number(results, r))
        lines.append(f"- {title[0].upper()}{title[1:]}: {_verdict(best, reference, results)}")
    return lines + _regression_line(results) + _inpainting_line(results)


def plot(results: Results, path: Path, *, caption: str) -> None:
    """PQ against training minutes, a panel for each factor; the baseline is black in all."""
    factors = [f for f in FACTORS if any(row.factor == f for row in results)]
    columns = min(len(factors), 4)
    lines = -(-len(factors) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.2 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for panel in panels[len(factors) :]:
        panel.set_visible(False)
    baseline = next(iter(results))
    for panel, factor in zip(panels, factors):
        shown = [row for row in results if row.factor == factor and not results[row].same_as]
        for index, row in enumerate([baseline, *shown]):
            minutes, values = curve_of(results[row])
            colour = f"C{(index - 1) % 10}" if index else "black"
            panel.plot(minutes, values, color=colour, marker=".", label=row.value)
        panel.set_title(FACTORS[factor], fontsize=9)
        panel.set_xlabel("training, minutes", fontsize=8)
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=6, loc="lower right")
    figure.suptitle(caption, fontsize=9)
    figure.savefig(path, dpi=110)


def curve_of(result: Result) -> tuple[list[float], list[float]]:
    """Minutes and class-agnostic PQ, means over the seeds, the end included."""
    minutes: list[float] = []
    values: list[float] = []
    points = sorted({int(point) for record in result.records for point in record["curve"]})
    for point in points:
        each = [record for record in result.records if str(point) in record["curve"]]
        value = _mean([quality(record["curve"][str(point)]) for record in each])
        if value is not None:
            minutes.append(_mean([r["seconds_per_iteration"] for r in each]) * point / 60)
            values.append(value)
    if headline(result) is not None:
        minutes.append(_mean([record["training_minutes"] for record in result.records]))
        values.append(headline(result))
    return minutes, values


def threshold(row: Row, reference: Row, results: Results) -> float:
    """Differences of PQ below this are called noise."""
    pair = [results[row].records, results[reference].records]
    if min(len(records) for records in pair) < 2:
        return NOISE_ONE_SEED
    return max(sum(_half_range(records) for records in pair), NOISE_SEVERAL)


def _verdict(best: Row, reference: Row, results: Results) -> str:
    before, after = _number(results, reference), _number(results, best)
    if best == reference or results[best].same_as == reference:
        return f"nothing is ahead of the baseline's value ({before:.1f} PQ)."
    gain = after - before
    if gain < threshold(best, reference, results):
        return f"{best.value} is ahead by no more than noise, {after:.1f} against {before:.1f} PQ."
    return f"{best.value} is best, {after:.1f} against {before:.1f} PQ."


def _regression_line(results: Results) -> list[str]:
    regressions = [r for r in results if r.factor == REGRESSION and headline(results[r])]
    if not regressions:
        return []
    best = max(regressions, key=lambda row: _number(results, row))
    baseline = next(iter(results))
    before, after = _number(results, best), _number(results, baseline)
    return [
        f"- One-step regression with {best.value} reaches {before:.1f} PQ; the baseline, a "
        f"diffusion model of as long a training, {after:.1f} ({after - before:+.1f})."
    ]


def _inpainting_line(results: Results) -> list[str]:
    shares = {
        row: _mean([r["results"].get("inpainting", {}).get("given_ids") for r in result.records])
        for row, result in results.items()
    }
    shares = {row: share for row, share in shares.items() if share is not None}
    if not shares:
        return []
    worst, best = min(shares, key=shares.get), max(shares, key=shares.get)
    return [
        "- Inpainting, half of the blocks given: of the dropped pixels of partly given segments "
        f"{shares[worst]:.1f} % ({worst.value}) to {shares[best]:.1f} % ({best.value}) get the id "
        "that was given; given pixels keep theirs by construction."
    ]


def _value(row: Row, result: Result, results: Results) -> str:
    if result.same_as is None:
        return row.value
    name = "the baseline" if result.same_as == next(iter(results)) else result.same_as.value
    return f"{row.value} (= {name})"


def _difference(row: Row, results: Results) -> str:
    reference = reference_of(row, results)
    values = headline(results[row]), headline(results[reference])
    if row == reference or results[row].same_as == reference or None in values:
        return "-"
    return f"{values[0] - values[1]:+.1f}"


def _metric(record: dict[str, Any], key: tuple[str, str]) -> float | None:
    by_steps = record["results"]["steps"]
    return by_steps[max(by_steps, key=int)].get(key[0], {}).get(key[1])


def _has(results: Results, key: tuple[str, str]) -> bool:
    return any(_metric(r, key) is not None for result in results.values() for r in result.records)


def _number(results: Results, row: Row) -> float:
    value = headline(results[row])
    return float("-inf") if value is None else value


def _half_range(records: Sequence[dict[str, Any]]) -> float:
    values = [quality(record["results"]) for record in records]
    values = [value for value in values if value is not None]
    return (max(values) - min(values)) / 2 if values else 0.0


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None
