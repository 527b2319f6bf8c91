"""An experiment's numbers as Markdown tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from .mosaics import COUNTS
from .study_file import BASE, Row

Models = Sequence[Mapping[str, Any]]

# Key and name of a metric, title, digits.
METRICS = (
    ("panoptic_seg", "PQ", "PQ", 1),
    ("panoptic_seg", "PQ_th", "things", 1),
    ("panoptic_seg", "PQ_st", "stuff", 1),
    ("panoptic_class_agnostic", "PQ", "PQ class-agnostic", 1),
    ("sem_seg", "mIoU", "mIoU", 1),
    ("depth", "AbsRel", "AbsRel", 3),
)
STUDIED = tuple(metric for metric in METRICS if metric[2] in ("PQ", "mIoU", "AbsRel"))
# The ceiling of what a model trained here can reach.
CEILING = "its autoencoder's PQ"
HEADLINE = ("panoptic_class_agnostic", "PQ")


def mean_and_spread(values: Sequence[float | None], digits: int = 1) -> str:
    """The mean over seeds, and half of the range where there are several; "-" without a number.

    >>> mean_and_spread([40.0, 44.0]), mean_and_spread([0.0825], 3), mean_and_spread([None])
    ('42.0 ± 2.0', '0.083', '-')
    """
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "-"
    text = f"{sum(numbers) / len(numbers):.{digits}f}"
    if len(numbers) > 1:
        text += f" ± {(max(numbers) - min(numbers)) / 2:.{digits}f}"
    return text


def metric(results: Models, key: str, name: str, digits: int = 1) -> str:
    """One number over the seeds as text; "-" where there is none."""
    return mean_and_spread([r.get(key, {}).get(name) for r in results], digits)


def mean_metric(results: Models, key: str, name: str) -> float | None:
    """Its mean over the seeds; None where the model does not give it."""
    numbers = [v for r in results if (v := r.get(key, {}).get(name)) is not None]
    return sum(numbers) / len(numbers) if numbers else None


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table without the columns in which no row has anything."""
    kept = [i for i in range(len(header)) if any(row[i] not in ("-", "") for row in rows)]
    cells = [[row[i] for i in kept] for row in rows]
    return tabulate(cells, [header[i] for i in kept], tablefmt="pipe", disable_numparse=True)


def model_table(models: Models) -> str:
    """What each model reaches and costs at each number of steps, its size and its training."""
    rows = []
    for model in models:
        for row in model["rows"]:
            cells = [metric(row["results"], key, name, n) for key, name, _, n in METRICS]
            cells.append(metric(ceilings(model), "reconstruction", "PQ"))
            cells += [f"{model['parameters'] / 1e6:.2f}", f"{row['gflops']:.2f}"]
            cells.append(f"{row['latency_ms']:.1f}")
            cells.append(f"{model['memory'] / 1e9:.2f}" if model["memory"] else "-")
            rows.append([row["title"], *cells, *_training_cells(model)])
    header = ["model", *(title for *_, title, _ in METRICS), CEILING, "parameters, M", "GFLOPs"]
    header += ["latency, ms", "memory, GB", "training, minutes", "iterations"]
    return markdown(header, rows)


def _training_cells(model: Mapping[str, Any]) -> list[str]:
    """Minutes and iterations of all stages."""
    trainings = [t["stages"] for t in model["trainings"] if t["stages"]]
    minutes = mean_and_spread([sum(s["seconds"] for s in stages) / 60 for stages in trainings])
    counts = [" + ".join(str(s["iterations"]) for s in stages) for stages in trainings]
    return [minutes, " / ".join(dict.fromkeys(counts)) or "-"]


def ceilings(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Results of the autoencoder that was trained first, for each seed."""
    stages = [stage for training in model["trainings"] for stage in training["stages"]]
    results = [stage.get("results", {}) for stage in stages]
    return [one for one in results if "reconstruction" in one]


def own_results(model: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The model's results at its own number of steps."""
    return next(row for row in model["rows"] if row["own"])["results"]


def study_table(rows: Sequence[Row], models: Models) -> str:
    """Every row of a study; the difference is to the base's class-agnostic PQ, at its own steps."""
    by_name = {model["name"]: model for model in models}
    steps = sorted({row["steps"] for model in models for row in model["rows"]})
    base = mean_metric(own_results(models[0]), *HEADLINE)
    lines = []
    for row in rows:
        model = by_name[row.contender]
        at = {one["steps"]: one for one in model["rows"]}
        own = own_results(model)
        number = mean_metric(own, *HEADLINE)
        unlike = row.contender != rows[0].contender and None not in (number, base)
        each = [t["stages"][-1] for t in model["trainings"] if t["stages"]]
        seconds = [stage["seconds"] / stage["iterations"] for stage in each]
        same = row.factor != BASE and row.contender != f"{row.factor} {row.value}"
        lines.append(
            [
                row.factor,
                f"{row.value} (= {row.contender})" if same else row.value,
                mean_and_spread(seconds, 2),
                _training_cells(model)[1],
                *(metric(at[n]["results"], *HEADLINE) if n in at else "-" for n in steps),
                f"{number - base:+.1f}" if unlike else "-",
                *(metric(own, key, name, digits) for key, name, _, digits in STUDIED),
                metric(ceilings(model), "reconstruction", "PQ"),
                " / ".join(f"{at[n]['latency_ms']:.0f}" for n in steps if n in at),
            ]
        )
    titles = [f"PQ class-agnostic, {n} step{'s' * (n > 1)}" for n in steps]
    header = ["factor", "value", "s an iteration", "iterations", *titles, "difference"]
    header += [*(title for *_, title, _ in STUDIED), CEILING, "latency, ms"]
    return markdown(header, lines)


def counts_table(models: Models) -> str:
    """PQ by the number of segments of a picture, of each model and of its autoencoder alone."""
    rows = []
    for model in models:
        kinds = {"reconstruction": ceilings(model), "full model": own_results(model)}
        for kind, results in kinds.items():
            cells = [metric(results, "counts", label) for label in COUNTS]
            rows.append([model["name"], kind, *cells])
    return markdown(["model", "PQ class-agnostic", *COUNTS], rows)
