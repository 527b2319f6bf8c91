#!/usr/bin/env python
"""Evaluates the shipped models and writes what it measured into docs/MODEL_ZOO.md.

python tools/report_model_zoo.py

Each shipped model has a JSON file beside its weights, ldmseg_d2/model_zoo/NAME.json, that says how
it was trained; this tool adds what it reaches, at several numbers of sampling steps.
"""

import argparse
import logging
import platform
from pathlib import Path

import torch
from detectron2.modeling import build_model
from detectron2.utils.logger import setup_logger

from ldmseg_d2.data import load_dataset_dicts
from ldmseg_d2.engine import LDMSegCheckpointer, Trainer, load_config
from ldmseg_d2.model_zoo import get_card, get_config_file, list_models

logger = logging.getLogger("report_model_zoo")
REPOSITORY = Path(__file__).resolve().parents[1]
METRICS = ("PQ", "SQ", "RQ", "mIoU", "segments_per_image", "gt_segments_per_image")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default=str(REPOSITORY / "docs" / "MODEL_ZOO.md"))
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[1, 2, 4, 10, 20, 50], help="sampling steps"
    )
    return parser.parse_args()


def evaluate(card: dict, opts: list) -> dict:
    """The metrics of one shipped model on its test set."""
    opts = ["MODEL.WEIGHTS", card["weights"], *opts]
    cfg = load_config(get_config_file(card["config"]), opts)
    model = build_model(cfg)
    LDMSegCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    (metrics,) = Trainer.test(cfg, model).values()
    return metrics


def describe_settings(config: str) -> str:
    """Test set, seed and thresholds, as the config states them."""
    cfg = load_config(get_config_file(config))
    post = cfg.MODEL.LDMSEG.POSTPROCESS
    thresholds = ", ".join(f"{key} {value}" for key, value in sorted(post.items()))
    number = len(load_dataset_dicts(cfg.DATASETS.TEST))
    name = ", ".join(cfg.DATASETS.TEST)
    return f"Test set {name} ({number} pictures), SEED {cfg.SEED}, thresholds: {thresholds}."


def table(rows: list[tuple[str, dict]], first: str) -> list[str]:
    """A Markdown table with one row per evaluation."""
    lines = [
        f"| {first} | " + " | ".join(METRICS) + " |",
        "| --- |" + " --- |" * len(METRICS),
    ]
    for name, metrics in rows:
        lines.append(f"| {name} | " + " | ".join(f"{metrics[m]:.1f}" for m in METRICS) + " |")
    return lines


def section(card: dict, steps: list[int]) -> list[str]:
    """The page's section of one shipped model."""
    lines = [f"## {card['name']}", "", card["summary"], ""]
    cfg = load_config(get_config_file(card["config"]))
    if cfg.MODEL.META_ARCHITECTURE == "LDMSeg":
        rows = [
            (f"{cfg.MODEL.LDMSEG.SAMPLER.NAME}, {n}",
             evaluate(card, ["MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS", n]))
            for n in steps
        ]  # fmt: skip
        lines += table(rows, "sampler, steps")
    else:
        lines += table([("reconstruction", evaluate(card, []))], "")
    lines += ["", describe_settings(card["config"]), ""]
    lines += [f"- {key}: {value}" for key, value in card["training"].items() if key != "commands"]
    lines += ["- commands:", "", "```bash", *card["training"]["commands"], "```", ""]
    return lines


def main() -> None:
    args = parse_args()
    setup_logger(name="ldmseg_d2")
    setup_logger()
    cards = [get_card(name) for name in list_models()]
    lines = [
        "# Shipped models",
        "",
        "Written by `python tools/report_model_zoo.py`; numbers are percent, class-agnostic, as",
        f"measured on a {platform.machine()} CPU with torch {torch.__version__.split('+')[0]}.",
        "",
    ]
    for card in cards:
        lines += section(card, args.steps)
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    Path(args.output).write_text("\n".join(lines).rstrip() + "\n")
    logger.info("wrote %s", args.output)


if __name__ == "__main__":
    main()
