"""The ZeRO optimizer: every process keeps the state of its share of the parameters only."""

import inspect
import logging

import torch
from detectron2.utils import comm
from torch.distributed.optim import ZeroRedundancyOptimizer

logger = logging.getLogger(__name__)


def shard_optimizer(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Divide an optimizer's state among the processes (ZeRO stage 1, arXiv 1910.02054).

    AdamW's two averages are twice the size of the weights; with W processes each keeps a W-th of
    them, updates its share of the parameters and sends them to the others. Weights and gradients
    stay whole, so that clipping and logging see what they always see.

    Args:
        optimizer: not yet stepped; over the same parameters, on their device, in every process.

    Returns:
        A ZeroRedundancyOptimizer with the same groups; the given one in a single process.
    """
    if comm.get_world_size() == 1:
        logger.info("SOLVER.ZERO: a single process has nothing to share; plain AdamW is used.")
        return optimizer
    # The groups carry all settings; the class wants them as keyword arguments nevertheless.
    accepted = inspect.signature(torch.optim.AdamW.__init__).parameters
    defaults = {key: value for key, value in optimizer.defaults.items() if key in accepted}
    groups = [
        {key: value for key, value in group.items() if key == "params" or key in accepted}
        for group in optimizer.param_groups
    ]
    sharded = ZeroRedundancyOptimizer(groups, optimizer_class=type(optimizer), **defaults)
    logger.info(
        "SOLVER.ZERO: the optimizer's state is divided among %d processes.", comm.get_world_size()
    )
    return sharded


def gather_state(optimizer: torch.optim.Optimizer) -> None:
    """Bring a sharded optimizer's state together in the main process, before it is saved.

    All processes must call this; with any other optimizer it does nothing. Afterwards the main
    process' ``state_dict()`` is that of an optimizer that is not sharded: a training may be resumed
    with another number of processes, or without ZeRO.
    """
    if isinstance(optimizer, ZeroRedundancyOptimizer):
        optimizer.consolidate_state_dict(to=0)
