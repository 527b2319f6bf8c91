#!/usr/bin/env python
"""Train or evaluate a model, with Detectron2's command line.

    tools/train_net.py --config-file FILE [--num-gpus N] [--resume] [KEY VALUE ...]
    tools/train_net.py --config-file FILE --eval-only MODEL.WEIGHTS FILE [KEY VALUE ...]

Without a GPU it runs on the CPU; --num-gpus N then starts N processes.
"""

import argparse
import os
import sys
import traceback

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

import ldmseg_d2  # noqa: F401  registers models and data sets
from ldmseg_d2.engine import LaunchError, LDMSegCheckpointer, Trainer, launch, load_config
from ldmseg_d2.engine.config_reader import check_datasets, resolve_config_file

USER_ERRORS = (FileNotFoundError, ValueError, KeyError)
# Set to see where a user error comes from.
TRACEBACK_VARIABLE = "LDMSEG_TRACEBACK"


def setup(args: argparse.Namespace) -> CfgNode:
    """Read the config, start the logs, seed, and note it all in OUTPUT_DIR.

    Raises:
        FileNotFoundError, ConfigError: the config is not right.
    """
    setup_logger(distributed_rank=comm.get_rank(), name="ldmseg_d2")
    cfg = load_config(args.config_file, args.opts)
    check_datasets(cfg)
    # Detectron2 reads the file once more, and knows only the current folder.
    args.config_file = resolve_config_file(args.config_file) if args.config_file else ""
    default_setup(cfg, args)
    log_file = os.path.join(cfg.OUTPUT_DIR, "log.txt")
    setup_logger(log_file, comm.get_rank(), name="ldmseg_d2", configure_stdout=False)
    return cfg


def main(args: argparse.Namespace) -> None:
    """Do what the command line says, in one of its processes."""
    try:
        cfg = setup(args)
        # A test set that is not there must not show after hours of training.
        for name in cfg.DATASETS.TEST:
            Trainer.build_test_loader(cfg, name)
        if args.eval_only:
            model = Trainer.build_model(cfg)
            checkpointer = LDMSegCheckpointer(
                model, cfg.OUTPUT_DIR, prefer_ema=cfg.MODEL.EMA.EVALUATE
            )
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
    # str() of a KeyError quotes its message.
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    if comm.is_main_process():
        hint = f"(For the traceback, set {TRACEBACK_VARIABLE}=1.)"
        print(f"{os.path.basename(sys.argv[0])}: error: {message}\n{hint}", file=sys.stderr)
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
