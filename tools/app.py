#!/usr/bin/env python
"""A page for annotators: load a photo, steer its segments, let the model complete the rest.

    tools/app.py [--config-file FILE] [--port N] [--opts MODEL.WEIGHTS FILE KEY VALUE ...]

Without --config-file it is the shipped scenes model. How to use the page: docs/ANNOTATING.md.
"""

import argparse
import importlib.util
import logging
import os
import sys
import tempfile

logger = logging.getLogger("ldmseg_d2.app")


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    text = "the model's YAML (default: shipped)"
    parser.add_argument("--config-file", default="", metavar="FILE", help=text)
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    text = (
        "address to listen at (default: 127.0.0.1, this machine alone); 0.0.0.0 lets everyone on "
        "the network in, without a password"
    )
    parser.add_argument("--host", default="127.0.0.1", help=text)
    text = "largest file that is taken (default: 20)"
    parser.add_argument("--max-upload-mb", type=float, default=20, help=text)
    text = "photos with a longer side, in pixels, are reduced to it (default: 2048)"
    parser.add_argument("--max-side", type=int, default=2048, help=text)
    text = "config keys and values; comes last"
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help=text)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if args.max_upload_mb <= 0 or args.max_side < 64:
        parser.error("--max-upload-mb must be above 0, and --max-side at least 64")
    if importlib.util.find_spec("gradio") is None:
        parser.error("the page needs Gradio: bash tools/install.sh --extras=app")
    # Imported here: a mistake on the command line should not take seconds to be told.
    from detectron2.utils.logger import setup_logger

    from ldmseg_d2.app.predictor import load_predictor
    from ldmseg_d2.app.uploads import Limits

    setup_logger(name="ldmseg_d2")
    if args.host not in ("127.0.0.1", "localhost", "::1"):
        logger.warning("--host %s: whoever reaches it can use the page", args.host)
    limits = Limits(max_bytes=round(args.max_upload_mb * 2**20), max_side=args.max_side)
    # Uploads pass through files: in a folder that nobody else may read, gone with the page.
    with tempfile.TemporaryDirectory(prefix="ldmseg_app_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        from ldmseg_d2.app.page import serve

        try:
            predictor = load_predictor(args.config_file, args.opts)
            logger.info("Loaded %s", predictor.title)
            serve(predictor, host=args.host, port=args.port, limits=limits)
        except KeyError as error:  # whose str() quotes its message
            logger.error("%s", error.args[0])
            return 1
        except (ValueError, OSError) as error:
            logger.error("%s", error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
