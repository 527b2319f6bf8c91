#!/usr/bin/env python
"""Checks your own data and converts it for training: masks, COCO, Label Studio, CVAT.

python tools/prepare_custom.py --format cvat --photos images --annotations annotations.xml
python tools/prepare_custom.py ... --output $DETECTRON2_DATASETS/garden --val-fraction 0.1

The folder is registered by its name, as garden_train and garden_val; see docs/CUSTOM_DATA.md.
"""

import argparse
import sys
from pathlib import Path

from ldmseg_d2.data.custom.prepare import READERS, prepare
from ldmseg_d2.data.custom.read_masks import CLASS_SOURCES
from ldmseg_d2.data.custom.shapes import OVERLAP_RULES


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(value) for value in _names(text))


def build_parser() -> argparse.ArgumentParser:
    """The command line; its options are the job that readers, checks and writer are given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--format", required=True, choices=READERS, help="what --annotations is")
    add("--annotations", required=True, type=Path, help="file, or folder of the masks")
    add("--photos", required=True, type=Path, help="folder of the photos")
    add("--masks", type=Path, help="coco-panoptic: folder of the PNGs (default: beside the JSON)")
    add("--output", type=Path, help="folder to write; without it, the data are only checked")
    add("--overwrite", action="store_true", help="replace an --output that this tool wrote")
    add("--link-photos", action="store_true", help="link to the photos instead of copying them")
    add("--classes", type=Path, help="file: a class a line, 'name,thing' or 'name,stuff'")
    add("--stuff", type=_names, default=(), help="stuff classes, with commas; others are things")
    add("--class-from", choices=CLASS_SOURCES, default="none", help="masks: classes of the ids")
    add("--divisor", type=int, default=1000, help="--class-from divisor: class = id // DIVISOR")
    add("--void", type=_numbers, help="masks: values that are void (default: semantic 255)")
    rules = "; ".join(f"{name}: {rule}" for name, rule in OVERLAP_RULES.items())
    add("--overlap", choices=OVERLAP_RULES, default="order", help=f"{rules} (default order)")
    add("--num-bits", type=int, default=7, help="MODEL.LDMSEG.NUM_BITS (default 7)")
    add("--min-area", type=int, default=10, help="pixels; smaller segments are reported")
    add("--val-fraction", type=float, default=0.0, help="share of pictures for validation")
    add("--seed", type=int, default=0, help="of the choice of --val-fraction")
    add("--depth", type=Path, help="folder of 16-bit depth PNGs with the photos' names")
    add("--depth-scale", type=float, default=256.0, help="depth PNG value per metre (default 256)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Checks and converts; returns the exit status: 1 if there are errors."""
    parser = build_parser()
    job = parser.parse_args(argv)
    for name, allowed, fits in (
        ("num-bits", "1..16", 1 <= job.num_bits <= 16),
        ("val-fraction", "0 to below 1", 0 <= job.val_fraction < 1),
        ("depth-scale", "above 0", job.depth_scale > 0),
        ("divisor", "at least 1", job.divisor >= 1),
    ):
        if not fits:
            parser.error(f"--{name}: allowed is {allowed}")
    try:
        report = prepare(job)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report.text())
    if report.written is not None:
        names = ", ".join(f"{job.output.name}_{s} ({n})" for s, n in report.written.items())
        print(f"written to {job.output}: {names}")
    elif job.output is not None:
        print("nothing was written: mend the data first")
    return 1 if report.num_errors else 0


if __name__ == "__main__":
    sys.exit(main())
