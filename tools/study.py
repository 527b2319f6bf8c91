#!/usr/bin/env python
"""Changes one thing at a time in a model, and measures what comes of it.

python tools/study.py --study configs/studies/training.yaml --budget 150s --images 60 \
    [--doc docs/STUDIES.md] [KEY VALUE ...]

What is changed is in the study's file; KEY VALUE hold for all its rows. Writes DIR/results.json,
results.md and a plot. What an interrupted study has done is not repeated.
"""

import argparse
import logging
import sys
from pathlib import Path

from detectron2.utils.logger import setup_logger

from ldmseg_d2.engine.reporting import error_text
from ldmseg_d2.experiments import Budget, Runner, Settings, read_study
from ldmseg_d2.experiments.pages import command_line
from ldmseg_d2.experiments.results_page import write_report

logger = logging.getLogger("ldmseg_d2.experiments")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", required=True, metavar="FILE", help="of configs/studies/")
    parser.add_argument("--budget", default="4m", help="90s, 20m, 1.5h or iters:N; of each row")
    parser.add_argument("--output", metavar="DIR", help="default: output/study_NAME")
    parser.add_argument("--images", type=int, default=100, help="test pictures; 0: all")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="another option or -- has to follow them"
    )
    parser.add_argument("--doc", metavar="PAGE", help="write a section of this page as well")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config keys and values")
    args = parser.parse_args(argv)
    args.opts = args.opts[args.opts[:1] == ["--"] :]
    if args.images < 0:
        parser.error("--images must not be negative")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    setup_logger(name="ldmseg_d2")
    setup_logger()
    budget = Budget.parse(args.budget)
    study = read_study(args.study, args.opts)
    settings = Settings(
        output=Path(args.output or f"output/study_{study.name}"),
        budget=budget,
        seeds=tuple(args.seeds),
        images=args.images,
        rounds=8,
    )
    found = Runner(study.contenders, settings).run()
    command = command_line(argv, Path(__file__).name)
    page = write_report(found, settings.output, command=command, doc=args.doc, study=study)
    logger.info("The results are in %s", page)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"study: error: {error_text(error)}")
