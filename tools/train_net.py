#!/usr/bin/env python
"""Train or evaluate a model, with Detectron2's command line.

    tools/train_net.py --config-file FILE [--num-gpus N] [--resume] [KEY VALUE ...]
    tools/train_net.py --config-file FILE --eval-only MODEL.WEIGHTS FILE [KEY VALUE ...]

Without a GPU it runs on the CPU; --num-gpus N then starts N processes.
"""

import argparse
import os
import platform
import sys
import traceback
from importlib.metadata import PackageNotFoundError, version

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

import ldmseg_d2  # registers models and data sets
from ldmseg_d2.engine import LaunchError, LDMSegCheckpointer, Trainer, launch, load_config
from ldmseg_d2.engine.config_reader import changed_keys
from ldmseg_d2.engine.reporting import error_text

USER_ERRORS = (FileNotFoundError, ValueError, KeyError)
# Set to see where a user error comes from.
TRACEBACK_VARIABLE = "LDMSEG_TRACEBACK"


def setup(args: argparse.Namespace) -> CfgNode:
    """Read the config, start the logs, seed, and note it all in OUTPUT_DIR.

    Raises:
        FileNotFoundError, ConfigError: the config is not right.
    """
    cfg = load_config(args.config_file, args.opts)
    rank = comm.get_rank()
    # No colour codes in files.
    color = sys.stdout.isatty()
    for name in ("detectron2", "fvcore", "ldmseg_d2"):
        logger = setup_logger(cfg.OUTPUT_DIR or None, rank, name=name, color=color)
    logger.info("%s", describe_machine(cfg))
    logger.info("Command line: %s", " ".join(sys.argv))
    lines = [f"  {key}: {value!r}" for key, value in changed_keys(cfg).items()]
    logger.info("Config, where it differs from the defaults:\n%s", "\n".join(lines))
    if comm.is_main_process() and cfg.OUTPUT_DIR:
        path = os.path.join(cfg.OUTPUT_DIR, "config.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(cfg.dump())
        logger.info("All of it is in %s", path)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    if not args.eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    return cfg


def describe_machine(cfg: CfgNode) -> str:
    """One line: versions, device, processes."""
    versions = [f"ldmseg_d2 {ldmseg_d2.__version__}, Python {platform.python_version()}"]
    for name in ("torch", "detectron2", "sal-detectron2", "diffusers", "timm"):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:  # Detectron2 has one of two names
            continue
    device = "CPU" if torch.cuda.is_available() else "CPU (no CUDA on this machine)"
    if cfg.MODEL.DEVICE.startswith("cuda"):
        device = torch.cuda.get_device_name()
    return f"{', '.join(versions)}; {comm.get_world_size()} x {device}"


def main(args: argparse.Namespace) -> None:
    """Do what the command line says, in one of its processes."""
    try:
        cfg = setup(args)
        # A test set that is not there must not show after hours of training.
        for name in cfg.DATASETS.TEST:
            Trainer.build_test_loader(cfg, name)
        if args.eval_only:
            model = Trainer.build_model(cfg)
            checkpointer = LDMSegCheckpointer(model, cfg.OUTPUT_DIR)
            checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        else:
            trainer = Trainer(cfg)
            trainer.resume_or_load(resume=args.resume)
    except USER_ERRORS as error:
        fail(error)
    if args.eval_only:
        Trainer.test(cfg, model)
    else:
        trainer.train()


def fail(error: Exception) -> None:
    """End the process with status 2 and one message, without a traceback."""
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exc()
    if comm.is_main_process():
        hint = f"(For the traceback, set {TRACEBACK_VARIABLE}=1.)"
        print(
            f"{os.path.basename(sys.argv[0])}: error: {error_text(error)}\n{hint}", file=sys.stderr
        )
    sys.exit(2)


def run(argv: list[str] | None = None) -> None:
    """Parse the command line and start the processes."""
    parser = default_argument_parser()
    # Detectron2's default is one fixed port a user: two trainings at once would collide.
    parser.set_defaults(dist_url="auto")
    args = parser.parse_args(argv)
    try:
        device = load_config(args.config_file, args.opts).MODEL.DEVICE
    except USER_ERRORS as error:
        fail(error)
    try:
        launch(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            device=device,
            args=(args,),
        )
    except LaunchError as error:
        # Not the errors of training itself, which keep their tracebacks.
        fail(error)


if __name__ == "__main__":
    run()
