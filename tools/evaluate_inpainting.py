#!/usr/bin/env python
"""Drops parts of the ground truth, lets the model complete it, and compares.

    tools/evaluate_inpainting.py --config-file FILE --output DIR [--drop 0.1 0.5 0.9]
        [--patterns block points ...] [--num N] [--num-samples K] [--doc PAGE]
        [--opts MODEL.WEIGHTS FILE KEY VALUE ...]

Writes DIR/results.json, results.md, results.png and a panel of pictures for each pattern. The known
segments are given under random names. --num-samples K also draws K masks without hints, and says
how far their disagreement tells where the model is wrong.
"""

import argparse
import json
import logging
import os
import shlex
import sys
from pathlib import Path

import torch
from detectron2.modeling import build_model
from PIL import Image
from tqdm import tqdm

import ldmseg_d2  # noqa: F401  registers models and data sets
from ldmseg_d2.data import build_dataset_mapper, load_dataset_dicts
from ldmseg_d2.engine import load_config
from ldmseg_d2.engine.checkpointer import LDMSegCheckpointer
from ldmseg_d2.engine.reporting import error_text
from ldmseg_d2.evaluation import inpainting_evaluation as inpainting
from ldmseg_d2.evaluation import inpainting_report as report
from ldmseg_d2.experiments.pages import copy_picture, write_section
from ldmseg_d2.inpainting.patterns import PATTERNS

logger = logging.getLogger("ldmseg_d2.evaluate_inpainting")


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="the model's YAML")
    parser.add_argument("--dataset", metavar="NAME", help="default: the first of DATASETS.TEST")
    parser.add_argument("--drop", type=float, nargs="+", default=[0.1, 0.3, 0.5, 0.7, 0.9])
    parser.add_argument("--patterns", nargs="+", default=["block"], choices=tuple(PATTERNS))
    parser.add_argument("--num", type=int, help="pictures; default: all")
    parser.add_argument("--num-samples", type=int, default=0, help="K draws for calibration")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--doc", help="Markdown page that also gets the results, as a section")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="config; comes last")
    return parser


def evaluate(args: argparse.Namespace) -> str:
    """Complete the pictures, and write everything; returns the tables."""
    cfg = load_config(args.config_file, args.opts)
    if cfg.MODEL.META_ARCHITECTURE != "LDMSeg":
        raise ValueError(f"{args.config_file}: {cfg.MODEL.META_ARCHITECTURE} completes no masks")
    model = build_model(cfg).eval()
    LDMSegCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    dataset = args.dataset or cfg.DATASETS.TEST[0]
    records = load_dataset_dicts([dataset])[: args.num]
    mapper = build_dataset_mapper(cfg, is_train=False)
    pictures = [inpainting.load_picture(record, mapper) for record in tqdm(records, "reading")]
    os.makedirs(args.output, exist_ok=True)
    results = []
    for pattern, drop, method, hints, ids in inpainting.completions(
        pictures, model, patterns=args.patterns, drops=args.drop, seed=0
    ):
        numbers = inpainting.evaluate_completion(pictures, hints, ids)
        results.append({"pattern": pattern, "drop": drop, "method": method, **numbers})
        logger.info("%s, %g %% dropped, %s: PQ %.1f", pattern, 100 * drop, method, numbers["PQ"])
        if method == "model" and drop == sorted(args.drop)[len(args.drop) // 2]:
            panel = report.draw_panel(pictures, hints, ids)
            Image.fromarray(panel).save(os.path.join(args.output, f"panel_{pattern}.png"))
    text = report.results_table(results)
    report.plot_results(results).savefig(os.path.join(args.output, "results.png"), dpi=120)
    content = {"command": shlex.join(sys.argv), "results": results}
    if args.num_samples:
        content["draws"] = inpainting.evaluate_draws(pictures, model, num_samples=args.num_samples)
        text += f"\n{report.draws_table(content['draws'])}"
    text += (
        f"\n{len(pictures)} pictures of {dataset}; {cfg.MODEL.DEVICE}, torch {torch.__version__}. "
        f"Command: `{content['command']}`\n"
    )
    Path(args.output, "results.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    Path(args.output, "results.md").write_text(text, encoding="utf-8")
    return text


def write_doc(page: str, output: str, text: str) -> None:
    """Write tables and pictures into a section of a page, named after the output folder."""
    name, lines = Path(output).name, [text]
    for file in sorted(Path(output).glob("*.png")):
        caption = f"{name}_{file.stem}".replace("_", " ")
        lines += [f"![{caption}]({copy_picture(page, name, file)})", ""]
    write_section(page, name, lines, header="# Completing masks (inpainting)\n")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        text = evaluate(args)
        if args.doc:
            write_doc(args.doc, args.output, text)
    except (ValueError, KeyError, OSError, ImportError) as error:
        logger.error("%s", error_text(error))
        return 1
    logger.info("%s\nThe results are in %s", text, args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
