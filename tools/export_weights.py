#!/usr/bin/env python
"""Turn a training checkpoint into a safetensors file to release.

    tools/export_weights.py output/model_final.pth weights.safetensors [--dtype bfloat16]

The averaged weights (EMA) are taken where the checkpoint has them. Frozen networks are in neither
file: the autoencoder of stage 2 is exported from its own checkpoint.
"""

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from ldmseg_d2.modeling.weights import read_checkpoint, select_weights

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def export_weights(
    checkpoint_path: str,
    output_path: str | Path,
    *,
    prefer_ema: bool = True,
    dtype: torch.dtype = torch.float32,
    config_name: str = "",
) -> dict[str, str]:
    """Write the weights of a checkpoint as safetensors, and return the metadata in the file.

    Args:
        checkpoint_path: what the trainer saved, or any file of weights.
        output_path: ends in ``.safetensors``; its folder is made if need be.
        prefer_ema: take the averaged weights where they exist.
        dtype: of the floating-point weights; whole numbers stay as they are.
        config_name: the config of the training, to be noted; empty: the checkpoint's folder.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it holds no weights, a weight is not finite in `dtype`, or the name is wrong.
    """
    output_path = Path(output_path)
    if output_path.suffix != ".safetensors":
        raise ValueError(f"The output must end in .safetensors, got {str(output_path)!r}.")
    checkpoint = read_checkpoint(checkpoint_path)
    state = select_weights(checkpoint, source=checkpoint_path, prefer_ema=prefer_ema)
    # Copies, since safetensors refuses tensors that share memory.
    weights = {
        key: value.to(dtype if value.is_floating_point() else value.dtype, copy=True).contiguous()
        for key, value in state.items()
    }
    for key, value in weights.items():
        if not value.isfinite().all():
            raise ValueError(f"{key} has values that are not finite as {dtype}.")
    is_averaged = "ema" in checkpoint and (prefer_ema or "model" not in checkpoint)
    metadata = {
        "format": "pt",
        "config": config_name or Path(checkpoint_path).resolve().parent.name,
        "source": Path(checkpoint_path).name,
        "iteration": str(checkpoint.get("iteration", "unknown")),
        "weights": "ema" if is_averaged else "model",
    }
    output_path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, output_path, metadata=metadata)
    return metadata


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, export, say what was written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="checkpoint of a training (.pth)")
    parser.add_argument("output", help="file to write (.safetensors)")
    parser.add_argument("--no-ema", action="store_true", help="the weights as they were trained")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="(default: %(default)s)")
    parser.add_argument("--config-name", default="", help="default: the checkpoint's folder")
    args = parser.parse_args(argv)
    try:
        metadata = export_weights(
            args.checkpoint,
            args.output,
            prefer_ema=not args.no_ema,
            dtype=DTYPES[args.dtype],
            config_name=args.config_name,
        )
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"export_weights.py: error: {error}")
    size = Path(args.output).stat().st_size / 2**20
    print(f"{args.output}: {size:.1f} MiB, {args.dtype}, {metadata}")


if __name__ == "__main__":
    main()
