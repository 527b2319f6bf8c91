#!/usr/bin/env python
"""What a config takes: parameters, operations and memory.

python tools/analyze_model.py --config-file configs/scenes/ldmseg_scenes64.yaml [KEY VALUE ...]
python tools/analyze_model.py --write docs/TRAINING.md

Operations count a multiplication and an addition as two (2 x MAC), attention included. Memory is
measured by a training step and an inference in a process of its own; where that would take long, it
is what weights, gradients, optimizer and averaged weights need at least.
"""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from detectron2.config import CfgNode

from ldmseg_d2.engine import load_config
from ldmseg_d2.engine.analysis import analyze, measure_memory

REPOSITORY = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- written by tools/analyze_model.py -->", "<!-- end -->"
GB = 1e9
# A step of more operations is not run on a CPU.
MAX_CPU_FLOPS = 2e12
HEADER = """\
| config | parameters / trained, M | GFLOPs a pass | passes a picture | GFLOPs a picture \
| the same in training | memory of training, GB | of inference, GB |
| --- | --- | --- | --- | --- | --- | --- | --- |"""


def measure(*args) -> float:
    """:func:`measure_memory` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure_memory, *args).result()


def row(config_file: str, cfg: CfgNode, *, run: bool) -> str:
    """One line of the table."""
    found, batch = analyze(cfg), cfg.SOLVER.IMS_PER_BATCH
    flops = found["flops"]
    train, infer = f"at least {found['least_bytes'] / GB:.1f}", "-"
    if run and (cfg.MODEL.DEVICE != "cpu" or 2 * flops["training"] * batch < MAX_CPU_FLOPS):
        peaks = {n: measure(cfg, "train", n) for n in {1: 0, batch: 0}}
        train = ", ".join(f"{peak / GB:.1f} (batch {n})" for n, peak in peaks.items())
        infer = f"{measure(cfg, 'inference', 1) / GB:.1f}"
    total, trained = (sum(c[i] for c in found["parameters"].values()) / 1e6 for i in (0, 1))
    number = {key: f"{value / 1e9:,.1f}" for key, value in flops.items()}
    cells = [f"`{os.path.relpath(config_file, REPOSITORY)}`", f"{total:.1f} / {trained:.1f}"]
    cells += [number.get("step", "-"), str(found["forwards"] or "-"), number["inference"]]
    return f"| {' | '.join([*cells, number['training'], train, infer])} |"


def write(page: Path, lines: list[str]) -> None:
    """Replace what is between the markers of a page."""
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{page} needs the lines {BEGIN!r} and {END!r}, once each")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    text = "".join([before, BEGIN, "\n\n", "\n".join(lines), "\n\n", END, after])
    page.write_text(text, encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", nargs="+", help="default: the shipped ones")
    parser.add_argument("--write", metavar="PAGE", help="put the table between PAGE's markers")
    parser.add_argument("--no-run", action="store_true", help="do not measure memory")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config keys and values")
    args = parser.parse_args(argv)
    shipped = sorted(
        str(path)
        for path in REPOSITORY.glob("configs/*/*.yaml")
        if "Base" not in path.name and path.parent.name != "studies"
    )
    lines = [HEADER]
    for path in args.config_file or shipped:
        lines.append(row(path, load_config(path, args.opts), run=not args.no_run))
        print(lines[-1], file=sys.stderr)
    if args.write:
        write(Path(args.write), lines)
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
