#!/usr/bin/env python
"""Converts ADE20K (ADEChallengeData2016) to what the registered data sets read.

python tools/prepare_ade20k.py --root $DETECTRON2_DATASETS

Makes ade20k_panoptic_{train,val} and ade20k_sem_seg_{train,val} ready for cfg.DATASETS.
"""

import argparse
import logging
import os
import sys

from tqdm import tqdm

from ldmseg_d2.data.datasets import datasets_root
from ldmseg_d2.data.datasets.ade20k import SPLITS, convert_ade20k


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and converts; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--root", default=datasets_root(), help="folder that holds ADEChallengeData2016/"
    )
    parser.add_argument(
        "--splits", nargs="+", choices=list(SPLITS), default=list(SPLITS), help="what to convert"
    )
    parser.add_argument(
        "--semantic-only",
        action="store_true",
        help="without annotations_instance/: ade20k_sem_seg_* alone",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        with tqdm(unit="picture") as bar:

            def show(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            convert_ade20k(
                args.root,
                splits=args.splits,
                semantic_only=args.semantic_only,
                num_workers=args.workers,
                progress=show,
            )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
