"""Starting one process a GPU, or several processes on a machine without any."""

import gc
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

DEFAULT_TIMEOUT = timedelta(minutes=30)
AUTO_URL = "auto"


class LaunchError(ValueError):
    """The machine cannot start the processes that were asked for."""


def launch(
    main: Callable,
    num_processes: int,
    *,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = AUTO_URL,
    device: str = "cuda",
    args: tuple[Any, ...] = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> None:
    """Run ``main(*args)`` in `num_processes` processes on this machine.

    In the manner of ``detectron2.engine.launch``; in addition it trains on CPUs (backend gloo) on
    machines that have GPUs too, divides the cores among the processes, and finds a free port.

    Args:
        main: a function at the top level of a module; it runs in this process where it is alone.
        num_processes: on this machine; with CUDA, one a GPU.
        num_machines: all of them run this function.
        machine_rank: 0..num_machines - 1.
        dist_url: address of machine 0, as ``tcp://host:port``; "auto" on a single machine.
        device: what ``MODEL.DEVICE`` says: anything that starts with "cuda" uses NCCL.
        args: the arguments of `main`; they must be picklable.
        timeout: of one collective operation.

    Raises:
        LaunchError: more processes than GPUs, or no address for several machines.
    """
    world_size = num_processes * num_machines
    if world_size <= 1:
        main(*args)
        return
    use_cuda = device.startswith("cuda") and torch.cuda.is_available()
    if use_cuda and num_processes > torch.cuda.device_count():
        raise LaunchError(
            f"--num-gpus {num_processes}, but this machine has {torch.cuda.device_count()} GPUs."
        )
    if dist_url == AUTO_URL:
        if num_machines > 1:
            raise LaunchError("--num-machines > 1 needs --dist-url tcp://HOST:PORT of machine 0.")
        dist_url = f"tcp://127.0.0.1:{_find_free_port()}"
    group = _Group(
        num_processes=num_processes,
        world_size=world_size,
        first_rank=machine_rank * num_processes,
        dist_url=dist_url,
        use_cuda=use_cuda,
        timeout=timeout,
        loader_start_method=multiprocessing.get_start_method(),
    )
    try:
        mp.start_processes(
            _worker, args=(group, main, args), nprocs=num_processes, start_method="spawn"
        )
    except mp.ProcessExitedException as error:
        # The process has said what was wrong and chosen its exit status.
        sys.exit(error.exit_code)


def wrap_in_ddp(model: nn.Module, device: str) -> nn.Module:
    """Wrap a model in DistributedDataParallel where there are several processes.

    Args:
        model: on its device; an attribute ``find_unused_parameters`` that is true makes DDP look
            for parameters without gradient in every iteration, which costs time.
        device: as ``MODEL.DEVICE``.

    Returns:
        The model itself in a single process.
    """
    if comm.get_world_size() == 1:
        return model
    return DistributedDataParallel(
        model,
        device_ids=[torch.cuda.current_device()] if device.startswith("cuda") else None,
        broadcast_buffers=False,
        find_unused_parameters=getattr(model, "find_unused_parameters", False),
        gradient_as_bucket_view=True,
    )


@dataclass(frozen=True)
class _Group:
    """What each process needs to know to join the others."""

    num_processes: int  # on this machine
    world_size: int
    first_rank: int  # on this machine
    dist_url: str
    use_cuda: bool
    timeout: timedelta
    loader_start_method: str


def _worker(local_rank: int, group: _Group, main: Callable, args: tuple[Any, ...]) -> None:
    """Join the process group, run `main`, leave the group."""
    # A spawned process would spawn its data loaders' workers too: each would then import all of
    # this again, which takes seconds, at every evaluation.
    multiprocessing.set_start_method(group.loader_start_method, force=True)
    # torch has the system send SIGINT when the launching process dies. Where that one was started
    # in the background, SIGINT is ignored, and the training would go on without it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if group.use_cuda:
        torch.cuda.set_device(local_rank)
    else:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // group.num_processes))
    dist.init_process_group(
        backend="nccl" if group.use_cuda else "gloo",
        init_method=group.dist_url,
        world_size=group.world_size,
        rank=group.first_rank + local_rank,
        timeout=group.timeout,
    )
    comm.create_local_process_group(group.num_processes)
    comm.synchronize()
    main(*args)
    # Only after success: when one process fails, the others may never come here.
    comm.synchronize()
    # Models in cycles of references hold the group's threads. Freed as late as the interpreter's
    # end they abort the process: "terminate called without an active exception".
    gc.collect()
    dist.destroy_process_group()


def _find_free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
