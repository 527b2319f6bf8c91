#!/usr/bin/env python
"""Segment photos and draw what comes out.

    tools/demo.py --config-file FILE --input PHOTOS... --output DIR [--steps]
                  [--tasks TASK ...] [--opts MODEL.WEIGHTS FILE KEY VALUE ...]
    tools/demo.py --config-file FILE --dataset NAME --num 8 --output DIR [--opts ...]

PHOTOS are files, folders or quoted patterns such as 'photos/*.jpg'. Each photo and its results
become DIR/<name of the photo>.png: photo | panoptic | semantic | depth, whatever the model gives.
Several become a contact sheet, DIR/overview.png, too. With --dataset the ground truth is shown as
well.
"""

import argparse
import glob
import logging
import os
import sys
import time
from typing import Any

import numpy as np
from detectron2.utils.logger import setup_logger
from PIL import Image

import ldmseg_d2  # noqa: F401  registers models and data sets
from ldmseg_d2.data import dataset_dicts_with_depth
from ldmseg_d2.engine import load_config
from ldmseg_d2.engine.demo import Demo, DemoError
from ldmseg_d2.visualization import fit, grid

logger = logging.getLogger("ldmseg_d2.demo")

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
# Panels of the overview are at most this wide and high, in pixels.
OVERVIEW_SIDE = 320
MAX_OVERVIEW = 60


def get_parser() -> argparse.ArgumentParser:
    """The command line, with the names of Detectron2's demo."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="the model's YAML")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", nargs="+", metavar="PHOTO", help="files, folders or patterns")
    source.add_argument("--dataset", metavar="NAME", help="a registered data set, with its truth")
    parser.add_argument("--num", type=int, default=8, help="photos of --dataset (default: 8)")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the pictures")
    parser.add_argument("--steps", action="store_true", help="also show steps of the denoising")
    parser.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="LDMSeg: only these")
    parser.add_argument("--seed", type=int, help="of the noise (default: the config's SEED)")
    parser.add_argument("--max-images", type=int, default=0, help="stop after so many; 0: all")
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="config keys and values; comes last"
    )
    return parser


def find_photos(patterns: list[str]) -> tuple[list[str], list[str]]:
    """Resolve files, folders and patterns.

    Args:
        patterns: what stands after --input.

    Returns:
        Paths, each once, in the order given (sorted within a folder or pattern); and one message
        for everything that leads to no photo.
    """
    paths, problems = [], []
    for pattern in patterns:
        pattern = os.path.expanduser(pattern)
        if os.path.isdir(pattern):
            names = sorted(os.listdir(pattern))
            found = [os.path.join(pattern, n) for n in names if n.lower().endswith(PHOTO_SUFFIXES)]
        elif os.path.isfile(pattern):
            found = [pattern]
        else:
            found = sorted(p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))
        if not found:
            problems.append(f"no photo at {pattern!r} (suffixes: {', '.join(PHOTO_SUFFIXES)})")
        paths.extend(found)
    return list(dict.fromkeys(paths)), problems


def output_paths(photos: list[str], folder: str) -> list[str]:
    """DIR/<stem>.png for each photo, with a number where a name is taken; never a photo itself."""
    taken = {os.path.realpath(photo) for photo in photos}
    taken.add(os.path.realpath(os.path.join(folder, "overview.png")))
    results = []
    for photo in photos:
        stem, number = os.path.splitext(os.path.basename(photo))[0], 1
        path = os.path.join(folder, f"{stem}.png")
        while os.path.realpath(path) in taken:
            number += 1
            path = os.path.join(folder, f"{stem}_{number}.png")
        taken.add(os.path.realpath(path))
        results.append(path)
    return results


def draw_overview(rows: list[tuple[str, list[np.ndarray], list[str]]]) -> np.ndarray:
    """A contact sheet that is about as wide as high.

    Args:
        rows: (name of the photo, panels, titles) of each photo.

    Returns:
        (H, W, 3) uint8.
    """
    photos_a_row = max(1, round((len(rows) / len(rows[0][1])) ** 0.5))
    cells = [panels for _, panels, _ in rows]
    titles = [[name, *titles[1:]] for name, _, titles in rows]
    starts = range(0, len(rows), photos_a_row)
    return grid(
        [sum(cells[i : i + photos_a_row], []) for i in starts],
        [sum(titles[i : i + photos_a_row], []) for i in starts],
    )


def segment_all(demo: Demo, records: list[dict[str, Any]], folder: str) -> int:
    """Segment all photos and write their pictures; returns how many photos failed."""
    rows, failures = [], 0
    targets = output_paths([record["file_name"] for record in records], folder)
    for number, (record, path) in enumerate(zip(records, targets), start=1):
        start = time.perf_counter()
        try:
            loaded = demo.load(record)
        except (OSError, ValueError) as error:
            logger.error("%s: %s", record["file_name"], error)
            failures += 1
            continue
        sheet = demo.segment(**loaded)
        Image.fromarray(sheet.picture()).save(path)
        seconds = time.perf_counter() - start
        logger.info("%d/%d %s (%.1f s)", number, len(records), path, seconds)
        stem = os.path.splitext(os.path.basename(record["file_name"]))[0]
        if len(rows) < MAX_OVERVIEW:
            panels = [fit(panel, OVERVIEW_SIDE) for panel in sheet.rows[0]]
            rows.append((stem, panels, sheet.titles[0]))
    if len(rows) > 1:
        overview = os.path.join(folder, "overview.png")
        Image.fromarray(draw_overview(rows)).save(overview)
        logger.info("%s shows %d of %d photos", overview, len(rows), len(records))
    return failures


def setup(args: argparse.Namespace) -> tuple[Demo, list[dict[str, Any]], list[str]]:
    """Everything before the first photo: config, photos, output folder, model.

    Returns:
        The model; data set dicts of the photos; a message for each input that is no photo.

    Raises:
        ValueError, KeyError, OSError: what the user can mend, with a message that says so.
    """
    opts = [*args.opts, "INPUT.LDMSEG.ANNOTATIONS_AT_TEST", "False"]
    if args.seed is not None:
        opts += ["SEED", str(args.seed)]
    cfg = load_config(args.config_file, opts)
    if args.dataset is not None:
        records, problems = dataset_dicts_with_depth(cfg, args.dataset)[: args.num], []
    else:
        paths, problems = find_photos(args.input)
        records = [{"file_name": path, "image_id": i} for i, path in enumerate(paths)]
    if args.max_images > 0:
        records = records[: args.max_images]
    if not records:
        raise ValueError("; ".join(problems) or "no photos to segment")
    os.makedirs(args.output, exist_ok=True)
    dataset = args.dataset or next(iter(cfg.DATASETS.TEST), None)
    demo = Demo(cfg, dataset=dataset, steps=args.steps, tasks=args.tasks)
    return demo, records, problems


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 1 where anything failed."""
    args = get_parser().parse_args(argv)
    setup_logger(name="ldmseg_d2")
    try:
        demo, records, problems = setup(args)
    except (ValueError, KeyError, OSError) as error:
        # str() of a KeyError quotes its message.
        logger.error("%s", error.args[0] if isinstance(error, KeyError) and error.args else error)
        return 1
    for problem in problems:
        logger.error(problem)
    try:
        failures = segment_all(demo, records, args.output)
    except (DemoError, OSError) as error:
        logger.error("%s", error)
        return 1
    if failures:
        logger.error("%d of %d photos failed", failures, len(records))
    logger.info("The pictures are in %s", os.path.abspath(args.output))
    return 1 if failures or problems else 0


if __name__ == "__main__":
    sys.exit(main())
