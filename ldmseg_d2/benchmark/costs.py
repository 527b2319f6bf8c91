"""What a model costs at inference: operations, seconds, memory."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ldmseg_d2.engine.analysis import count_flops
from ldmseg_d2.studies.runs import REPOSITORY

logger = logging.getLogger(__name__)

# Throughput: a larger batch must gain more than this; no batch is larger than the limit.
LEAST_GAIN, LARGEST_BATCH = 1.03, 64
# Seconds that a batch size is timed for, at least, and calls.
TIMED_SECONDS, TIMED_CALLS = 0.5, 3

Clock = Callable[[], tuple[float, float]]


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """All parameters, and those that are trained."""
    every = list(model.parameters())
    return sum(p.numel() for p in every), sum(p.numel() for p in every if p.requires_grad)


@torch.no_grad()
def picture_flops(model: nn.Module, inputs: dict[str, Any]) -> float:
    """Operations (2 x MAC) of one picture, with all that the model does, all its steps counted.

    Operators that torch's counter does not know, such as the ROI operators of detectors and
    deformable sampling, count as none.
    """
    return count_flops(lambda: model([inputs]))[0]


def clocks(device: str) -> Clock:
    """Reads (wall time, CPU time of the process) in seconds, after what a GPU still computes."""

    def now() -> tuple[float, float]:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()

    return now


def interleave(
    calls: Mapping[str, Callable[[int], Any]], *, rounds: int, warm_up: int, clock: Clock
) -> dict[str, list[tuple[float, ...]]]:
    """Time several callables in turn, A B C A B C, so that a drifting machine is fair to all.

    Args:
        calls: by name; each gets the number of the round, to choose its picture by.
        rounds: that are timed.
        warm_up: rounds before them.
        clock: gives the time, or several times.

    Returns:
        By name, each round's differences of the times.
    """
    seconds: dict[str, list[tuple[float, ...]]] = {name: [] for name in calls}
    for number in range(-warm_up, rounds):
        for name, call in calls.items():
            start = clock()
            call(number % rounds)
            end = clock()
            if number >= 0:
                seconds[name].append(tuple(b - a for a, b in zip(start, end, strict=True)))
    return seconds


def summarize(seconds: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Median and 90th percentile in milliseconds of wall time, median of CPU time."""
    wall, cpu = 1000 * np.asarray(seconds).T
    return {
        "median_ms": float(np.median(wall)),
        "p90_ms": float(np.quantile(wall, 0.9)),
        "cpu_median_ms": float(np.median(cpu)),
        "rounds": len(seconds),
    }


def best_throughput(
    call: Callable[[int], Any], *, clock: Clock, largest: int = LARGEST_BATCH
) -> dict[int, float]:
    """Pictures a second (wall time) at batches 1, 2, 4, ... until it no longer rises.

    Args:
        call: runs a batch of a size.
        clock: see :func:`clocks`.
        largest: batch that is tried.
    """
    found: dict[int, float] = {}
    size = 1
    while size <= largest:
        try:
            call(size)
            best, start, calls = float("inf"), clock()[0], 0
            while calls < TIMED_CALLS or clock()[0] - start < TIMED_SECONDS:
                before = clock()[0]
                call(size)
                best, calls = min(best, clock()[0] - before), calls + 1
        except torch.cuda.OutOfMemoryError:
            logger.info("Batch %d does not fit into the GPU's memory", size)
            break
        # The best call: what disturbs a call only makes it slower.
        found[size] = size / max(best, 1e-9)
        if size > 1 and found[size] < LEAST_GAIN * found[size // 2]:
            break
        size *= 2
    return found


def peak_memory(config_file: str, opts: Sequence[Any]) -> dict[str, float] | None:
    """Peak memory of one picture's inference, measured in a process of its own.

    Returns:
        ``peak_bytes`` and ``libraries_bytes``, what the process took before there was a model
        (0 on a GPU, where only tensors count); None, with a warning, where that fails.
    """
    command = [sys.executable, "-m", "ldmseg_d2.benchmark.memory", config_file, *map(str, opts)]
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    if result.returncode:
        logger.warning("measuring memory failed: %s", (result.stderr.splitlines() or ["?"])[-1])
        return None
    return json.loads(result.stdout.splitlines()[-1])
