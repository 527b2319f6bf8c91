"""What a model costs at inference: operations, seconds, memory.

``python -m ldmseg_d2.experiments.costs CONFIG [KEY VALUE ...]`` writes the peak memory of an
inference, in bytes: a process of its own, because a process' largest memory never falls.
"""

import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.modeling import build_model
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ldmseg_d2.engine import load_config

from .records import REPOSITORY

logger = logging.getLogger(__name__)


@torch.no_grad()
def picture_flops(model: nn.Module, inputs: dict[str, Any]) -> float:
    """Operations (2 x MAC) of one picture, with all that the model does, all its steps counted.

    Operators that torch's counter does not know, such as the ROI operators of detectors and
    deformable sampling, count as none.
    """
    # The counter knows the mathematics of attention, and not every fused kernel of it.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model([inputs])
    return float(counter.get_total_flops())


def clock_of(device: str) -> Callable[[], float]:
    """Reads the wall time in seconds, after what a GPU still computes."""

    def now() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()

    return now


def interleave(
    calls: Mapping[str, Callable[[int], Any]],
    *,
    rounds: int,
    warm_up: int,
    clock: Callable[[], float],
) -> dict[str, list[float]]:
    """Time several callables in turn, A B C A B C, so that a drifting machine is fair to all.

    `calls` get the number of the round, to choose their picture by; `warm_up` rounds come before
    those that are timed. Gives each round's time by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-warm_up, rounds):
        for name, call in calls.items():
            start = clock()
            call(number % rounds)
            if number >= 0:
                seconds[name].append(clock() - start)
    return seconds


def summarize(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """By name: median and 90th percentile in milliseconds, and the median relative to the first."""
    found = {
        name: {
            "median_ms": float(1000 * np.median(times)),
            "p90_ms": float(1000 * np.quantile(times, 0.9)),
        }
        for name, times in seconds.items()
    }
    first = next(iter(found.values()))["median_ms"]
    return {k: {**times, "relative": times["median_ms"] / first} for k, times in found.items()}


def peak_memory(config_file: str, opts: Sequence[Any]) -> float | None:
    """Peak bytes of one picture's inference in a process of its own, its libraries included.

    On a GPU those of its tensors. None, with a warning, where that fails.
    """
    command = [sys.executable, "-m", "ldmseg_d2.experiments.costs", config_file, *map(str, opts)]
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    if result.returncode:
        logger.warning("measuring memory failed: %s", (result.stderr.splitlines() or ["?"])[-1])
        return None
    return float(result.stdout.splitlines()[-1])


def measure_memory(config_file: str, opts: Sequence[Any]) -> float:
    """As :func:`peak_memory`, in this, fresh, process: a grey picture through random weights."""
    cfg = load_config(config_file, opts, freeze=False)
    cfg.MODEL.WEIGHTS = ""
    size = cfg.INPUT.LDMSEG.IMAGE_SIZE
    image = torch.full((3, size, size), 127, dtype=torch.uint8)
    model = build_model(cfg).eval()
    with torch.no_grad():
        model([{"image": image, "height": size, "width": size, "image_id": 0}])
    if cfg.MODEL.DEVICE.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated())
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(largest * (1 if sys.platform == "darwin" else 1024))


if __name__ == "__main__":
    logging.getLogger("ldmseg_d2").setLevel(logging.ERROR)
    sys.stdout.write(f"{measure_memory(sys.argv[1], sys.argv[2:])}\n")
