#!/usr/bin/env python
"""Convert a published LDMSeg checkpoint to safetensors that MODEL.WEIGHTS loads.

    tools/convert_official_weights.py IN OUT.safetensors [--config-file FILE] [KEY VALUE ...]

IN is an autoencoder file (it has `vae`) or a diffusion file (`vae_semseg`, `unet`, `vae_image`).
Every tensor must have the name and the shape that the model of the config has. Then, for a
diffusion file:

    tools/train_net.py --config-file configs/coco/ldmseg_official.yaml --eval-only \\
        MODEL.WEIGHTS OUT.safetensors

A converted autoencoder file is for MODEL.LDMSEG.AUTOENCODER.WEIGHTS, or for MODEL.WEIGHTS with
configs/coco/autoencoder_coco.yaml.
"""

import argparse
import sys

from ldmseg_d2.engine.official_weights import DEFAULT_CONFIG, convert_official_weights


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, convert, say what was mapped."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", help="published checkpoint (.pt, .pth)")
    parser.add_argument("output", help="file to write (.safetensors)")
    parser.add_argument("--config-file", default=DEFAULT_CONFIG, help="(default: %(default)s)")
    parser.add_argument(
        "--skip-unknown",
        action="store_true",
        help="leave out tensors that the model has no place for, instead of an error",
    )
    parser.add_argument("opts", nargs="*", help="config options, KEY VALUE ...")
    args = parser.parse_intermixed_args(argv)
    try:
        lines = convert_official_weights(
            args.input,
            args.output,
            config_file=args.config_file,
            opts=args.opts,
            skip_unknown=args.skip_unknown,
        )
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"convert_official_weights.py: error: {error}")
    print("\n".join([*lines, f"written: {args.output}"]))


if __name__ == "__main__":
    main()
