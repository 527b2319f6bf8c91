#!/usr/bin/env python
"""Evaluates the shipped models and writes what it measured into docs/MODEL_ZOO.md.

python tools/report_model_zoo.py [--only NAME ...]

Each shipped model has a card beside its weights, ldmseg_d2/model_zoo/NAME.json: how it was
trained; this tool adds what it reaches under the key "results", and writes the page from all cards.
With --only the other models keep the results that they have.
"""

import argparse
import json
import logging
import platform
from pathlib import Path

import torch
from detectron2.modeling import build_model
from detectron2.utils.logger import setup_logger

import ldmseg_d2
from ldmseg_d2.data import load_dataset_dicts
from ldmseg_d2.engine import LDMSegCheckpointer, Trainer, load_config
from ldmseg_d2.engine.reporting import headlines
from ldmseg_d2.model_zoo import get_config_file, list_models

logger = logging.getLogger("report_model_zoo")
REPOSITORY = Path(__file__).resolve().parents[1]
CARDS = Path(ldmseg_d2.__file__).parent / "model_zoo"
# Of the numbers on a card, those that the page shows.
COLUMNS = (
    "PQ", "PQ things", "PQ stuff", "PQ class-agnostic", "mIoU", "mask AP", "depth AbsRel",
    "PQ of the reconstruction", "depth delta1",
)  # fmt: skip
INTRODUCTION = """\
# Shipped models

Written by `python tools/report_model_zoo.py` from the cards beside the weights, which hold further
numbers (SQ, RQ, AP50, RMSE), the thresholds and the test set of each. PQ, mIoU and AP are percent,
"class-agnostic" counts a segment whatever its class; AbsRel is the mean of |predicted - true| /
true depth, delta1 the share of pixels within a factor of 1.25. `ldmseg_d2.model_zoo.get(NAME)`
loads a model.
"""


def load_card(name: str) -> tuple[Path, dict]:
    """The file and the content of a card; KeyError if there is none of that name."""
    path = CARDS / f"{name}.json"
    if not path.is_file():
        raise KeyError(f"no card of {name!r}; shipped are: {', '.join(list_models())}")
    return path, json.loads(path.read_text(encoding="utf-8"))


def evaluate(card: dict, opts: list) -> dict:
    """The headline numbers of one model on its test set."""
    cfg = load_config(get_config_file(card["config"]), ["MODEL.WEIGHTS", card["weights"], *opts])
    model = build_model(cfg)
    LDMSegCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return headlines(Trainer.test(cfg, model))


def measure(card: dict, steps: list[int]) -> dict:
    """What stands under "results" of a card: how it was measured, and a row per setting."""
    cfg = load_config(get_config_file(card["config"]))
    key, sampler = "MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS", cfg.MODEL.LDMSEG.SAMPLER.NAME
    if cfg.MODEL.META_ARCHITECTURE == "LDMSeg":
        rows = {f"{sampler}, {n}": evaluate(card, [key, n]) for n in steps}
    else:
        rows = {"reconstruction": evaluate(card, [])}
    version = torch.__version__.split("+")[0]
    return {
        "measured": f"an {platform.machine()} CPU with torch {version}",
        "settings": describe_settings(card["config"]),
        "rows": rows,
    }


def describe_settings(config: str) -> str:
    """Test set, seed and thresholds, as the config states them."""
    cfg = load_config(get_config_file(config))
    number = len(load_dataset_dicts(cfg.DATASETS.TEST))
    text = f"Test set {', '.join(cfg.DATASETS.TEST)} ({number} pictures), SEED {cfg.SEED}"
    post = cfg.MODEL.LDMSEG.POSTPROCESS
    thresholds = ", ".join(f"{key} {value}" for key, value in sorted(post.items()))
    return f"{text}, thresholds: {thresholds}."


def table(rows: dict[str, dict[str, str]]) -> list[str]:
    """A Markdown table with one row per setting, and those of COLUMNS that any of them has."""
    names = [name for name in COLUMNS if any(name in numbers for numbers in rows.values())]
    first = "sampler, steps" if any("," in name for name in rows) else ""
    lines = [f"| {first} | {' | '.join(names)} |", f"|{' --- |' * (len(names) + 1)}"]
    for name, numbers in rows.items():
        lines.append(f"| {name} | " + " | ".join(numbers.get(n, "-") for n in names) + " |")
    return lines


def section(card: dict) -> list[str]:
    """The page's section of one model: its numbers at few and at many steps, and its training."""
    rows = card.get("results", {}).get("rows", {})
    if len(rows) > 3:  # one step, four, and the most
        rows = {k: v for i, (k, v) in enumerate(rows.items()) if i in (0, 2, len(rows) - 1)}
    lines = [f"## {card['name']}", "", card["summary"], ""]
    lines += [*table(rows), ""] if rows else []
    training = dict(card["training"])
    commands = training.pop("commands")
    lines += ["; ".join(f"{key}: {value}" for key, value in training.items()) + ".", ""]
    return [*lines, "```bash", *commands, "```", ""]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default=str(REPOSITORY / "docs" / "MODEL_ZOO.md"))
    parser.add_argument("--only", nargs="*", metavar="NAME", help="measure these; none: no one")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 10, 20, 50])
    args = parser.parse_args(argv)
    setup_logger(name="ldmseg_d2")
    setup_logger()
    names = list_models() if args.only is None else args.only
    for path, card in [load_card(name) for name in names]:  # all are known before any is measured
        card["results"] = measure(card, args.steps)
        text = json.dumps(card, indent=2, ensure_ascii=False)
        path.write_text(f"{text}\n", encoding="utf-8")
    lines = [INTRODUCTION]
    for name in list_models():
        lines += section(load_card(name)[1])
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    Path(args.output).write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    logger.info("wrote %s", args.output)


if __name__ == "__main__":
    main()
