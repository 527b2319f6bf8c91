#!/usr/bin/env python
"""Segment photos and draw what comes out.

    tools/demo.py --config-file FILE --input PHOTOS... --output DIR [--steps]
                  [--opts MODEL.WEIGHTS FILE KEY VALUE ...]
    tools/demo.py --config-file FILE --dataset NAME --num 8 --output DIR [--opts ...]

PHOTOS are files, folders or quoted patterns such as 'photos/*.jpg'. Each photo and its results
become DIR/<name of the photo>.png: photo | panoptic | semantic | depth, whatever the model gives,
with --dataset above their ground truth. Several become a contact sheet, DIR/overview.png, too.
"""

import argparse
import glob
import logging
import os
import sys
from typing import Any

import numpy as np
from detectron2.utils.logger import setup_logger
from PIL import Image

import ldmseg_d2  # noqa: F401  registers models and data sets
from ldmseg_d2.data import dataset_dicts_with_depth
from ldmseg_d2.engine import load_config
from ldmseg_d2.engine.demo import Demo
from ldmseg_d2.engine.reporting import error_text
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
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="config; comes last")
    return parser


def find_photos(patterns: list[str]) -> tuple[list[str], list[str]]:
    """Resolve what stands after --input: files, folders and patterns.

    Returns:
        Paths, each once, in the order given (sorted within a folder or pattern); and one message
        for everything that leads to no photo.
    """
    paths, problems = [], []
    for pattern in patterns:
        pattern = os.path.expanduser(pattern)
        names = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)
        if os.path.isdir(pattern):
            names = [os.path.join(pattern, name) for name in os.listdir(pattern)]
            names = [name for name in names if name.lower().endswith(PHOTO_SUFFIXES)]
        found = sorted(name for name in names if os.path.isfile(name))
        if not found:
            problems.append(f"no photo at {pattern!r} (suffixes: {', '.join(PHOTO_SUFFIXES)})")
        paths.extend(found)
    return list(dict.fromkeys(paths)), problems


def output_path(photo: str, folder: str, taken: set[str]) -> str:
    """DIR/<stem>.png, with a number where that is taken (real paths; the new one is added)."""
    stem, number = os.path.splitext(os.path.basename(photo))[0], 1
    path = os.path.join(folder, f"{stem}.png")
    while os.path.realpath(path) in taken:
        number += 1
        path = os.path.join(folder, f"{stem}_{number}.png")
    taken.add(os.path.realpath(path))
    return path


def draw_overview(rows: list[tuple[list[np.ndarray], list[str]]]) -> np.ndarray:
    """A contact sheet (H, W, 3) about as wide as high of each photo's panels and titles."""
    photos_a_row = max(1, round((len(rows) / len(rows[0][0])) ** 0.5))
    starts = range(0, len(rows), photos_a_row)
    cells, titles = (
        [sum((row[part] for row in rows[i : i + photos_a_row]), []) for i in starts]
        for part in (0, 1)
    )
    return grid(cells, titles)


def segment_all(demo: Demo, records: list[dict[str, Any]], folder: str) -> int:
    """Segment all photos and write their pictures; returns how many photos failed."""
    rows, failures = [], 0
    overview = os.path.join(folder, "overview.png")
    # A result must not replace a photo.
    taken = {os.path.realpath(path) for path in (overview, *(r["file_name"] for r in records))}
    for number, record in enumerate(records, start=1):
        try:
            loaded = demo.load(record)
        except (OSError, ValueError) as error:
            logger.error("%s: %s", record["file_name"], error)
            failures += 1
            continue
        sheet = demo.segment(**loaded)
        path = output_path(record["file_name"], folder, taken)
        Image.fromarray(sheet.picture()).save(path)
        logger.info("%d/%d %s", number, len(records), path)
        name = os.path.splitext(os.path.basename(record["file_name"]))[0]
        panels = [fit(panel, OVERVIEW_SIDE) for panel in sheet.rows[0]]
        rows.append((panels, [name, *sheet.titles[0][1:]]))
    if len(rows) > 1:
        Image.fromarray(draw_overview(rows[:MAX_OVERVIEW])).save(overview)
    return failures


def setup(args: argparse.Namespace) -> tuple[Demo, list[dict[str, Any]], list[str]]:
    """Everything before the first photo: config, photos, output folder, model.

    Returns:
        The model; data set dicts of the photos; a message for each input that is no photo.

    Raises:
        ValueError, KeyError, OSError: what the user can mend, with a message that says so.
    """
    cfg = load_config(args.config_file, [*args.opts, "INPUT.LDMSEG.ANNOTATIONS_AT_TEST", "False"])
    if args.dataset is not None:
        records, problems = dataset_dicts_with_depth(cfg, args.dataset)[: args.num], []
    else:
        paths, problems = find_photos(args.input)
        records = [{"file_name": path, "image_id": i} for i, path in enumerate(paths)]
    if not records:
        raise ValueError("; ".join(problems) or "no photos to segment")
    os.makedirs(args.output, exist_ok=True)
    dataset = args.dataset or next(iter(cfg.DATASETS.TEST), None)
    return Demo(cfg, dataset=dataset, steps=args.steps), records, problems


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 1 where anything failed."""
    args = get_parser().parse_args(argv)
    setup_logger(name="ldmseg_d2")
    try:
        demo, records, problems = setup(args)
        for problem in problems:
            logger.error(problem)
        failures = segment_all(demo, records, args.output)
    except (ValueError, KeyError, OSError) as error:
        logger.error("%s", error_text(error))
        return 1
    if failures:
        logger.error("%d of %d photos failed", failures, len(records))
    logger.info("The pictures are in %s", os.path.abspath(args.output))
    return 1 if failures or problems else 0


if __name__ == "__main__":
    sys.exit(main())
