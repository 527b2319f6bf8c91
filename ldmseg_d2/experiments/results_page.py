"""An experiment as a section of a page: tables, pictures, and how they were measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmseg_d2.engine.reporting import write_results

from .pages import copy_pictures, write_section
from .plots import plot_latency, plot_training
from .study_file import Study
from .tables import counts_table, quality_table, speed_table, study_table

BENCHMARK_HEADER = "# Benchmark\n\nModels of different kinds side by side (`tools/benchmark.py`).\n"
STUDY_HEADER = "# Studies\n\nOne thing changed at a time (`tools/study.py`).\n"
PICTURES = {
    "PQ against latency": "pq_latency.png",
    "PQ against training time": "pq_training_time.png",
    "The same photos through every model": "panel.png",
}


def write_report(
    found: Mapping[str, Any], output: Path, *, command: str, doc: str | None, study: Study | None
) -> Path:
    """Write results.json, plots and results.md, whose path it returns, and a section of a page.

    Args:
        found: what :meth:`ldmseg_d2.experiments.Runner.run` gives.
        output: folder, perhaps with panel.png.
        command: that made it.
        doc: the page, which gets copies of the pictures; None: none.
        study: whose rows are shown; None: a benchmark's tables.
    """
    write_results(output / "results.json", {"command": command, **found})
    caption = f"{found['settings']['dataset']}, {found['environment']['device']}"
    plot_latency(found["models"], output / "pq_latency.png", caption=caption)
    if any(training["curve"] for model in found["models"] for training in model["trainings"]):
        plot_training(found["models"], output / "pq_training_time.png", caption=caption)
    pictures = {text: file for text, file in PICTURES.items() if (output / file).is_file()}
    header = BENCHMARK_HEADER if study is None else STUDY_HEADER
    lines = page_section(found, command=command, images=pictures, study=study)
    page = output / "results.md"
    page.write_text("\n".join([header, *lines, ""]), encoding="utf-8")
    if doc:
        name = output.resolve().name
        images = copy_pictures(doc, name, pictures, output)
        lines = page_section(found, command=command, images=images, study=study)
        write_section(doc, name, lines, header=header)
    return page


def conditions(found: Mapping[str, Any]) -> list[str]:
    """Data, machine, versions, thresholds, and how long each training really took."""
    machine, settings = found["environment"], found["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    seeds = ", ".join(map(str, settings["seeds"]))
    lines = [
        f"- Evaluation: {settings['images']} pictures of {settings['dataset']}. Seeds {seeds} "
        f"(mean ± half of their range). Budget {settings['budget']}. Latencies: wall time, batch "
        f"1, {settings['rounds']} rounds.",
        f"- Machine: {machine['device']}, {machine['threads']} thread(s); training time is "
        f"{machine['clock']}. Commit {machine['commit']}; {versions}.",
    ]
    for model in found["models"]:
        text = f"- {model['name']}: `{model['config_file']}` ({model['meta_architecture']})"
        given = [t["weights"] for t in model["trainings"] if not t["stages"]]
        text += f"; weights {given[0]}" if given else ""
        for training in model["trainings"]:
            for stage in training["stages"]:
                text += f"; {stage['name']}: {stage['iterations']} iterations of {stage['batch']}"
                text += f" pictures, {stage['seconds'] / stage['iterations']:.3f} s each"
                text += f", {stage['precision']}"
                text += f", started from {stage['started_from']}" * bool(stage["started_from"])
        lines.append(text + (f". {model['thresholds']}." if model["thresholds"] else "."))
    return lines


def page_section(
    found: Mapping[str, Any],
    *,
    command: str,
    images: Mapping[str, str],
    study: Study | None = None,
) -> list[str]:
    """The lines of a section, see :func:`write_report`; `images`: caption to path."""
    models, settings = found["models"], found["settings"]
    name = "" if study is None else f"{study.name}: "
    lines = [f"## {name}{settings['dataset']}, {settings['budget']}", ""]
    if study is not None:
        lines += [study_table(study.rows, models), ""]
        lines += [counts_table(models), ""] if study.mosaics else []
        text = "Each row changes one thing in the base."
        lines += [f"{text} With one seed, differences under 3 PQ are noise.", ""]
    else:
        lines += [quality_table(models), "", speed_table(models), ""]
    for caption, path in images.items():
        lines += [f"![{caption}]({path})", ""]
    return [*lines, *conditions(found), "- Command:", "", "```bash", command, "```"]
