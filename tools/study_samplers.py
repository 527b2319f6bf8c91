#!/usr/bin/env python
"""Compares samplers, numbers of steps and timestep spacings on one trained model.

python tools/study_samplers.py --output output/study_samplers --doc docs/STUDIES.md [KEY VALUE ...]

Every sampler of MODEL.LDMSEG.SAMPLER.NAME with every spacing that it has. Nothing is trained. A
study that was interrupted goes on where it was; what is measured is not measured again.
"""

import argparse
import logging
import sys
from pathlib import Path

import torch
from detectron2.modeling import build_model
from detectron2.utils.logger import setup_logger

from ldmseg_d2.config import SAMPLERS, TIMESTEP_SPACINGS
from ldmseg_d2.engine import LDMSegCheckpointer, load_config
from ldmseg_d2.engine.config_reader import check_datasets
from ldmseg_d2.studies import samplers as study
from ldmseg_d2.studies import samplers_report as report
from ldmseg_d2.studies import write_section
from ldmseg_d2.studies.report import command_line, picture_path
from ldmseg_d2.studies.runs import commit

NAME = "study_samplers"
CONFIG = "configs/scenes/ldmseg_multitask_scenes64.yaml"
WEIGHTS = "ldmseg://ldmseg_multitask_scenes64.safetensors"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", default=CONFIG)
    parser.add_argument("--weights", default=WEIGHTS, help="of that model")
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--steps", type=int, nargs="+", default=list(study.STEPS))
    parser.add_argument(
        "--spacings", nargs="+", choices=TIMESTEP_SPACINGS, default=list(TIMESTEP_SPACINGS)
    )
    parser.add_argument("--images", type=int, default=60, help="pictures of the evaluation")
    parser.add_argument("--batch", type=int, default=50, help="pictures at once; no influence")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the noise")
    parser.add_argument("--latency-rounds", type=int, default=5, help="0: no latencies")
    parser.add_argument("--output", default="output/study_samplers", help="folder of the results")
    parser.add_argument("--doc", help="page to write into; default: OUTPUT/STUDIES.md")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config keys and values")
    args = parser.parse_args(argv)
    if min(*args.steps, args.images, args.batch) < 1:
        parser.error("--steps, --images and --batch must be 1 or more")
    return args


def build_study(args: argparse.Namespace) -> study.SamplerStudy:
    """The model with its weights, and what is known of it so far."""
    opts = [
        *args.opts,
        *("TEST.IMS_PER_BATCH", args.batch, "TEST.MAX_IMAGES", args.images),
        *("DATALOADER.NUM_WORKERS", 0),
    ]
    cfg = load_config(args.config_file, opts)
    check_datasets(cfg)
    run = {
        "config_file": args.config_file,
        "weights": args.weights,
        "dataset": ", ".join(cfg.DATASETS.TEST),
        "images": args.images,
        "opts": [str(word) for word in args.opts],
    }
    model = build_model(cfg).eval()
    made = study.SamplerStudy(cfg, model, output=args.output, run=run)
    LDMSegCheckpointer(model).load(args.weights)
    return made


def section(made: study.SamplerStudy, args: argparse.Namespace, command: str) -> list[str]:
    """The page's lines."""
    lines = [
        "## Samplers, steps and timestep spacings",
        "",
        f"`{Path(args.config_file).stem}` with "
        f"{f'the weights `{Path(args.weights).name}`' if args.weights else 'random weights'}. "
        "The samplers are diffusers' schedulers, and so are the spacings: at 1 step, *leading* and "
        "*linspace* put DDIM, DDPM and Heun at t = 0, where the network expects hardly any noise; "
        "DDIM and DDPM step by T // N timesteps, which is not *linspace*'s distance. LCM has "
        "*trailing* alone. With *trailing* all samplers are the same at 1 step: the prediction at "
        "t = T - 1.",
        "",
        *report.tables(made.records),
        *report.findings(made.records),
        "",
        f"![PQ by the number of steps](images/{NAME}.png)",
        "",
    ]
    if made.latency:
        seconds = {(one["sampler"], one["steps"]): one["seconds"] for one in made.latency}
        lines += [
            "Cost: passes of the network for a picture, and latency of the whole model (photo in, "
            "maps out) at batch 1 in units of that of one DDIM step, which is "
            f"{1000 * seconds[study.REFERENCE[:2]]:.0f} ms here. All were timed in turn, "
            f"{made.latency[0]['rounds']} times; medians of the ratios within a round. All "
            "spacings cost the same.",
            "",
            *report.cost_table(made.latency),
            "",
        ]
    return [*lines, *conditions(made), "- Command:", "", "```bash", command, "```"]


def conditions(made: study.SamplerStudy) -> list[str]:
    """Under which conditions the numbers were measured: lines of a list."""
    cfg = made.cfg
    seeds = dict.fromkeys(str(record["seed"]) for record in made.records)
    post, diffusion = cfg.MODEL.LDMSEG.POSTPROCESS, cfg.MODEL.LDMSEG.DIFFUSION
    on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
    device = torch.cuda.get_device_name() if on_gpu else "CPU"
    thresholds = ", ".join(f"{key} {number}" for key, number in sorted(post.items()))
    return [
        f"- Evaluation: the first {made.num_images} pictures of {', '.join(cfg.DATASETS.TEST)}, "
        f"seed(s) {', '.join(seeds)} of the noise (mean ± half of their range), "
        f"thresholds: {thresholds}.",
        f"- Diffusion: PREDICTION_TYPE {diffusion.PREDICTION_TYPE}, BETA_SCHEDULE "
        f"{diffusion.BETA_SCHEDULE}, RESCALE_BETAS_ZERO_SNR {diffusion.RESCALE_BETAS_ZERO_SNR}. "
        f"{device} with {torch.get_num_threads()} thread(s), "
        f"{'wall' if on_gpu else 'CPU'} time, torch {torch.__version__.split('+')[0]}, commit "
        f"{commit()}.",
    ]


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    setup_logger(name="ldmseg_d2")
    setup_logger()
    made = build_study(args)
    # A table for every combination would bury the progress.
    logging.getLogger("ldmseg_d2.evaluation").setLevel(logging.WARNING)
    wanted = study.combinations(made.cfg, args.samplers, args.steps, args.spacings)
    made.measure_latency(wanted, args.latency_rounds)
    made.evaluate(wanted, args.seeds)
    page = Path(args.doc or Path(args.output, "STUDIES.md"))
    report.plot(made.records, picture_path(page, NAME))
    write_section(page, NAME, section(made, args, command_line(argv, Path(__file__).name)))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"{NAME}: error: {error}")
