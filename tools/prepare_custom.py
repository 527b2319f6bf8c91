#!/usr/bin/env python
"""Checks your own data and converts it for training: masks, COCO, Label Studio, CVAT.

python tools/prepare_custom.py --format cvat --photos images --annotations annotations.xml
python tools/prepare_custom.py ... --output $DETECTRON2_DATASETS/garden --val-fraction 0.1 [--fix]

The folder is registered by its name, as garden_train and garden_val; see docs/CUSTOM_DATA.md.
"""

import argparse
import json
import logging
import sys
from pathlib import Path

from ldmseg_d2.data.custom.prepare import READERS, prepare
from ldmseg_d2.data.custom.read_masks import CLASS_SOURCES
from ldmseg_d2.data.custom.shapes import OVERLAP_RULES
from ldmseg_d2.data.custom.sources import Job


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(value) for value in _names(text))


def build_parser() -> argparse.ArgumentParser:
    """The command line; what is not given has the default of `Job`."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
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
    add("--stuff", type=_names, help="names of stuff classes, with commas; the others are things")
    add("--class-from", choices=CLASS_SOURCES, help="masks: classes of the segments (default none)")
    add("--divisor", type=int, help="--class-from divisor: class = id // DIVISOR (default 1000)")
    add("--void", type=_numbers, help="masks: values that are void (default: semantic 255)")
    rules = "; ".join(f"{name}: {rule}" for name, rule in OVERLAP_RULES.items())
    add("--overlap", choices=OVERLAP_RULES, help=f"{rules} (default order)")
    add("--num-bits", type=int, help="MODEL.LDMSEG.NUM_BITS (default 7)")
    add("--min-area", type=int, help="pixels; smaller segments are reported (default 10)")
    add("--val-fraction", type=float, help="share of pictures for validation")
    add("--seed", type=int, help="of the choice of --val-fraction")
    add("--val-annotations", type=Path, help="annotations of a validation set of its own")
    add("--val-photos", type=Path, help="its photos (default: --photos)")
    add("--depth", type=Path, help="folder of 16-bit depth PNGs with the photos' names")
    add("--depth-scale", type=float, help="depth PNG value per metre (default 256)")
    add("--report", type=Path, default=None, help="file for the report as JSON")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Checks and converts; returns the exit status: 1 if there are errors that nothing mended."""
    options = vars(build_parser().parse_args(argv))
    report_file = options.pop("report")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        job = Job(**options)
        report = prepare(job)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report.text())
    if report_file is not None:
        report_file.parent.mkdir(parents=True, exist_ok=True)
        report_file.write_text(json.dumps(report.as_dict(), indent=1), encoding="utf-8")
    if report.written is not None:
        names = ", ".join(f"{job.output.name}_{s} ({n})" for s, n in report.written.items())
        print(f"written to {job.output}: {names}")
    elif job.output is not None:
        hint = "" if job.fix else "; mend the data, or add --fix for a corrected copy"
        print(f"nothing was written{hint}")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
