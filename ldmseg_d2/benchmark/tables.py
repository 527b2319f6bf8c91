"""The benchmark's page: tables, and under which conditions they were measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ldmseg_d2.studies.report import mean_and_spread

from .plots import quality
from .quality import SIZES

HEADER = """\
# Benchmark

Models of different kinds side by side: the same data, the same training time, the same evaluation,
the same machine. Every section is written by `tools/benchmark.py` from what it measured; its
command is below its tables.

```bash
python tools/benchmark.py --configs FILE FILE ... --dataset scenes --budget 20m \\
    --output output/benchmark_scenes --doc docs/BENCHMARK.md
```

- **Training.** Every model is trained from scratch for the budget. A time becomes a number of
  iterations before the training starts, since schedules depend on it: some iterations are timed on
  this machine, in CPU time of the process (all its threads) on a CPU and in wall time on a GPU.
  What a model needs before it, such as LDMSeg's autoencoder (`BENCHMARK.FIRST_STAGE`), is trained
  within the same budget. The minutes in the table are what the iterations took. Evaluations and
  checkpoints are not counted. `--budget iters:N` gives iterations instead.
- **Quality.** PQ, SQ and RQ by panopticapi, with classes; *class-agnostic*: a segment counts
  whatever its class, which also measures models without classes. mIoU of the semantic map, where a
  model gives one. Percent; "-": the model does not give it. Several seeds: mean ± half of their
  range.
- **Cost.** GFLOPs count a multiplication and an addition as two, for a whole picture with all
  sampling steps; ROI operators and deformable sampling are not counted. Memory is the peak of a
  process that segments one picture (on a CPU with all libraries, about 0.7 GB).
- **Speed.** Latency is wall time at batch 1, from the picture as the data loader gives it to the
  result, with all post-processing. All models are timed in turn in one process, picture by picture
  (A B C A B C), so that a drifting machine does not decide. Throughput is that of the best batch.
- An interrupted benchmark goes on with the same command; what is done is not repeated.
"""

COLUMNS = ("PQ", "PQ things", "PQ stuff", "SQ", "RQ", "PQ class-agnostic", "mIoU")
METRICS = (
    ("panoptic_seg", "PQ"),
    ("panoptic_seg", "PQ_th"),
    ("panoptic_seg", "PQ_st"),
    ("panoptic_seg", "SQ"),
    ("panoptic_seg", "RQ"),
    ("panoptic_class_agnostic", "PQ"),
    ("sem_seg", "mIoU"),
)


def metric(results: Sequence[Mapping[str, Any]], key: str, name: str, digits: int = 1) -> str:
    """One number over the seeds as text; "-" where there is none."""
    return mean_and_spread([r.get(key, {}).get(name) for r in results], digits)


def quality_table(models: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: what each model reaches at each number of steps, and its size and training."""
    rows = []
    for model in models:
        for row in model["rows"]:
            cells = [metric(row["results"], *which) for which in METRICS]
            rows.append([row["title"], *cells, *_training_cells(model)])
    header = ["model", *COLUMNS, "parameters, M", "training, minutes", "iterations"]
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)


def _training_cells(model: Mapping[str, Any]) -> list[str]:
    trainings = [t for t in model["trainings"] if t["stages"]]
    minutes = mean_and_spread([t["seconds"] / 60 for t in trainings])
    counts = [" + ".join(str(s["iterations"]) for s in t["stages"]) for t in trainings]
    iterations = " / ".join(dict.fromkeys(counts)) or "-"
    return [f"{model['parameters'] / 1e6:.2f}", minutes, iterations]


def seeds_table(models: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: each training at the model's own steps, a row a seed; "" where no model has two."""
    rows = []
    for model in models:
        row = next(row for row in model["rows"] if row["own"])
        for training, results in zip(model["trainings"], row["results"], strict=True):
            cells = [metric([results], *which) for which in METRICS]
            minutes, iterations = _training_cells({**model, "trainings": [training]})[1:]
            rows.append([row["title"], str(training["seed"]), *cells, minutes, iterations])
    if len(rows) == len(models):
        return ""
    header = ["model", "seed", *COLUMNS, "training, minutes", "iterations"]
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)


def speed_table(models: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: what each model costs at each number of steps."""
    rows = []
    for model in models:
        memory, best = model["memory"], max(model["throughput"].items(), key=lambda item: item[1])
        for row in model["rows"]:
            latency = row["latency"]
            cells = [row["title"], f"{row['gflops']:.2f}"]
            cells += [f"{latency[key]:.1f}" for key in ("median_ms", "p90_ms", "cpu_median_ms")]
            cells.append(f"{latency['relative']:.2f}")
            cells.append(f"{best[1]:.1f} (batch {best[0]})" if row["own"] else "-")
            cells.append(f"{memory['peak_bytes'] / 1e9:.2f}" if memory else "-")
            rows.append(cells)
    header = ["model", "GFLOPs a picture", "latency, ms: median", "p90", "CPU time, median"]
    header += ["relative to the first", "pictures a second", "peak memory, GB"]
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)


def ceiling(model: Mapping[str, Any]) -> list[float | None]:
    """PQ of the autoencoder's reconstruction, for each seed: no mask of LDMSeg's can be better."""
    return [
        stage["results"]["reconstruction"]["PQ"]
        for training in model["trainings"]
        for stage in training["stages"]
        if "reconstruction" in stage["results"]
    ]


def limits_table(models: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: of each model, at its own steps, where class-agnostic PQ is lost."""
    rows = []
    for model in models:
        results = next(row for row in model["rows"] if row["own"])["results"]
        cells = [model["name"], mean_and_spread(ceiling(model))]
        cells += [metric(results, "panoptic_class_agnostic", name) for name in ("PQ", "SQ", "RQ")]
        cells += [metric(results, "limits", f"PQ_{size}") for size in SIZES]
        cells += [metric(results, "limits", name) for name in ("missed", "invented", "class")]
        rows.append(cells)
    header = ["model", "ceiling (reconstruction)", "PQ class-agnostic", "SQ", "RQ"]
    header += [f"PQ {size}" for size in SIZES]
    header += ["missed, %", "invented, %", "classes right, %"]
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)


def findings(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line a model that follows from its row of the limits: what it loses most to."""
    lines = []
    for model in models:
        results = next(row for row in model["rows"] if row["own"])["results"]
        agnostic = [r["panoptic_class_agnostic"] for r in results if "panoptic_class_agnostic" in r]
        limits = [r["limits"] for r in results if "limits" in r]
        if not agnostic or not limits:
            continue
        sq, rq = (sum(a[key] for a in agnostic) / len(agnostic) for key in ("SQ", "RQ"))
        missed, invented = (sum(m[k] for m in limits) / len(limits) for k in ("missed", "invented"))
        what = "segments that are missed or invented" if rq <= sq else "the outlines of segments"
        text = f"- {model['name']} loses most to {what} (RQ {rq:.1f}, SQ {sq:.1f}; "
        text += f"{missed:.0f} % of the true segments missed, {invented:.0f} % of its own invented)"
        own = quality(results, "panoptic_class_agnostic")
        tops = [top for top in ceiling(model) if top is not None]
        if tops:
            top = sum(tops) / len(tops)
            text += f"; its autoencoder allows PQ {top:.1f}, of which it reaches {own:.1f}"
        classes = quality(results, "panoptic_seg")
        if classes is not None:
            text += f"; with classes PQ is {classes:.1f}"
        lines.append(f"{text}.")
    return lines


def conditions(found: Mapping[str, Any]) -> list[str]:
    """Data, machine, versions, thresholds, and how long each training really took."""
    environment, settings = found["environment"], found["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    lines = [
        f"- Evaluation: {settings['images']} pictures of {settings['dataset']}. Seeds "
        f"{', '.join(map(str, settings['seeds']))}. Budget {settings['budget']}. Latencies: "
        f"{settings['rounds']} rounds after {settings['warm_up']} to warm up, "
        f"{settings['precision']}.",
        f"- Machine: {environment['device']}, {environment['threads']} thread(s); training time is "
        f"{environment['clock']}. Commit {environment['commit']}; {versions}.",
    ]
    lines += [_model_line(model) for model in found["models"]]
    return lines


def _model_line(model: Mapping[str, Any]) -> str:
    text = f"- {model['name']}: `{model['config_file']}` ({model['meta_architecture']})"
    for training in model["trainings"]:
        if not training["stages"]:
            text += f"; weights {training['weights']}, not trained here"
        for stage in training["stages"]:
            planned = stage["plan"].get("calibrated_seconds_per_iteration")
            text += f"; {Path(stage['name']).name}: {stage['iterations']} iterations"
            text += f" of {stage['batch']}"
            text += f" pictures, {stage['seconds'] / stage['iterations']:.3f} s each"
            text += f" ({planned:.3f} s planned)" if planned else ""
            text += f", {stage['precision']}"
            if stage["started_from"]:
                text += f", started from {stage['started_from']}"
    return text + (f". Thresholds: {model['thresholds']}." if model["thresholds"] else ".")


def page_section(
    found: Mapping[str, Any], *, title: str, command: str, images: Mapping[str, str]
) -> list[str]:
    """The lines of a section.

    Args:
        found: what :meth:`ldmseg_d2.benchmark.Session.run` gives.
        title: of the section.
        command: that made it.
        images: caption to path, relative to the page.
    """
    models = found["models"]
    edges = [
        r["limits"]["edges"]
        for model in models
        for row in model["rows"]
        for r in row["results"]
        if "limits" in r
    ]
    lines = [f"## {title}", "", quality_table(models), "", speed_table(models), ""]
    if seeds := seeds_table(models):
        lines += ["### Seed by seed", "", seeds, ""]
    if edges:
        low, high = edges[0]
        lines += ["### What it is limited by", "", limits_table(models), ""]
        lines += [
            f"Small segments have at most {low:.0f} px, large ones more than {high:.0f} px (thirds "
            "of the true segments). SQ is the mean IoU of the segments that are found (outlines), "
            "RQ falls with what is missed or invented. The ceiling is what LDMSeg's autoencoder "
            "makes of the ground truth.",
            "",
            *findings(models),
            "",
        ]
    for caption, path in images.items():
        lines += [f"![{caption}]({path})", ""]
    return [*lines, *conditions(found), "- Command:", "", "```bash", command, "```"]
