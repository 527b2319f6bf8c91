#!/usr/bin/env python
"""Start weights for a model of several tasks from a trained one of fewer.

    tools/extend_tasks.py --from-config configs/scenes/ldmseg_scenes64.yaml \\
        --from-weights output/ldmseg_scenes64/model_final.pth \\
        --config-file configs/scenes/ldmseg_multitask_scenes64.yaml \\
        --output output/start.safetensors [KEY VALUE ...]

The result is for MODEL.WEIGHTS of the model of --config-file, which then starts with the old tasks
as they were. KEY VALUE pairs change that config.
"""

import argparse
import sys
from pathlib import Path

import torch
from detectron2.utils.logger import setup_logger
from safetensors.torch import save_file

import ldmseg_d2  # noqa: F401  registers models and data sets
from ldmseg_d2.engine import load_config
from ldmseg_d2.engine.task_weights import extend_weights


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, extend, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from-config", required=True, metavar="FILE", help="of the old model")
    parser.add_argument("--from-weights", required=True, metavar="FILE", help="of the old model")
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of the new model")
    parser.add_argument("--output", required=True, metavar="FILE", help="a .safetensors file")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config keys and values")
    args = parser.parse_args(argv)
    setup_logger(name="ldmseg_d2")
    output = Path(args.output)
    try:
        if output.suffix != ".safetensors":
            raise ValueError(f"--output must end in .safetensors, got {args.output!r}")
        source, target = load_config(args.from_config), load_config(args.config_file, args.opts)
        # What is new in the target starts at random.
        torch.manual_seed(max(target.SEED, 0))
        weights = extend_weights(source, target, args.from_weights)
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"extend_tasks.py: error: {error}")
    output.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in weights.items()}, output)


if __name__ == "__main__":
    main()
