#!/usr/bin/env python
"""What a config takes: parameters, operations and memory.

python tools/analyze_model.py --config-file configs/scenes/ldmseg_scenes64.yaml [KEY VALUE ...]
python tools/analyze_model.py --write docs/TRAINING.md [--config-file FILE ...]

With --write and config files, other configs' lines of the page stay as they are.

Operations count a multiplication and an addition as two (2 x MAC), attention included. Memory is
measured by running a training step and an inference in a process of its own, where this machine has
room for them; elsewhere it is computed from the parameters alone.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import torch
from detectron2.config import CfgNode

from ldmseg_d2.engine import load_config
from ldmseg_d2.engine.analysis import analyze
from ldmseg_d2.engine.memory import measure_here

REPOSITORY = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- written by tools/analyze_model.py -->", "<!-- end -->"
GB = 1e9
CARDS = (8, 16, 24, 80)  # memory of usual GPUs, GB
# Memory of a process that has imported all, but built nothing, on a CPU.
LIBRARIES = 0.7 * GB
# A measurement is made only where it takes at most this share of the free memory,
MEMORY_SHARE = 0.4
# and, on a CPU, at most this many operations.
MAX_CPU_FLOPS = 2e12


def measure(config_file: str, opts: list[str], what: str, number: int) -> float | None:
    """:func:`measure_here` in a process of its own; None, with a warning, where that fails."""
    command = [sys.executable, __file__, "--config-file", config_file]
    command += ["--measure", what, "--batch", str(number), *opts]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        logging.warning("measuring failed: %s", (result.stderr.splitlines() or ["?"])[-1])
        return None
    return json.loads(result.stdout.splitlines()[-1])["peak_bytes"]


def free_bytes(device: str) -> float:
    """Memory that is free for a measurement."""
    if device.startswith("cuda"):
        return float(torch.cuda.mem_get_info()[0])
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return float(line.split()[1]) * 1024
    return 0.0


def measure_all(config_file: str, opts: list[str], cfg: CfgNode, found: dict) -> dict:
    """(what, batch) to peak bytes, for a batch of 1 and the config's own, as far as there is room.

    The memory of the larger batch is taken to be at most that of a single picture times it.
    """
    peaks: dict[tuple[str, int], float] = {}
    cpu, own = not cfg.MODEL.DEVICE.startswith("cuda"), cfg.SOLVER.IMS_PER_BATCH
    base, flops = LIBRARIES * cpu, found["flops"]
    weights = 4 * sum(total for total, _ in found["parameters"].values())
    few_steps = 3 * flops.get("step", flops["inference"])
    for what, need, work in (
        ("train", found["least_bytes"], 2 * flops["training"]),
        ("inference", weights, few_steps),
    ):
        for number in (1,) if what == "inference" or own == 1 else (1, own):
            room = need < MEMORY_SHARE * free_bytes(cfg.MODEL.DEVICE)
            if not room or (cpu and work * number > MAX_CPU_FLOPS):
                break
            peak = measure(config_file, opts, what, number)
            if peak is None:
                break
            peaks[what, number] = peak
            need = base + (peak - base) * own
    return peaks


def counted(found: dict) -> float:
    """Bytes of a training with one picture: weights and their like, and activations in float32."""
    return found["least_bytes"] + found["activation_bytes"]


def fits(found: dict, peaks: dict) -> str:
    """Which of CARDS a training fits on, at the largest batch that was measured, or at 1."""
    trained = {number: peak for (what, number), peak in peaks.items() if what == "train"}
    # Without a measurement: the sum of what was counted, and a tenth for what was not.
    trained = trained or {1: 1.1 * counted(found)}
    batch = max(trained)
    cards = [card for card in CARDS if card * GB >= trained[batch]]
    return f"{cards[0]} GB and more, batch {batch}" if cards else f"none, batch {batch}"


def row(name: str, found: dict, peaks: dict) -> str:
    """One line of the table."""
    total, trained = (sum(c[i] for c in found["parameters"].values()) / 1e6 for i in (0, 1))
    least = f"about {counted(found) / GB:.1f} (batch 1, counted)"
    flops = {key: f"{value / 1e9:,.1f}" for key, value in found["flops"].items()}
    train = [f"{p / GB:.1f} (batch {n})" for (what, n), p in peaks.items() if what == "train"]
    infer = [f"{p / GB:.1f}" for (what, _), p in peaks.items() if what == "inference"]
    cells = [name, f"{total:.1f} / {trained:.1f}", flops.get("step", "-")]
    cells += [str(found["forwards"] or "-"), flops["inference"]]
    cells += [flops["training"], ", ".join(train) or least]
    return f"| {' | '.join([*cells, infer[0] if infer else '-', fits(found, peaks)])} |"


HEADER = """\
| config | parameters / trained, M | GFLOPs a step | UNet passes a picture | GFLOPs a picture \
| GFLOPs a picture, training | memory of training, GB | of inference, GB | training fits |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def report(config_files: list[str], opts: list[str], *, run: bool) -> list[str]:
    """The table's lines, for all configs."""
    lines = [HEADER]
    for config_file in config_files:
        cfg = load_config(config_file, opts)
        found = analyze(cfg)
        peaks = measure_all(config_file, opts, cfg, found) if run else {}
        name = os.path.relpath(config_file, REPOSITORY)
        lines.append(row(f"`{name}`", found, peaks))
        for part, (total, trained) in found["parameters"].items():
            logging.info("%s %s: %d parameters, %d trained", name, part, total, trained)
        logging.info("%s", lines[-1])
    return lines


def write(page: Path, lines: list[str], *, keep: bool = False) -> None:
    """Replace what is between the markers of a page.

    Args:
        page: with the markers.
        lines: of the table.
        keep: leave the page's lines of configs that are not in ``lines``, but still exist.
    """
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{page} needs the lines {BEGIN!r} and {END!r}, once each")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    if keep:
        table = text.split(BEGIN)[1].split(END)[0].splitlines()
        rows = {_config_of(line): line for line in [*table, *lines[1:]] if _config_of(line)}
        rows = {name: line for name, line in rows.items() if (REPOSITORY / name).is_file()}
        lines = [lines[0], *(rows[name] for name in sorted(rows))]
    page.write_text("".join([before, BEGIN, "\n\n", "\n".join(lines), "\n\n", END, after]))


def _config_of(line: str) -> str:
    """The config that a line of the table is about; "" for any other line."""
    return line.split("`")[1] if line.startswith("| `") else ""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", nargs="+", help="default: the shipped ones")
    parser.add_argument("--write", metavar="PAGE", help="put the table between PAGE's markers")
    parser.add_argument("--no-run", action="store_true", help="do not measure memory")
    parser.add_argument("--measure", choices=("train", "inference"), help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config keys and values")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("ldmseg_d2").setLevel(logging.ERROR)
    shipped = sorted(str(p) for p in REPOSITORY.glob("configs/*/*.yaml") if "Base" not in p.name)
    if args.measure:
        cfg = load_config(args.config_file[0], args.opts)
        print(json.dumps({"peak_bytes": measure_here(cfg, args.measure, args.batch)}))
        return
    lines = report(args.config_file or shipped, args.opts, run=not args.no_run)
    if args.write:
        write(Path(args.write), lines, keep=bool(args.config_file))
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
