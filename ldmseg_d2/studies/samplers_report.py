"""The study of samplers in tables, words and a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tabulate import tabulate

from .report import mean_and_spread
from .samplers import MEASURED, Combination
from .tasks import Metric, value

# PQ at FEW steps should be at least this share of that at MANY.
FEW, MANY, WANTED_SHARE = 4, 50, 0.97
BEST_AT = (1, 4, 10, 50)

Records = Sequence[dict[str, Any]]
Scores = dict[Combination, list[float]]


def scores(records: Records, metric: Metric) -> Scores:
    """A metric's values by combination, one for each seed; without what was not measured."""
    found: Scores = {}
    for record in records:
        number = value(record, metric)
        if number is not None:
            key = Combination(record["sampler"], record["steps"], record["spacing"])
            found.setdefault(key, []).append(number)
    return found


def tables(records: Records) -> list[str]:
    """Lines of Markdown: for each metric a table, spacing and sampler by steps."""
    lines: list[str] = []
    for metric in MEASURED:
        found = scores(records, metric)
        if not found:
            continue
        steps = sorted({one.steps for one in found})
        rows = [
            [sampler, spacing]
            + [mean_and_spread(found.get(Combination(sampler, n, spacing), [])) for n in steps]
            for spacing, sampler in _lines(found)
        ]
        header = [metric.title, "spacing", *(f"{n} step{'s' * (n > 1)}" for n in steps)]
        lines += [tabulate(rows, header, tablefmt="pipe", disable_numparse=True), ""]
    return lines


def cost_table(latency: Records) -> list[str]:
    """Lines of Markdown: network passes and latency by sampler and steps."""
    by_key = {(one["sampler"], one["steps"]): one for one in latency}
    steps = sorted({n for _, n in by_key})
    rows = []
    for sampler in dict.fromkeys(one["sampler"] for one in latency):
        cells = [sampler]
        for number in steps:
            one = by_key.get((sampler, number))
            passes = Combination(sampler, number, "trailing").passes
            cells.append("-" if one is None else f"{passes} / {one['ratio']:.1f}")
        rows.append(cells)
    header = ["passes / latency", *(f"{n} step{'s' * (n > 1)}" for n in steps)]
    return [tabulate(rows, header, tablefmt="pipe", disable_numparse=True)]


def findings(records: Records) -> list[str]:
    """What the class-agnostic PQ says (PQ where there is none), a line for each question."""
    for metric in MEASURED:
        found = scores(records, metric)
        if found:
            break
    else:
        return []
    lines = [_noise(found, metric)]
    steps = {one.steps for one in found}
    lines += [_best_at(found, number) for number in BEST_AT if number in steps]
    if {FEW, MANY} <= steps:
        lines += _shares(found)
    return lines


def _noise(found: Scores, metric: Metric) -> str:
    spreads = sorted(_spread(numbers) for numbers in found.values())
    seeds = max(len(numbers) for numbers in found.values())
    if seeds < 2:
        return (
            f"- {metric.title} with one seed of the noise: how much of a difference is chance was "
            "not measured (`--seeds 0 1 2` measures it)."
        )
    return (
        f"- {metric.title}, mean of {seeds} seeds of the noise. Half of their range is "
        f"{spreads[len(spreads) // 2]:.1f} in the median over all combinations, "
        f"{spreads[-1]:.1f} at most. Two are told apart here where they differ by more than their "
        "half ranges together."
    )


def _best_at(found: Scores, steps: int) -> str:
    """The best of one number of steps, and which are not told apart from it."""
    of_steps = {one: numbers for one, numbers in found.items() if one.steps == steps}
    best = max(of_steps, key=lambda one: _mean(of_steps[one]))
    top, spread = _mean(of_steps[best]), _spread(of_steps[best])
    equal = [
        one
        for one, numbers in of_steps.items()
        if one != best and top - _mean(numbers) <= spread + _spread(numbers)
    ]
    text = f"- {steps} step{'s' * (steps > 1)}: {_name(best)} is best with {top:.1f}"
    several = max(len(numbers) for numbers in of_steps.values()) > 1
    if equal:
        apart = "Not told apart from it" if several else "The same number have"
        text += f". {apart}: {_names(equal)}"
    elif several and len(of_steps) > 1:
        text += ", ahead of all others by more than the noise"
    return f"{text}."


def _shares(found: Scores) -> list[str]:
    """PQ at few steps over PQ at many."""

    def best(steps: int) -> tuple[Combination, float]:
        one = max((c for c in found if c.steps == steps), key=lambda c: _mean(found[c]))
        return one, _mean(found[one])

    (few, few_pq), (many, many_pq) = best(FEW), best(MANY)
    if many_pq <= 0:
        return []
    share = few_pq / many_pq
    verdict = "at least" if share >= WANTED_SHARE else "less than"
    lines = [
        f"- {FEW} steps against {MANY}: the best of each ({_name(few)}, {_name(many)}) have "
        f"{few_pq:.1f} and {many_pq:.1f}: {share:.1%}, {verdict} the {WANTED_SHARE:.0%} aimed at."
    ]
    parts = []
    for spacing, sampler in _lines(found):
        pair = [found.get(Combination(sampler, n, spacing)) for n in (FEW, MANY)]
        if None not in pair and _mean(pair[1]) > 0:
            parts.append(f"{sampler} {spacing} {_mean(pair[0]) / _mean(pair[1]):.1%}")
    return [*lines, f"- The same for each by itself: {', '.join(parts)}."]


def plot(records: Records, path: Path) -> None:
    """PQ over the number of steps, a line for each sampler, a panel for each spacing."""
    metric = next((metric for metric in MEASURED if scores(records, metric)), MEASURED[0])
    found = scores(records, metric)
    spacings = list(dict.fromkeys(spacing for spacing, _ in _lines(found)))
    samplers = list(dict.fromkeys(one.sampler for one in found))
    figure = Figure(figsize=(3.6 * max(len(spacings), 1), 3.8), layout="constrained")
    panels = figure.subplots(1, max(len(spacings), 1), sharey=True, squeeze=False)[0]
    for panel, spacing in zip(panels, spacings, strict=True):
        for index, sampler in enumerate(samplers):
            own = sorted(c for c in found if (c.sampler, c.spacing) == (sampler, spacing))
            if not own:
                continue
            x, y = [c.steps for c in own], [_mean(found[c]) for c in own]
            error = [_spread(found[c]) for c in own]
            style = {"color": f"C{index}", "marker": "osv^Dx"[index % 6], "markersize": 4}
            panel.errorbar(x, y, error, label=sampler, capsize=2, linewidth=1.2, **style)
        ticks = sorted({c.steps for c in found})
        panel.set_xscale("log")
        panel.set_xticks(ticks, [str(number) for number in ticks])
        panel.minorticks_off()
        panel.set_title(f"{spacing} spacing", fontsize=10)
        panel.set_xlabel("steps", fontsize=9)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(metric.title, fontsize=9)
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def _lines(found: Scores) -> list[tuple[str, str]]:
    """(spacing, sampler) in the order in which they were measured."""
    spacings = list(dict.fromkeys(one.spacing for one in found))
    pairs = dict.fromkeys((one.spacing, one.sampler) for one in found)
    return sorted(pairs, key=lambda pair: spacings.index(pair[0]))


def _name(one: Combination) -> str:
    return f"{one.sampler} ({one.spacing})"


def _names(several: Sequence[Combination]) -> str:
    by_spacing: dict[str, list[str]] = {}
    for one in several:
        by_spacing.setdefault(one.spacing, []).append(one.sampler)
    return "; ".join(f"{spacing} {', '.join(own)}" for spacing, own in by_spacing.items())


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _spread(numbers: Sequence[float]) -> float:
    return (max(numbers) - min(numbers)) / 2
