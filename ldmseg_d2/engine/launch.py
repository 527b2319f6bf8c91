"""Detectron2's launch, on CPUs of machines that have GPUs too, and with an end without errors."""

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm


class LaunchError(ValueError):
    """The machine cannot start the processes that were asked for."""


def launch(
    main: Callable,
    num_processes: int,
    *,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    device: str = "cuda",
    args: tuple[Any, ...] = (),
) -> None:
    """Run ``main(*args)`` in `num_processes` processes on this machine, see Detectron2's launch.

    Args:
        main: a function at the top level of a module; it runs in this process where it is alone.
        device: what ``MODEL.DEVICE`` says: with "cuda" every process has a GPU, and NCCL; else
            they share the cores, and use gloo.

    Raises:
        LaunchError: more processes than GPUs.
    """
    if num_processes * num_machines <= 1:
        main(*args)
        return
    on_cuda = device.startswith("cuda") and torch.cuda.is_available()
    if on_cuda and num_processes > torch.cuda.device_count():
        raise LaunchError(
            f"--num-gpus {num_processes}, but this machine has {torch.cuda.device_count()} GPUs."
        )
    threads = 0 if on_cuda else max(1, (os.cpu_count() or 1) // num_processes)
    # Detectron2 takes NCCL wherever it sees a GPU.
    hidden = {} if on_cuda else {"CUDA_VISIBLE_DEVICES": ""}
    try:
        with mock.patch.dict(os.environ, hidden):
            detectron2_launch(
                _run,
                num_processes,
                num_machines=num_machines,
                machine_rank=machine_rank,
                dist_url=dist_url,
                args=(main, args, threads, multiprocessing.get_start_method()),
            )
    except mp.ProcessExitedException as error:
        # The process has said what was wrong and chosen its exit status.
        sys.exit(error.exit_code or 1)


def _run(main: Callable, args: tuple[Any, ...], threads: int, loader_start_method: str) -> None:
    """`main` in one of the processes."""
    # A spawned process would spawn its data loaders' workers too: each would then import all of
    # this again, which takes seconds, at every evaluation.
    multiprocessing.set_start_method(loader_start_method, force=True)
    # torch has the system send SIGINT when the launching process dies. Where that one was started
    # in the background, SIGINT is ignored, and the training would go on without it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if threads:
        torch.set_num_threads(threads)
    main(*args)
    # Only after success: when one process fails, the others may never come here.
    comm.synchronize()
    # Models in cycles of references hold the group's threads. Freed as late as the interpreter's
    # end they abort the process: "terminate called without an active exception".
    gc.collect()
    dist.destroy_process_group()
