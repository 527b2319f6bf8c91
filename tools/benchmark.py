#!/usr/bin/env python
"""Trains models of any kind for the same time and compares quality, cost and speed.

python tools/benchmark.py --configs FILE FILE ... --dataset scenes --budget 20m \
    --output output/benchmark_scenes [--doc docs/BENCHMARK.md] [--opts KEY VALUE ...]

Writes DIR/results.json, results.md and pq_latency.png. What an interrupted benchmark has done is
not repeated; another model joins with the same command and one more config.
"""

import argparse
import logging
import sys
from pathlib import Path

from detectron2.utils.logger import setup_logger

from ldmseg_d2.engine.reporting import error_text
from ldmseg_d2.experiments import Budget, Runner, Settings, Stage, read_contenders
from ldmseg_d2.experiments.pages import command_line
from ldmseg_d2.experiments.results_page import write_report

logger = logging.getLogger("ldmseg_d2.experiments")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configs", nargs="+", required=True, metavar="FILE")
    parser.add_argument(
        "--dataset", default="", help="test set, or scenes for scenes_train and scenes_val"
    )
    parser.add_argument("--budget", default="20m", help="90s, 20m, 1.5h or iters:N; of each model")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument(
        "--first-stage", nargs="+", default=[], metavar="CONFIG:SHARE",
        help="trained before every LDMSeg within its budget, such as its autoencoder",
    )  # fmt: skip
    parser.add_argument(
        "--weights", nargs="+", default=[], metavar="MODEL=FILE",
        help="evaluate instead of training; MODEL is a config's name without .yaml",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[], help="of samplers; else the config's"
    )
    parser.add_argument("--images", type=int, default=0, help="test pictures; 0: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rounds", type=int, default=30, help="timed pictures of each model")
    parser.add_argument("--doc", metavar="PAGE", help="write a section of this page as well")
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="config keys and values; comes last"
    )
    args = parser.parse_args(argv)
    if min(args.rounds, *args.steps, 1) < 1 or args.images < 0:
        parser.error("--rounds and --steps must be 1 or more, --images not negative")
    if any("=" not in given for given in args.weights):
        parser.error("--weights takes MODEL=FILE, where MODEL is a config's name without .yaml")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    setup_logger(name="ldmseg_d2")
    setup_logger()
    budget = Budget.parse(args.budget)
    contenders = read_contenders(
        args.configs,
        opts=args.opts,
        weights=dict(given.split("=", 1) for given in args.weights),
        stages=[Stage.parse(text) for text in args.first_stage],
        steps=args.steps,
        dataset=args.dataset,
    )
    settings = Settings(
        output=Path(args.output),
        budget=budget,
        seeds=tuple(args.seeds),
        images=args.images,
        rounds=args.rounds,
        memory=True,
    )
    found = Runner(contenders, settings).run()
    command = command_line(argv, Path(__file__).name)
    page = write_report(found, settings.output, command=command, doc=args.doc)
    logger.info("The results are in %s", page)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"benchmark: error: {error_text(error)}")
