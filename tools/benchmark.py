#!/usr/bin/env python
"""Trains models of any kind for the same time and compares quality, cost and speed.

python tools/benchmark.py --configs FILE FILE ... --dataset scenes --budget 20m \
    --output output/benchmark_scenes [--doc docs/BENCHMARK.md] [--opts KEY VALUE ...]

Writes DIR/results.json, results.md, pq_latency.png, pq_training_time.png and panel.png. What an
interrupted benchmark has done is not repeated; another model joins with the same command and one
more config. Which stages a model needs before it, and at which numbers of sampling steps it is
evaluated, its config says under BENCHMARK.
"""

import argparse
import logging
import shutil
import sys
from pathlib import Path

from detectron2.utils.logger import setup_logger

from ldmseg_d2.benchmark import Budget, Session, Settings, read_contenders
from ldmseg_d2.benchmark.plots import plot_latency, plot_training
from ldmseg_d2.benchmark.session import PRECISIONS
from ldmseg_d2.benchmark.tables import HEADER, page_section
from ldmseg_d2.engine.reporting import write_results
from ldmseg_d2.studies import write_section
from ldmseg_d2.studies.report import command_line, picture_path

logger = logging.getLogger("ldmseg_d2.benchmark")

PICTURES = {
    "pq_latency": "PQ against latency",
    "pq_training_time": "PQ against training time",
    "panel": "The same photos through every model",
}


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configs", nargs="+", required=True, metavar="FILE")
    parser.add_argument(
        "--dataset", default="", help="test set, or scenes for scenes_train and scenes_val"
    )
    parser.add_argument("--budget", default="20m", help="90s, 20m, 1.5h or iters:N; of each model")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument(
        "--weights", nargs="+", default=[], metavar="MODEL=FILE", help="evaluate, do not train"
    )
    parser.add_argument(
        "--model-opts", nargs="+", action="append", default=[], metavar=("MODEL", "KEY VALUE"),
        help="config keys and values of one model and its stages",
    )  # fmt: skip
    parser.add_argument("--images", type=int, default=0, help="test pictures; 0: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--curve-points", type=int, default=4, help="evaluations in training")
    parser.add_argument("--curve-images", type=int, default=100, help="pictures of each")
    parser.add_argument("--rounds", type=int, default=30, help="timed pictures of each model")
    parser.add_argument("--warm-up", type=int, default=3, help="pictures before them")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of timings")
    parser.add_argument("--panel-photos", type=int, default=4)
    parser.add_argument("--doc", metavar="PAGE", help="write a section of this page as well")
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="config keys and values; comes last"
    )
    args = parser.parse_args(argv)
    if min(args.curve_images, args.rounds) < 1 or min(args.images, args.curve_points) < 0:
        parser.error("--curve-images and --rounds must be 1 or more, counts not negative")
    if any("=" not in given for given in args.weights):
        parser.error("--weights takes MODEL=FILE, where MODEL is a model's name or config file")
    return args


def write_page(found: dict, args: argparse.Namespace, command: str) -> None:
    """results.md, and the section of the page."""
    output = Path(args.output)
    title = f"{found['settings']['dataset']}, {found['settings']['budget']}"
    shown = {stem: text for stem, text in PICTURES.items() if (output / f"{stem}.png").is_file()}
    images = {text: f"{stem}.png" for stem, text in shown.items()}
    lines = page_section(found, title=title, command=command, images=images)
    (output / "results.md").write_text("\n".join([HEADER, *lines, ""]), encoding="utf-8")
    if not args.doc:
        return
    name = output.resolve().name
    images = {}
    for stem, text in shown.items():
        target = picture_path(args.doc, f"{name}_{stem}")
        shutil.copyfile(output / f"{stem}.png", target)
        images[text] = f"images/{target.name}"
    lines = page_section(found, title=title, command=command, images=images)
    write_section(args.doc, name, lines, header=HEADER)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    setup_logger(name="ldmseg_d2")
    setup_logger()
    budget = Budget.parse(args.budget)
    contenders = read_contenders(
        args.configs,
        opts=args.opts,
        model_opts={first: rest for first, *rest in args.model_opts},
        weights=dict(given.split("=", 1) for given in args.weights),
        dataset=args.dataset,
    )
    settings = Settings(
        output=Path(args.output),
        budget=budget,
        seeds=tuple(args.seeds),
        **{key: getattr(args, key) for key in (
            "images", "curve_points", "curve_images", "rounds", "warm_up", "precision",
            "panel_photos",
        )},
    )  # fmt: skip
    found = Session(contenders, settings).run()
    command = command_line(argv, Path(__file__).name)
    write_results(settings.output / "results.json", {"command": command, **found})
    caption = f"{found['settings']['dataset']}, {found['environment']['device']}"
    plot_latency(found["models"], settings.output / "pq_latency.png", caption=caption)
    if any(training["curve"] for model in found["models"] for training in model["trainings"]):
        caption += f", {settings.curve_images} pictures"
        path = settings.output / "pq_training_time.png"
        plot_training(found["models"], path, caption=caption)
    write_page(found, args, command)
    logger.info("The results are in %s", settings.output / "results.md")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, KeyError) as error:
        # str() of a KeyError quotes its message.
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        sys.exit(f"benchmark: error: {text}")
