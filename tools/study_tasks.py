#!/usr/bin/env python
"""Trains the tasks alone and together, and writes what they cost each other.

python tools/study_tasks.py --output output/study_tasks --doc docs/STUDIES.md [KEY VALUE ...]

I, S and D are the tasks instance, semantic and depth: {I}, {S}, {D}, {I, S} and {I, S, D} are
trained, several tasks in the modes "separate" (the paper) and "joint" (MODEL.LDMSEG.TASK_MODE). A
study that was interrupted goes on where it was; runs that are done are not repeated.
"""

import argparse
import sys
from pathlib import Path

from detectron2.utils.logger import setup_logger

from ldmseg_d2.studies import collect, describe_conditions, write_section
from ldmseg_d2.studies import tasks as study
from ldmseg_d2.studies.report import command_line, picture_path

NAME = "study_tasks"
CONFIG = "configs/scenes/ldmseg_separate_tasks_scenes64.yaml"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", default=CONFIG, help="all three tasks, separate")
    parser.add_argument("--updates", type=int, default=300, help="training updates of every task")
    parser.add_argument("--batch", type=int, default=8, help="pictures of an update")
    parser.add_argument("--images", type=int, default=100, help="pictures of the evaluation")
    parser.add_argument("--steps", type=int, default=10, help="of the sampler")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--modes", nargs="+", choices=study.MODES, default=list(study.MODES))
    parser.add_argument("--output", default="output/study_tasks", help="folder of the runs")
    parser.add_argument("--doc", help="page to write into; default: OUTPUT/STUDIES.md")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config keys and values")
    args = parser.parse_args(argv)
    if min(args.updates, args.batch, args.images, args.steps) < 1:
        parser.error("--updates, --batch, --images and --steps must be 1 or more")
    return args


def section(rows: dict, args: argparse.Namespace, command: str) -> list[str]:
    """The page's lines."""
    records = [record for of_row in rows.values() for record in of_row]
    return [
        "## Tasks that share a model",
        "",
        "I: instance, S: semantic, D: depth. Each task of each row was taught "
        f"{args.updates} times {args.batch} pictures; *separate* teaches one task a picture (the "
        "number of iterations is that of the updates times the number of tasks), *joint* all at "
        "once (fewer iterations and less time); *equal time* is joint for as long as separate "
        "took. In brackets: the difference to the task alone (higher is better, but for AbsRel). "
        "With I and S the class-agnostic PQ is that of the map merged by classes, in which stuff "
        "that was split is joined; I alone cannot do that. Several seeds: mean ± half of their "
        "range.",
        "",
        study.table(rows),
        "",
        *study.findings(rows),
        *([""] if study.findings(rows) else []),
        f"![Tasks alone and together](images/{NAME}.png)",
        "",
        *describe_conditions(records, num_images=args.images),
        "- Command:",
        "",
        "```bash",
        command,
        "```",
    ]


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    setup_logger(name="ldmseg_d2")
    setup_logger()
    opts = [
        *("SOLVER.AMP.ENABLED", True, "SOLVER.IMS_PER_BATCH", args.batch),
        *("TEST.MAX_IMAGES", args.images),
        *("MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS", args.steps),
        *args.opts,
    ]
    rows: dict = {row: [] for row in study.table_rows(args.modes)}
    for seed in args.seeds:
        found = study.run_rows(
            args.modes,
            args.output,
            config_file=args.config_file,
            updates=args.updates,
            seed=seed,
            opts=opts,
        )
        for row, record in found.items():
            rows[row].append(record)
    command = command_line(argv, Path(__file__).name)
    collect(args.output, [r for of_row in rows.values() for r in of_row], command=command)
    page = Path(args.doc or Path(args.output, "STUDIES.md"))
    caption = f"{args.updates} updates of {args.batch} pictures for every task"
    study.plot(rows, picture_path(page, NAME), caption=caption)
    write_section(page, NAME, section(rows, args, command))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"{NAME}: error: {error}")
