#!/usr/bin/env python
"""Measures PQ by the number of segments in a picture, for 7 and 8 bits and two ways of giving ids.

python tools/study_capacity.py --output output/study_capacity --doc docs/STUDIES.md [KEY VALUE ...]

The pictures are generated mosaics of 1 to 255 segments. For every number of bits it trains an
autoencoder, and on it a full model with random and one with ordered ids. A study that was
interrupted goes on where it was; runs that are done are not repeated.
"""

import argparse
import sys
from pathlib import Path

from detectron2.utils.logger import setup_logger

from ldmseg_d2.studies import capacity as study
from ldmseg_d2.studies import collect, describe_conditions, write_section
from ldmseg_d2.studies.report import command_line, picture_path

NAME = "study_capacity"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bits", type=int, nargs="+", default=[7, 8])
    parser.add_argument("--autoencoder-iterations", type=int, default=1500, help="of stage 1")
    parser.add_argument("--iterations", type=int, default=600, help="of every full model")
    parser.add_argument("--batch", type=int, default=8, help="pictures of an iteration")
    parser.add_argument("--size", type=int, default=96, help="side of the pictures, pixels")
    parser.add_argument("--train-images", type=int, default=1500)
    parser.add_argument("--images", type=int, default=12, help="test pictures of every bin")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="output/study_capacity", help="folder of the runs")
    parser.add_argument("--doc", help="page to write into; default: OUTPUT/STUDIES.md")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config keys and values")
    args = parser.parse_args(argv)
    numbers = (args.autoencoder_iterations, args.iterations, args.batch, args.images)
    if min(*numbers, args.train_images) < 1:
        parser.error("iterations, --batch, --images and --train-images must be 1 or more")
    return args


def section(records: list, curves: study.Curves, args: argparse.Namespace, command: str) -> list:
    """The page's lines."""
    iterations = f"{args.autoencoder_iterations} iterations for an autoencoder"
    minutes = sum(record["training_minutes"] for record in records)
    return [
        "## How many segments a picture can have",
        "",
        f"Generated mosaics of {args.size}x{args.size} pixels, trained on 1 to 255 segments "
        f"(log-uniform). {iterations}, which sees random ids, and {args.iterations} for each full "
        "model, which is taught with random or ordered (raster order of the centroids) ids. PQ is "
        "class-agnostic, in percent, over all segments of a bin's pictures; *reconstruction* "
        "encodes and decodes the truth under such ids. It breaks at the first bin after the best "
        f"one that is below {study.BREAKS_BELOW:.0%} of it (a ring in the picture). Of pictures "
        "with more segments than ids, the smallest become void, and count as missed.",
        "",
        study.table(curves),
        "",
        f"![PQ by the number of segments](images/{NAME}.png)",
        "",
        *describe_conditions(records, num_images=args.images * len(study.BINS)),
        f"- All trainings together: {minutes:.1f} minutes.",
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
    study.prepare_mosaics(
        args.output,
        size=args.size,
        num_train=args.train_images,
        num_a_bin=args.images,
        seed=args.seed,
    )
    records, curves = study.run_all(
        args.output,
        bits=args.bits,
        size=args.size,
        autoencoder_iterations=args.autoencoder_iterations,
        iterations=args.iterations,
        seed=args.seed,
        opts=["SOLVER.IMS_PER_BATCH", args.batch, *args.opts],
    )
    command = command_line(argv, Path(__file__).name)
    collect(args.output, records, command=command)
    page = Path(args.doc or Path(args.output, "STUDIES.md"))
    study.plot(curves, picture_path(page, NAME))
    write_section(page, NAME, section(records, curves, args, command))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"{NAME}: error: {error}")
