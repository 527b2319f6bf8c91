#!/usr/bin/env python
"""Checks your own data and converts it for training: masks, COCO, Label Studio, CVAT.

python tools/prepare_custom.py --format cvat --photos images --annotations annotations.xml
python tools/prepare_custom.py ... --output $DETECTRON2_DATASETS/garden --val-fraction 0.1 [--fix]

The folder is registered by its name, as garden_train and garden_val; see docs/CUSTOM_DATA.md.
"""

import argparse
import json
import logging
import os
import sys
from pathlib import Path

from ldmseg_d2.data.custom.check import Limits
from ldmseg_d2.data.custom.prepare import READERS, Job, prepare
from ldmseg_d2.data.custom.read_masks import CLASS_SOURCES
from ldmseg_d2.data.custom.shapes import OVERLAP_RULES


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--format", required=True, choices=READERS, help="what --annotations is")
    add("--annotations", required=True, type=Path, help="file, or folder of the masks")
    add("--photos", type=Path, help="folder of the photos (not for --format prepared)")
    add("--masks", type=Path, help="coco-panoptic: folder of the PNGs (default: beside the JSON)")
    add("--output", type=Path, help="folder to write; without it, the data are only checked")
    add("--fix", action="store_true", help="write a corrected copy where the data have errors")
    add("--overwrite", action="store_true", help="replace an --output that this tool wrote")
    add("--link-photos", action="store_true", help="link to the photos instead of copying them")
    add("--classes", type=Path, help="classes: a line each, 'name,thing' or 'name,stuff', or JSON")
    add("--stuff", default="", help="names of stuff classes, with commas; the others are things")
    add(
        "--class-from",
        choices=CLASS_SOURCES,
        help="masks: classes of the segments (default: none, class-agnostic)",
    )
    add("--divisor", type=int, help="--class-from divisor: class = id // DIVISOR (default 1000)")
    add("--void", help="masks: values that are void, with commas (default: semantic 255)")
    add(
        "--overlap",
        choices=OVERLAP_RULES,
        default="order",
        help="; ".join(f"{name}: {rule}" for name, rule in OVERLAP_RULES.items()),
    )
    add("--num-bits", type=int, default=7, help="MODEL.LDMSEG.NUM_BITS (default: %(default)s)")
    add(
        "--min-area",
        type=int,
        default=10,
        help="pixels below which a segment is reported (default: %(default)s)",
    )
    add("--val-fraction", type=float, default=0.0, help="share of pictures for validation")
    add("--seed", type=int, default=0, help="of the choice of --val-fraction")
    add("--val-annotations", type=Path, help="annotations of a validation set of its own")
    add("--val-photos", type=Path, help="its photos (default: --photos)")
    add("--depth", type=Path, help="folder of 16-bit depth PNGs with the photos' names")
    add(
        "--depth-scale",
        type=float,
        default=256.0,
        help="depth PNG value per metre (default: %(default)s)",
    )
    add("--report", type=Path, help="file for the report as JSON, with every problem")
    return parser


def build_job(args: argparse.Namespace) -> Job:
    """The job that the command line asks for.

    Raises:
        ValueError: for numbers out of range.
    """
    if not 1 <= args.num_bits <= 16:
        raise ValueError(f"--num-bits is {args.num_bits}, allowed are 1..16")
    if not 0 <= args.val_fraction < 1:
        raise ValueError(f"--val-fraction is {args.val_fraction}, allowed is 0 to below 1")
    if args.depth_scale <= 0:
        raise ValueError(f"--depth-scale is {args.depth_scale}, it must be above 0")
    if args.divisor is not None and args.divisor < 1:
        raise ValueError(f"--divisor is {args.divisor}, it must be at least 1")
    if args.fix and args.output is None:
        raise ValueError("--fix writes a corrected copy: it needs --output")
    reader = {
        "masks": args.masks,
        "class_from": args.class_from,
        "divisor": args.divisor,
        "overlap": args.overlap,
        "void": None if args.void is None else tuple(int(v) for v in args.void.split(",") if v),
    }
    return Job(
        format=args.format,
        annotations=args.annotations,
        photos=args.photos,
        val_annotations=args.val_annotations,
        val_photos=args.val_photos,
        output=args.output,
        overwrite=args.overwrite,
        link=args.link_photos,
        classes=args.classes,
        stuff=tuple(name.strip() for name in args.stuff.split(",") if name.strip()),
        limits=Limits(num_bits=args.num_bits, min_area=args.min_area, fix=args.fix),
        val_fraction=args.val_fraction,
        seed=args.seed,
        depth=args.depth,
        depth_scale=args.depth_scale,
        reader=reader,
    )


def main(argv: list[str] | None = None) -> int:
    """Checks and converts; returns the exit status: 1 if there are errors that nothing mended."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        report = prepare(build_job(args))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report.text())
    if args.report is not None:
        args.report.parent.mkdir(parents=True, exist_ok=True)
        partial = args.report.with_name(args.report.name + ".partial")
        partial.write_text(json.dumps(report.as_dict(), indent=1), encoding="utf-8")
        os.replace(partial, args.report)
    if report.written is not None:
        names = ", ".join(f"{args.output.name}_{s} ({n})" for s, n in report.written.items())
        print(f"written to {args.output}: {names}")
    elif args.output is not None:
        hint = "" if args.fix else "; mend the data, or add --fix for a corrected copy"
        print(f"nothing was written{hint}")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
