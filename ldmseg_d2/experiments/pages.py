"""Sections of a Markdown page between marker comments, which the tools rewrite."""

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path


def write_section(page: str | Path, name: str, lines: Sequence[str], *, header: str) -> None:
    """Replace what is between ``<!-- NAME -->`` and ``<!-- /NAME -->``; the rest stays.

    A section that the page lacks is added at its end; a page that does not exist begins with
    `header`. Raises ValueError if the markers are not there once each, in this order.
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


def copy_picture(page: str | Path, section: str, picture: Path) -> str:
    """Copy a section's picture to ``images/`` beside the page; gives the path from there."""
    target = Path(page).parent / "images" / f"{section}_{picture.stem}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(picture, target)
    return f"images/{target.name}"


def command_line(argv: Sequence[str] | None, tool: str) -> str:
    """The command that runs a tool, as one would type it."""
    return shlex.join(["python", f"tools/{tool}", *(sys.argv[1:] if argv is None else argv)])
