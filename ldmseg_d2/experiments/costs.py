"""What a model costs at inference: operations, milliseconds, memory."""

import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import nn

from ldmseg_d2.engine.analysis import count_flops, measure_memory

WARM_UP = 3


@torch.no_grad()
def picture_flops(model: nn.Module, inputs: dict[str, Any]) -> float:
    """Operations (2 x MAC) of one picture, with all that the model does, all its steps counted.

    Operators that torch's counter does not know, such as the ROI operators of detectors and
    deformable sampling, count as none.
    """
    return count_flops(model, [inputs])[0]


def peak_memory(cfg: CfgNode) -> float:
    """Peak bytes of one grey picture's inference with random weights; on a GPU of its tensors.

    In a process of its own, its libraries included: a process' largest memory never falls.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(measure_memory, cfg, "inference", 1).result()


def clock_of(device: str) -> Callable[[], float]:
    """Reads the wall time in seconds, after what a GPU still computes."""

    def now() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()

    return now


def interleave(
    calls: Mapping[str, Callable[[int], Any]], *, rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Time several callables in turn, A B C A B C, so that a drifting machine is fair to all.

    `calls` get the number of the round, to choose their picture by. Gives each one's median in
    milliseconds; a few rounds before those that count warm up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-WARM_UP, rounds):
        for name, call in calls.items():
            start = clock()
            call(number % rounds)
            if number >= 0:
                seconds[name].append(clock() - start)
    return {name: float(1000 * np.median(times)) for name, times in seconds.items()}
