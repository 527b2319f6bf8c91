#!/usr/bin/env python
"""Trains a recipe, and what is changed in it, for the same time each: what learns faster?

python tools/study_training.py --config-file configs/scenes/ldmseg_scenes64.yaml \
    --output output/study_training_scenes --doc docs/STUDIES.md [KEY VALUE ...]

One factor at a time, and one-step regression with the same network always beside them. A factor of
the autoencoder trains one first, for --stage1-minutes. A study that was interrupted goes on where
it was; runs that are done are not repeated, so that factors and seeds can be added later.
"""

import argparse
import re
import sys
from pathlib import Path

from detectron2.utils.logger import setup_logger

from ldmseg_d2.studies import collect, describe_conditions, write_section
from ldmseg_d2.studies import training as study
from ldmseg_d2.studies import training_report as report
from ldmseg_d2.studies.report import command_line, picture_path
from ldmseg_d2.studies.training_rows import FACTORS

NAME = "study_training"
CONFIG = "configs/scenes/ldmseg_scenes64.yaml"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", default=CONFIG, help="the baseline")
    parser.add_argument("--minutes", type=float, default=4.5, help="of each training")
    parser.add_argument("--stage1-minutes", type=float, help="of each autoencoder; as --minutes")
    parser.add_argument("--iterations", type=int, default=0, help="instead of minutes")
    parser.add_argument(
        "--factors", nargs="*", choices=FACTORS, default=list(FACTORS), metavar="FACTOR",
        help=f"of {', '.join(FACTORS)}; all, if not given. Another option has to stand between "
        "them and KEY VALUE",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--images", type=int, default=100, help="pictures of each evaluation")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 4, 20], help="of the sampler")
    parser.add_argument("--block-size", type=int, default=16, help="of the inpainting, pixels")
    parser.add_argument("--name", help="of the section; default: the data set's")
    parser.add_argument("--output", default="output/study_training", help="folder of the runs")
    parser.add_argument("--doc", help="page to write into; default: OUTPUT/STUDIES.md")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config keys and values")
    args = parser.parse_args(argv)
    if min(args.images, args.block_size, *args.steps) < 1 or args.minutes <= 0:
        parser.error("--images, --block-size, --steps and --minutes must be above 0")
    if args.iterations < 0 or (args.stage1_minutes is not None and args.stage1_minutes <= 0):
        parser.error("--iterations and --stage1-minutes must be above 0")
    args.steps = sorted(set(args.steps))
    return args


def section(results: report.Results, args: argparse.Namespace, name: str, command: str) -> list:
    """The page's lines."""
    records = [record for result in results.values() for record in result.records]
    time = f"{args.iterations} iterations" if args.iterations else f"{args.minutes:g} minutes"
    if not args.iterations:
        time += " (iterations are as many as that time holds, measured before)"
    return [
        f"## What learns faster: {name}",
        "",
        f"Each row trained for {time} and changes one thing in the baseline, `{args.config_file}`. "
        "PQ is class-agnostic, with as many sampler steps as the column says; the difference is "
        "that of the last one to the baseline, and for factors of the autoencoder to the row whose "
        "autoencoder was trained here in the same way (*stage 1*: its time, not part of the row's, "
        "and its reconstruction's PQ). *Given ids*: half of the mask's "
        f"{args.block_size} px blocks are given; the share of the dropped pixels of partly given "
        "segments that get the given id, and PQ of the completed mask. Several seeds: mean ± half "
        f"of their range. Differences under {report.NOISE_ONE_SEED:g} PQ with one seed, or within "
        f"the ranges of several (or under {report.NOISE_SEVERAL:g}), are called noise.",
        "",
        report.table(results, args.steps),
        "",
        *report.findings(results),
        "",
        f"![PQ against training time](images/{section_name(name)}.png)",
        "",
        *describe_conditions(records, num_images=args.images),
        "- Command:",
        "",
        "```bash",
        command,
        "```",
    ]


def section_name(name: str) -> str:
    return f"{NAME}_{re.sub('[^a-z0-9]+', '_', name.lower())}"


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    setup_logger(name="ldmseg_d2")
    setup_logger()
    settings = study.Settings(
        config_file=args.config_file,
        output=args.output,
        opts=tuple(args.opts),
        minutes=args.minutes,
        iterations=args.iterations,
        stage1_minutes=args.stage1_minutes or args.minutes,
        steps=tuple(args.steps),
        images=args.images,
        block_size=args.block_size,
    )
    results = study.run_study(settings, args.factors, args.seeds)
    command = command_line(argv, Path(__file__).name)
    # A record that stands for several rows is kept once.
    records = {r["name"]: r for result in results.values() for r in result.records}
    stage1 = {r.stage1["name"]: r.stage1 for r in results.values() if r.stage1}
    collect(args.output, [*stage1.values(), *records.values()], command=command)
    page = Path(args.doc or Path(args.output, "STUDIES.md"))
    name = args.name or study.data_set(settings)
    report.plot(results, picture_path(page, section_name(name)), caption=f"{name}, equal time")
    write_section(page, section_name(name), section(results, args, name, command))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"{NAME}: error: {error}")
