"""An experiment as a section of a page: tables, a plot, and how they were measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmseg_d2.engine.reporting import write_results

from .pages import copy_picture, write_section
from .plots import plot_latency
from .study_file import Study
from .tables import counts_table, model_table, own_results, study_table

BENCHMARK_HEADER = "# Benchmark\n\nModels of different kinds side by side (`tools/benchmark.py`).\n"
STUDY_HEADER = "# Studies\n\nOne thing changed at a time (`tools/study.py`).\n"
PLOT = "pq_latency.png"


def write_report(
    found: Mapping[str, Any],
    output: Path,
    *,
    command: str,
    doc: str | None = None,
    study: Study | None = None,
) -> Path:
    """Write results.json, a plot and results.md, whose path it returns, and a section of a page.

    Args:
        found: what :meth:`ldmseg_d2.experiments.Runner.run` gives.
        output: folder.
        command: that made it.
        doc: the page, which gets a copy of the plot; None: none.
        study: whose rows are shown; None: a benchmark's tables.
    """
    write_results(output / "results.json", {"command": command, **found})
    caption = f"{found['settings']['dataset']}, {found['environment']['device']}"
    plot_latency(found["models"], output / PLOT, caption=caption)
    header = BENCHMARK_HEADER if study is None else STUDY_HEADER
    page, lines = output / "results.md", page_section(found, command, study)
    text = "\n".join([header, *lines, "", _picture(PLOT), ""])
    page.write_text(text, encoding="utf-8")
    if doc:
        name = output.resolve().name
        picture = _picture(copy_picture(doc, name, output / PLOT))
        write_section(doc, name, [*lines, "", picture], header=header)
    return page


def _picture(path: str) -> str:
    return f"![PQ against latency]({path})"


def page_section(found: Mapping[str, Any], command: str, study: Study | None = None) -> list[str]:
    """The lines of a section, see :func:`write_report`."""
    models, settings = found["models"], found["settings"]
    title = f"{settings['dataset']}, {settings['budget']}"
    if study is None:
        lines = [f"## {title}", "", model_table(models), ""]
    else:
        lines = [f"## {study.name}: {title}", "", study_table(study.rows, models), ""]
        if any("counts" in results for model in models for results in own_results(model)):
            lines += [counts_table(models), ""]
        text = "Each row changes one thing in the base."
        lines += [f"{text} With one seed, differences under 3 PQ are noise.", ""]
    return [*lines, *conditions(found), "- Command:", "", "```bash", command, "```"]


def conditions(found: Mapping[str, Any]) -> list[str]:
    """Data, machine, version, thresholds, and how long each training really took."""
    machine, settings = found["environment"], found["settings"]
    seeds = ", ".join(map(str, settings["seeds"]))
    lines = [
        f"- Evaluation: {settings['images']} pictures of {settings['dataset']}. Seeds {seeds} "
        f"(mean ± half of their range). Budget {settings['budget']}. Latencies: wall time, batch "
        f"1, {settings['rounds']} rounds.",
        f"- Machine: {machine['device']}, {machine['threads']} thread(s); training time is "
        f"{machine['clock']}. Commit {machine['commit']}; torch {machine['torch']}.",
    ]
    for model in found["models"]:
        text = f"- {model['name']}: `{model['config_file']}` ({model['meta_architecture']})"
        given = [t["weights"] for t in model["trainings"] if not t["stages"]]
        text += f"; weights {given[0]}" if given else ""
        for stage in (stage for t in model["trainings"] for stage in t["stages"]):
            text += f"; {stage['name']}: {stage['iterations']} iterations of {stage['batch']}"
            text += f" pictures, {stage['seconds'] / stage['iterations']:.3f} s each"
            text += f", {stage['precision']}"
            text += f", started from {stage['started_from']}" * bool(stage["started_from"])
        lines.append(text + (f". {model['thresholds']}." if model["thresholds"] else "."))
    return lines
