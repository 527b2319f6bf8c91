#!/usr/bin/env python
"""Makes the generated scenes: photos, panoptic, semantic and depth maps, as files.

python tools/prepare_scenes.py --train 16000 --val 300
"""

import argparse
import logging
import os
import sys
import time

from tqdm import tqdm

from ldmseg_d2.data.datasets.scenes import write_scenes

logger = logging.getLogger("prepare_scenes")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    root = os.environ.get("DETECTRON2_DATASETS", "datasets")
    parser.add_argument("--root", default=root, help="folder of all data sets")
    parser.add_argument("--name", default="scenes", help="folder of this one under --root")
    parser.add_argument("--size", type=int, default=64, help="side in pixels, 64 or more")
    parser.add_argument("--train", type=int, default=16000, help="training pictures; 0: none")
    parser.add_argument("--val", type=int, default=300, help="validation pictures; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = os.path.join(args.root, args.name)
    for split, count in (("train", args.train), ("val", args.val)):
        if not count:
            continue
        start = time.perf_counter()
        with tqdm(total=count, desc=f"{folder}/{split}", unit="picture") as bar:
            write_scenes(
                folder,
                split,
                num_images=count,
                size=args.size,
                seed=args.seed,
                num_workers=args.workers,
                overwrite=args.overwrite,
                progress=lambda done, total: bar.update(),
            )
            written = bar.n
        if written:
            rate = written / (time.perf_counter() - start)
            logger.info("%s: %d pictures, %.0f pictures/s", split, written, rate)


if __name__ == "__main__":
    try:
        main()
    except (FileExistsError, ValueError) as error:
        sys.exit(f"error: {error}")
