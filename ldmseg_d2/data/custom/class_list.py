"""The classes of a custom data set: from a file of the user's, or from the export."""

import json
import re
from itertools import count
from pathlib import Path
from typing import Any

from detectron2.utils.colormap import colormap

SEGMENT = {"id": 1, "name": "segment", "isthing": 1}


class Classes:
    """Classes with ids, names, colours, and which of them are things.

    Args:
        categories: `name`, and optionally `id`, `isthing`, `color`; None: no classes, every segment
            is a "segment".
        stuff: names of classes that are stuff; all others are things if this is not empty.

    Raises:
        ValueError: if ids or names are repeated, or `stuff` names a class that is not there.
    """

    def __init__(self, categories: list[dict[str, Any]] | None, stuff: tuple[str, ...] = ()):
        self.agnostic = categories is None
        given = categories or [SEGMENT]
        used = {c.get("id") for c in given}
        free = (i for i in count(1) if i not in used)
        self.undecided = [c["name"] for c in given if c.get("isthing") is None and not stuff]
        self.categories: list[dict[str, Any]] = []
        for index, category in enumerate(given):
            isthing, number = category.get("isthing"), category.get("id")
            if stuff:
                isthing = category["name"] not in stuff
            self.categories.append(
                {
                    "id": next(free) if number is None else number,
                    "name": category["name"],
                    "isthing": int(isthing is None or bool(isthing)),
                    "color": _color(category.get("color"), index),
                }
            )
        for key in ("name", "id"):
            values = [c[key] for c in self.categories]
            twice = sorted({v for v in values if values.count(v) > 1})
            if twice:
                raise ValueError(f"classes have the {key}s {twice} more than once; rename them")
        names = [c["name"] for c in self.categories]
        missing = sorted(set(stuff) - set(names))
        if missing:
            raise ValueError(f"--stuff names {missing}, but the classes are {names}")
        self._by_key = {c[key]: c for c in self.categories for key in ("id", "name")}

    def find(self, key: str | int | None) -> dict[str, Any] | None:
        """The category of a name or an id; without classes always "segment"; else None."""
        return self.categories[0] if self.agnostic else self._by_key.get(key)


def _color(color: Any, index: int) -> list[int]:
    """[r, g, b] in 0..255, from a list or "#rrggbb"; else the next of Detectron2's."""
    if isinstance(color, str) and re.fullmatch("#[0-9a-fA-F]{6}", color):
        return list(bytes.fromhex(color[1:]))
    if isinstance(color, list) and len(color) == 3 and all(v in range(256) for v in color):
        return color
    colors = colormap(rgb=True)
    return [int(v) for v in colors[index % len(colors)]]


def read_classes(path: Path) -> list[dict[str, Any]]:
    """Reads `--classes`: categories, without `isthing` where the file does not say it.

    It has a class a line: `name`, `name,thing`, `name,stuff`, each optionally after `id,`; lines
    that begin with # are comments. ValueError names file and line.
    """
    if path.suffix.lower() == ".json":
        raise ValueError(f"{path} is JSON; --classes is text with a class a line, like 'car,thing'")
    categories = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = re.fullmatch(r"(?:(\d+)\s*,)?\s*([^,]+?)\s*(?:,\s*(thing|stuff))?", line.strip())
        if not match:
            raise ValueError(
                f"{path} line {number}: {line!r} is not 'name', 'name,thing' or 'name,stuff', "
                "each optionally after 'id,'"
            )
        categories.append(
            {
                "name": match[2],
                **({"id": int(match[1])} if match[1] else {}),
                **({"isthing": match[3] == "thing"} if match[3] else {}),
            }
        )
    if not categories:
        raise ValueError(f"{path} names no class")
    return categories


def load_json(path: Path) -> Any:
    """Reads JSON; ValueError, naming file, line and column, if it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise ValueError(f"{path} {where}: no valid JSON ({error.msg}); export it again") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: no valid JSON ({error}); export it again") from error
