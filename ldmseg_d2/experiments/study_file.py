"""A study's YAML file: a base config, and the values of each factor, changed one at a time.

    BASE: configs/scenes/ldmseg_scenes64.yaml      # config file of the base row
    OPTS: {SOLVER.IMS_PER_BATCH: 8}                # optional: keys and values of all rows
    WEIGHTS: ldmseg://NAME.safetensors             # optional: of all rows, nothing is trained
    STAGES:                                        # optional: trained before each row's model
      - {CONFIG: FILE, SHARE: 0.3, KEY: MODEL.LDMSEG.AUTOENCODER.WEIGHTS}
    STEPS: [1, 4, 20]                              # optional: of the sampler
    MOSAICS: {TRAIN: 1500, TEST: 84}               # optional: pictures that are generated first
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

from .contenders import Contender, Stage, check_contenders, make_contender
from .records import REPOSITORY

BASE = "base"
KEYS = ("BASE", "OPTS", "WEIGHTS", "STAGES", "STEPS", "MOSAICS", "FACTORS")
STAGE_KEYS = {"CONFIG": str, "SHARE": (int, float), "KEY": str}
MOSAIC_KEYS = {"TRAIN": int, "TEST": int}


@dataclass(frozen=True)
class Row:
    """A line of a study's table.

    Attributes:
        factor, value: for readers; BASE and "" for the base.
        contender: name of the one whose numbers these are.
    """

    factor: str
    value: str
    contender: str


@dataclass(frozen=True)
class Study:
    """What a file says.

    Attributes:
        name: the file's stem.
        contenders: all different ones, the base first.
        rows: of the table, the base first.
        mosaics: numbers of pictures, "TRAIN" and "TEST", that have to be generated; None: none.
    """

    name: str
    contenders: tuple[Contender, ...]
    rows: tuple[Row, ...]
    mosaics: dict[str, int] | None = None


def read_study(file: str, opts: Sequence[Any] = ()) -> Study:
    """Read and check a study; configs are loaded, nothing is built.

    Args:
        file: path, relative to the current folder or to the repository.
        opts: further keys and values of all rows.

    Raises:
        FileNotFoundError: there is no such file, or a file that it names is not there.
        ValueError: the file is not right; the message names file and key.
    """
    path = next((p for p in (Path(file), REPOSITORY / file) if p.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"--study {file}: there is no such file")
    content = _load(path)
    common = [*_pairs(content.get("OPTS", {}), path, "OPTS"), *opts]
    shared = {
        "weights": str(content.get("WEIGHTS", "")),
        "stages": _stages(content, path),
        "steps": _steps(content, path),
    }
    config_file = str(content["BASE"])

    def contender(name: str, own: Sequence[Any], where: str) -> tuple[Contender, str]:
        # What a row changes stands against a key of the command as well.
        used = [*common, *own]
        try:
            made = make_contender(name, config_file, opts=used, **shared)
            return made, load_config(config_file, used).dump()
        except ValueError as error:
            raise ValueError(f"{path}: {where}: {error}") from error

    base, dumped = contender(BASE, (), "BASE, OPTS, STAGES or KEY VALUE")
    known, contenders, rows = {dumped: base}, [base], [Row(BASE, "", base.name)]
    for factor, values in content["FACTORS"].items():
        for value, keys in values.items():
            where = f"FACTORS.{factor}.{value}"
            made, dumped = contender(f"{factor} {value}", _pairs(keys, path, where), where)
            if dumped not in known:
                known[dumped] = made
                contenders.append(made)
            rows.append(Row(factor, value, known[dumped].name))
    try:
        check_contenders(contenders)
    except ValueError as error:
        raise ValueError(f"{path}: FACTORS: {error}") from error
    return Study(path.stem, tuple(contenders), tuple(rows), _mosaics(content, path))


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    _mapping(content, path, "the file")
    unknown = [key for key in content if key not in KEYS]
    if unknown:
        raise ValueError(f"{path}: unknown key {unknown[0]!r}; allowed: {', '.join(KEYS)}")
    for key in ("BASE", "FACTORS"):
        if not content.get(key):
            raise ValueError(f"{path}: the key {key} is missing")
    for factor, values in _mapping(content["FACTORS"], path, "FACTORS").items():
        for value in _mapping(values, path, f"FACTORS.{factor}"):
            if not isinstance(value, str):
                raise ValueError(
                    f"{path}: FACTORS.{factor}: {value!r} is no text; put the name of a value into "
                    "quotes"
                )
    return content


def _mapping(node: Any, path: Path, where: str) -> Mapping[Any, Any]:
    if not isinstance(node, Mapping):
        raise ValueError(f"{path}: {where} must hold keys and their values, not {node!r}")
    return node


def _pairs(node: Any, path: Path, where: str) -> list[Any]:
    """Config keys and values in turn."""
    return [word for pair in _mapping(node, path, where).items() for word in pair]


def _typed(node: Any, path: Path, where: str, types: Mapping[str, Any], optional: str = "") -> dict:
    """A node with exactly these keys, of these types."""
    node = dict(_mapping(node, path, where))
    for key in sorted(node.keys() | types.keys()):
        if key not in types:
            raise ValueError(f"{path}: {where}: unknown key {key!r}; allowed: {', '.join(types)}")
        if key not in node and key == optional:
            continue
        if not isinstance(node.get(key), types[key]):
            raise ValueError(f"{path}: {where}.{key} cannot be {node.get(key)!r}")
    return node


def _stages(content: dict[str, Any], path: Path) -> tuple[Stage, ...]:
    stages = []
    for number, listed in enumerate(content.get("STAGES") or []):
        node = _typed(listed, path, f"STAGES[{number}]", STAGE_KEYS, optional="KEY")
        stages.append(Stage.of(node["CONFIG"], node["SHARE"], node.get("KEY", "")))
    return tuple(stages)


def _steps(content: dict[str, Any], path: Path) -> list[int]:
    steps = content.get("STEPS", [])
    if not isinstance(steps, list) or not all(isinstance(n, int) and n > 0 for n in steps):
        raise ValueError(f"{path}: STEPS must be a list of numbers above 0, not {steps!r}")
    return steps


def _mosaics(content: dict[str, Any], path: Path) -> dict[str, int] | None:
    if "MOSAICS" not in content:
        return None
    return _typed(content["MOSAICS"], path, "MOSAICS", MOSAIC_KEYS)
