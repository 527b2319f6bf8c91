#!/usr/bin/env python
"""Drops parts of the ground truth, lets the model complete it, and compares.

    tools/evaluate_inpainting.py --config-file FILE --output DIR [--drop 0.1 0.5 0.9]
        [--patterns block points ...] [--methods fixed noised ...] [--num N] [--resume]
        [--num-samples K] [--doc PAGE] [--opts MODEL.WEIGHTS FILE KEY VALUE ...]

Writes DIR/results.json, results.md, results.png and a panel of pictures for each pattern. METHODS
are MODEL.LDMSEG.SAMPLER.INPAINTING's values; "fixed:any" also takes latent cells as known of which
only some pixels are given. --num-samples K draws K masks without hints as well, and writes how far
their disagreement tells where the model is wrong: calibration.json, .md and .png.

The known segments are given under random names. An interrupted run goes on with --resume.
"""

import argparse
import logging
import os
import platform
import shlex
import shutil
import sys
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from tqdm import tqdm

import ldmseg_d2
from ldmseg_d2.data import build_dataset_mapper, load_dataset_dicts
from ldmseg_d2.diffusion import INPAINTING_METHODS
from ldmseg_d2.engine import load_config
from ldmseg_d2.engine.checkpointer import LDMSegCheckpointer
from ldmseg_d2.evaluation.inpainting import BASELINES, load_picture
from ldmseg_d2.evaluation.inpainting_study import InpaintingStudy, split_method
from ldmseg_d2.experiments.pages import picture_path, write_section
from ldmseg_d2.inpainting.patterns import PATTERNS

logger = logging.getLogger("ldmseg_d2.evaluate_inpainting")


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="the model's YAML")
    parser.add_argument("--dataset", metavar="NAME", help="default: the first of DATASETS.TEST")
    parser.add_argument("--drop", type=float, nargs="+", default=[0.1, 0.3, 0.5, 0.7, 0.9])
    parser.add_argument("--patterns", nargs="+", default=["block"], choices=tuple(PATTERNS))
    parser.add_argument("--methods", nargs="+", default=list(INPAINTING_METHODS))
    parser.add_argument("--baselines", nargs="*", default=list(BASELINES), choices=BASELINES)
    parser.add_argument("--block-size", type=int, default=16, help="pixels, of the pattern block")
    parser.add_argument("--num", type=int, default=0, help="pictures; 0 (default): all")
    parser.add_argument("--num-samples", type=int, default=0, help="K masks for calibration")
    parser.add_argument("--seed", type=int, default=0, help="of the patterns and names")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures at once; no influence")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--resume", action="store_true", help="keep what DIR/results.json has")
    parser.add_argument("--doc", help="Markdown page that also gets the results, as a section")
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="config keys and values; comes last"
    )
    return parser


def build_study(args: argparse.Namespace) -> InpaintingStudy:
    """The model with its weights, the pictures and the output folder.

    Raises:
        ValueError, KeyError, OSError: what the user can mend, with a message that says so.
    """
    cfg = load_config(args.config_file, args.opts)
    model = build_model(cfg).eval()
    if not cfg.MODEL.WEIGHTS:
        logger.warning("MODEL.WEIGHTS is empty: the model has random weights")
    LDMSegCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    dataset = args.dataset or cfg.DATASETS.TEST[0]
    records = load_dataset_dicts([dataset])
    records = records[: args.num] if args.num else records
    mapper = build_dataset_mapper(cfg, is_train=False)
    os.makedirs(args.output, exist_ok=True)
    return InpaintingStudy(
        model,
        [load_picture(record, mapper) for record in tqdm(records, "reading", unit="picture")],
        output=args.output,
        run=describe(args, cfg, dataset, len(records)),
        resume=args.resume,
        block_size=args.block_size,
        seed=args.seed,
        batch_size=args.batch_size,
    )


def describe(args: argparse.Namespace, cfg: CfgNode, dataset: str, num: int) -> dict[str, Any]:
    """What the numbers depend on, for the record."""
    return {
        "command": shlex.join(sys.argv),
        "config_file": args.config_file,
        "weights": cfg.MODEL.WEIGHTS,
        "opts": args.opts,
        "dataset": dataset,
        "pictures": num,
        "seed": args.seed,
        "model_seed": cfg.SEED,
        "block_size": args.block_size,
        "sampler": dict(cfg.MODEL.LDMSEG.SAMPLER),
        "thresholds": dict(cfg.MODEL.LDMSEG.POSTPROCESS),
        "device": f"{cfg.MODEL.DEVICE}, {torch.get_num_threads()} threads, {platform.machine()}",
        "versions": {"ldmseg_d2": ldmseg_d2.__version__, "torch": torch.__version__},
    }


def write_doc(page: str, output: str, dataset: str, text: str) -> None:
    """Write tables and pictures into a section of a page, named after the output folder."""
    name = os.path.basename(os.path.normpath(output))
    lines = [f"## {dataset}", "", text.rstrip(), ""]
    for file in sorted(os.listdir(output)):
        stem, suffix = os.path.splitext(file)
        if suffix == ".png":
            target = picture_path(page, f"{name}_{stem}")
            shutil.copyfile(os.path.join(output, file), target)
            kind = stem.replace("_", " ")
            lines += [f"![{dataset}: {kind}](images/{target.name})", ""]
    write_section(page, name, lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        # Before minutes of work: a method that does not exist, a share that is none.
        for method in args.methods:
            split_method(method)
        if not all(0 <= drop <= 1 for drop in args.drop):
            raise ValueError(f"--drop takes shares from 0 to 1, got {args.drop}")
        study = build_study(args)
        names = {"patterns": args.patterns, "drops": args.drop}
        study.evaluate(**names, methods=args.methods, baselines=args.baselines)
        middle = sorted(args.drop)[len(args.drop) // 2]
        text = study.report(panel_method=(args.methods or [None])[0], panel_drop=middle)
        if args.num_samples:
            text += f"\n{study.calibrate(args.num_samples)}"
        if args.doc:
            write_doc(args.doc, args.output, study.run["dataset"], text)
    except (ValueError, KeyError, OSError, ImportError) as error:
        # str() of a KeyError quotes its message.
        logger.error("%s", error.args[0] if isinstance(error, KeyError) and error.args else error)
        return 1
    logger.info("%s\nThe results are in %s", text, os.path.abspath(args.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
