"""The page of the studies: each tool writes its own section and its own picture."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HEADER = """\
# Studies

Each section is written by the tool that its command names, from what it measured.
"""


def write_section(
    page: str | Path, name: str, lines: Sequence[str], *, header: str = HEADER
) -> None:
    """Replace what is between ``<!-- NAME -->`` and ``<!-- /NAME -->``; the rest stays.

    Args:
        page: Markdown; made where it does not exist. A section that it lacks is added at its end.
        name: of the section.
        lines: the new content.
        header: beginning of a page that does not exist yet.

    Raises:
        ValueError: if the markers are not there once each, in this order.
    """
    page = Path(page)
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    text = page.read_text(encoding="utf-8") if page.is_file() else header
    if begin not in text and end not in text:
        text = f"{text.rstrip()}\n\n{begin}\n{end}\n"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{page} needs the lines {begin!r} and {end!r}, once each, in this order")
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    content = "\n".join(lines).strip()
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{before}{begin}\n\n{content}\n\n{end}{after}", encoding="utf-8")


def picture_path(page: str | Path, name: str) -> Path:
    """Where a section's picture belongs: ``images/NAME.png`` beside the page."""
    path = Path(page).parent / "images" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def command_line(argv: Sequence[str] | None, tool: str) -> str:
    """The command that runs a tool, as one would type it."""
    return shlex.join(["python", f"tools/{tool}", *(sys.argv[1:] if argv is None else argv)])


def mean_and_spread(values: Sequence[float | None], digits: int = 1) -> str:
    """The mean over seeds, and half of the range where there are several; "-" without a number.

    Example:
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


def describe_conditions(records: Sequence[dict[str, Any]], *, num_images: int) -> list[str]:
    """Under which conditions the numbers were measured: two lines of a list.

    Args:
        records: of the study's runs; see :func:`ldmseg_d2.studies.runs.do_run`.
        num_images: pictures that each number is measured on.
    """

    def values(key: str) -> str:
        return " / ".join(dict.fromkeys(str(record[key]) for record in records))

    samplers = dict.fromkeys(f"{r['sampler']}, {r['steps']} steps" for r in records if r["steps"])
    return [
        f"- Training: batch {values('batch')}, {values('precision')}, seed {values('seed')}, "
        f"{values('device')} with {values('threads')} thread(s), torch {values('torch')}, commit "
        f"{values('commit')}. Training minutes are {values('clock')}: the median iteration times "
        "their number.",
        f"- Evaluation: {num_images} pictures, {' / '.join(samplers)}, thresholds: "
        f"{values('thresholds')}.",
    ]
