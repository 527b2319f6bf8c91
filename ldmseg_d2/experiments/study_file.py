"""A study's YAML file: a base config, and the values of each factor, changed one at a time.

    BASE: configs/scenes/ldmseg_scenes64.yaml      # config file of the base row
    OPTS: {SOLVER.IMS_PER_BATCH: 8}                # optional: keys and values of all rows
    WEIGHTS: ldmseg://NAME.safetensors             # optional: of all rows, nothing is trained
    STAGES: [CONFIG:SHARE]                         # optional: trained before each row's model
    STEPS: [1, 4, 20]                              # optional: of the sampler
    FACTORS:
      ids:                                         # a factor, and the name of each of its values
        random: {MODEL.LDMSEG.ID_ASSIGNMENT: random}
        matched: {MODEL.LDMSEG.ID_ASSIGNMENT: matched}

The rows are the base and, one factor at a time, each value's keys on top of it; keys hold for the
model and for its stages. Factors are not crossed: where a combination matters, it is a value with
the keys of both. A row that changes nothing is the base itself, and is not trained twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ldmseg_d2.engine import load_config
from ldmseg_d2.model_zoo import config_root

from .contenders import Contender, Stage, check_contenders, make_contender

BASE = "base"
# Each key, and what it holds.
KEYS = {
    "BASE": str, "OPTS": Mapping, "WEIGHTS": str, "STAGES": list, "STEPS": list, "FACTORS": Mapping,
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A line of a study's table: a factor, its value, and the contender whose numbers they are."""

    factor: str
    value: str
    contender: str


@dataclass(frozen=True)
class Study:
    """What a file, whose stem is the name, says; contenders and rows begin with the base."""

    name: str
    contenders: tuple[Contender, ...]
    rows: tuple[Row, ...]


def read_study(file: str, opts: Sequence[Any] = ()) -> Study:
    """Read and check a study; configs are loaded, nothing is built.

    Args:
        file: path, or "configs/studies/NAME.yaml" from any folder.
        opts: further keys and values of all rows.

    Raises:
        FileNotFoundError: there is no such file, or a file that it names is not there.
        ValueError: the file is not right; the message names file and key.
    """
    path = next((p for p in (Path(file), config_root().parent / file) if p.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"--study {file}: there is no such file")
    try:
        return _read(path, opts)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error


def _read(path: Path, opts: Sequence[Any]) -> Study:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    _check(content, "the file")
    for key, value in content.items():
        if key not in KEYS:
            raise ValueError(f"unknown key {key!r}; allowed: {', '.join(KEYS)}")
        if not isinstance(value, KEYS[key]):
            raise ValueError(f"{key} cannot be {value!r}")
    for key in ("BASE", "FACTORS"):
        if key not in content:
            raise ValueError(f"the key {key} is missing")
    steps = content.get("STEPS", [])
    if not all(isinstance(n, int) and n > 0 for n in steps):
        raise ValueError(f"STEPS must be numbers above 0, not {steps}")
    shared = {
        "weights": content.get("WEIGHTS", ""),
        "stages": [Stage.parse(text) for text in content.get("STAGES", [])],
        "steps": steps,
    }
    # What a row changes stands against a key of the command as well.
    common = [*_pairs(content.get("OPTS", {})), *opts]

    def contender(name: str, where: str, own: Sequence[Any] = ()) -> tuple[Contender, str]:
        try:
            made = make_contender(name, content["BASE"], opts=[*common, *own], **shared)
            return made, load_config(content["BASE"], made.opts).dump()
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error

    base, dumped = contender(BASE, "BASE with OPTS and the command's keys")
    known, rows = {dumped: base}, [Row(BASE, "", base.name)]
    for factor, values in content["FACTORS"].items():
        _check(values, f"FACTORS.{factor}")
        for value, keys in values.items():
            where = f"FACTORS.{factor}.{value}"
            _check(keys, where)
            made, dumped = contender(f"{factor} {value}", where, _pairs(keys))
            rows.append(Row(factor, value, known.setdefault(dumped, made).name))
    contenders = tuple(known.values())
    check_contenders(contenders)
    return Study(path.stem, contenders, tuple(rows))


def _pairs(node: Mapping[str, Any]) -> list[Any]:
    """Config keys and values in turn."""
    return [word for pair in node.items() for word in pair]


def _check(node: Any, where: str) -> None:
    """Raise ValueError, saying where, unless a node's keys are names."""
    if not isinstance(node, Mapping):
        raise ValueError(f"{where} must hold keys and values, not {node!r}")
    for key in node:
        if not isinstance(key, str):
            raise ValueError(f"{where}: {key!r} is no text; put the name into quotes")
