"""The classes of a custom data set: from a file of the user's, or from the export."""

import json
from itertools import count
from pathlib import Path
from typing import Any

from detectron2.utils.colormap import colormap

from .problems import InputError

SEGMENT = {"id": 1, "name": "segment", "isthing": 1}


class Classes:
    """Classes with ids, names, and which of them are things.

    Args:
        categories: `name`, and optionally `id`, `isthing`, `color`; None: no classes, every segment
            is a "segment".
        stuff: names of classes that are stuff; all others are things if this is not empty.

    Raises:
        InputError: if ids or names are repeated, or `stuff` names a class that is not there.
    """

    def __init__(self, categories: list[dict[str, Any]] | None, stuff: tuple[str, ...] = ()):
        self.agnostic = categories is None
        given = categories or [SEGMENT]
        used = {int(c["id"]) for c in given if c.get("id") is not None}
        free = (i for i in count(1) if i not in used)
        self.undecided = []
        self.categories: list[dict[str, Any]] = []
        for index, category in enumerate(given):
            isthing, number = category.get("isthing"), category.get("id")
            if stuff:
                isthing = category["name"] not in stuff
            elif isthing is None:
                self.undecided.append(category["name"])
                isthing = True
            self.categories.append(
                {
                    "id": int(next(free) if number is None else number),
                    "name": str(category["name"]),
                    "isthing": int(bool(isthing)),
                    "color": _color(category.get("color"), index),
                }
            )
        names = [c["name"] for c in self.categories]
        for what, values in (("names", names), ("ids", [c["id"] for c in self.categories])):
            twice = sorted({v for v in values if values.count(v) > 1}, key=str)
            if twice:
                raise InputError(f"classes have the {what} {twice} more than once; rename them")
        missing = sorted(set(stuff) - set(names))
        if missing:
            raise InputError(f"--stuff names {missing}, but the classes are {names}")
        self._by_id = {c["id"]: c for c in self.categories}
        self._by_name = {c["name"]: c for c in self.categories}

    def find(self, key: str | int | None) -> dict[str, Any] | None:
        """The category of a name or an id; without classes always "segment"; else None."""
        if self.agnostic:
            return self.categories[0]
        return (self._by_id if isinstance(key, int) else self._by_name).get(key)


def _color(color: Any, index: int) -> list[int]:
    """[r, g, b] in 0..255, from a list or "#rrggbb"; else the next of Detectron2's."""
    if isinstance(color, str) and len(color) == 7 and color.startswith("#"):
        try:
            return list(bytes.fromhex(color[1:]))
        except ValueError:
            pass
    if isinstance(color, list) and len(color) == 3 and all(isinstance(v, int) for v in color):
        return [min(max(v, 0), 255) for v in color]
    colors = colormap(rgb=True)
    return [int(v) for v in colors[index % len(colors)]]


def read_classes(path: str | Path) -> list[dict[str, Any]]:
    """Reads `--classes`: categories, without `isthing` where the file does not say it.

    The file is a JSON list of COCO categories (`name`; optionally `id`, `isthing`, `color`), or
    text with a class a line: `name`, `name,thing`, `name,stuff`, each optionally after `id,`; lines
    that begin with # are comments. InputError names file and line.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        content = load_json(path)
        if isinstance(content, dict):
            content = content.get("categories")
        if not isinstance(content, list) or not content:
            raise InputError(f"{path} holds no list of categories")
        for category in content:
            if not isinstance(category, dict) or not isinstance(category.get("name"), str):
                raise InputError(f"{path}: {category!r} is no category: it needs a 'name'")
        return content
    categories = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = [f.strip() for f in line.split(",")]
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        category: dict[str, Any] = {}
        if fields[0].isdigit() and len(fields) > 1:
            category["id"] = int(fields.pop(0))
        category["name"] = fields.pop(0)
        if fields and fields[0] in ("thing", "stuff"):
            category["isthing"] = fields.pop(0) == "thing"
        if fields or not category["name"]:
            raise InputError(
                f"{path} line {number}: {line!r} is not 'name', 'name,thing' or 'name,stuff', "
                "each optionally after 'id,'"
            )
        categories.append(category)
    if not categories:
        raise InputError(f"{path} names no class")
    return categories


def load_json(path: str | Path) -> Any:
    """Reads JSON; InputError, naming file, line and column, if it is none."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} line {error.lineno} column {error.colno}: no valid JSON ({error.msg}); "
            "export it again"
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: no valid JSON ({error}); export it again") from error
