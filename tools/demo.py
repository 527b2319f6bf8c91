#!/usr/bin/env python
"""Segment photos and draw what comes out.

    tools/demo.py --config-file FILE --input PHOTOS... --output DIR [--steps]
                  [--opts MODEL.WEIGHTS FILE KEY VALUE ...]
    tools/demo.py --config-file FILE --dataset NAME --num 8 --output DIR [--opts ...]

PHOTOS are files, folders or quoted patterns such as 'photos/*.jpg'. Each photo and its result, side
by side, become DIR/<name of the photo>.png; several become a contact sheet, DIR/overview.png, too.
With --dataset the ground truth is between the two.
"""

import argparse
import glob
import logging
import os
import sys
import time
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.utils.logger import setup_logger
from PIL import Image

import ldmseg_d2  # noqa: F401  registers models and data sets
from ldmseg_d2.data import build_dataset_mapper, load_dataset_dicts
from ldmseg_d2.data.panoptic_annotations import read_id_png, read_photo
from ldmseg_d2.engine import load_config
from ldmseg_d2.engine.checkpointer import LDMSegCheckpointer
from ldmseg_d2.evaluation import predicts_classes
from ldmseg_d2.visualization import denoising_strip, draw_panoptic, enlarge, fit, grid

logger = logging.getLogger("ldmseg_d2.demo")

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
NUM_STEPS = 6
# Small pictures are enlarged to about this side, in pixels; frames of the strip are at most that.
MIN_SIDE = 256
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


class NoStepsError(RuntimeError):
    """The model gives no intermediate predictions."""


class Demo:
    """A model from a config, and the pictures of what it makes of photos."""

    def __init__(self, cfg: CfgNode, class_names: list[str] | None = None, steps: bool = False):
        """
        Args:
            cfg: of a model that segments photos.
            class_names: written on the segments of models that predict classes.
            steps: ask the model for its intermediate predictions.
        """
        self.mapper = build_dataset_mapper(cfg, is_train=False)
        self.model = build_model(cfg).eval()
        if not cfg.MODEL.WEIGHTS:
            logger.warning("MODEL.WEIGHTS is empty: the model has random weights")
        LDMSegCheckpointer(self.model, prefer_ema=cfg.MODEL.EMA.EVALUATE).load(cfg.MODEL.WEIGHTS)
        self.class_names = class_names if predicts_classes(cfg) else None
        self.steps = steps

    def load(self, record: dict[str, Any]) -> dict[str, Any]:
        """Read what belongs to one photo.

        Args:
            record: ``file_name``, ``image_id`` and, of a data set, ``pan_seg_file_name``.

        Returns:
            ``inputs`` of the model, ``photo`` (H, W, 3) uint8 and ``truth`` (H, W) ids or None.

        Raises:
            FileNotFoundError, ValueError: if a file is missing or damaged.
        """
        inputs = self.mapper(record)
        if self.steps:
            inputs["return_steps"] = NUM_STEPS
        truth_path = record.get("pan_seg_file_name")
        truth = read_id_png(truth_path) if truth_path else None
        return {"inputs": inputs, "photo": read_photo(record["file_name"]), "truth": truth}

    @torch.no_grad()
    def segment(
        self, inputs: dict[str, Any], photo: np.ndarray, truth: np.ndarray | None
    ) -> tuple[list[np.ndarray], list[str], np.ndarray | None]:
        """Segment one photo; see :meth:`load` for the arguments.

        Returns:
            The panels (photo, ground truth if there is any, result), each (H, W, 3) uint8; their
            titles; and the strip of steps, if asked for.

        Raises:
            NoStepsError: if the model has no steps to show.
        """
        output = self.model([inputs])[0]
        ids, segments_info = output["panoptic_seg"]
        scale = max(1, MIN_SIDE // max(photo.shape[:2]))
        panels, titles = [enlarge(photo, scale)], ["photo"]
        if truth is not None:
            panels.append(draw_panoptic(photo, truth, scale=scale))
            titles.append("ground truth")
        names = {"class_names": self.class_names}
        panels.append(draw_panoptic(photo, ids, segments_info, scale=scale, like=truth, **names))
        titles.append(f"result, {len(torch.unique(ids[ids > 0]))} segments")
        strip = self._strip(photo, output, truth, scale) if self.steps else None
        return panels, titles, strip

    def _strip(
        self, photo: np.ndarray, output: dict, truth: np.ndarray | None, scale: int
    ) -> np.ndarray:
        if "steps" not in output:
            raise NoStepsError(
                f"{type(self.model).__name__} has no denoising steps to show; leave out --steps"
            )
        # Every step in the colours of the result, which are the truth's where there is one.
        like = output["panoptic_seg"][0] if truth is None else truth
        frames, timesteps = [], []
        for step in output["steps"]:
            frame = draw_panoptic(photo, step["panoptic_seg"][0], scale=scale, like=like)
            frames.append(fit(frame, MIN_SIDE))
            timesteps.append(step["timestep"])
        return denoising_strip(frames, timesteps)


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
        panels, titles, strip = demo.segment(**loaded)
        picture = grid([panels], [titles])
        if strip is not None:
            picture = grid([[picture], [strip]], pad=0)
        Image.fromarray(picture).save(path)
        seconds = time.perf_counter() - start
        logger.info("%d/%d %s (%.1f s)", number, len(records), path, seconds)
        stem = os.path.splitext(os.path.basename(record["file_name"]))[0]
        if len(rows) < MAX_OVERVIEW:
            rows.append((stem, [fit(panel, OVERVIEW_SIDE) for panel in panels], titles))
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
    if cfg.MODEL.META_ARCHITECTURE == "LDMSegAutoencoder":
        raise ValueError(
            "the demo needs a diffusion model (MODEL.META_ARCHITECTURE LDMSeg): an autoencoder "
            "segments no photo, it only reconstructs ground truth"
        )
    if args.dataset is not None:
        records, problems = load_dataset_dicts([args.dataset])[: args.num], []
    else:
        paths, problems = find_photos(args.input)
        records = [{"file_name": path, "image_id": i} for i, path in enumerate(paths)]
    if args.max_images > 0:
        records = records[: args.max_images]
    if not records:
        raise ValueError("; ".join(problems) or "no photos to segment")
    os.makedirs(args.output, exist_ok=True)
    class_names = None
    dataset = args.dataset or next(iter(cfg.DATASETS.TEST), None)
    if dataset is not None:
        class_names = MetadataCatalog.get(dataset).get("stuff_classes", None)
    return Demo(cfg, class_names, args.steps), records, problems


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
    except (NoStepsError, OSError) as error:
        logger.error("%s", error)
        return 1
    if failures:
        logger.error("%d of %d photos failed", failures, len(records))
    logger.info("The pictures are in %s", os.path.abspath(args.output))
    return 1 if failures or problems else 0


if __name__ == "__main__":
    sys.exit(main())
