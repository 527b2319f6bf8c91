"""One training step: forward, backward, clipping, optimizer; in any precision."""

import contextlib
import math
import random
import time
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import nn
from torch.nn.parallel import DistributedDataParallel

PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def amp_dtype(cfg: CfgNode) -> torch.dtype | None:
    """The dtype of ``SOLVER.AMP``; None where it is off. Raises ValueError for float16 on a CPU."""
    amp, device = cfg.SOLVER.AMP, cfg.MODEL.DEVICE
    if not amp.ENABLED:
        return None
    if amp.PRECISION == "float16" and not device.startswith("cuda"):
        raise ValueError(
            f"SOLVER.AMP.PRECISION 'float16' needs a GPU, but MODEL.DEVICE is {device!r}. "
            "Use 'bfloat16' or SOLVER.AMP.ENABLED False."
        )
    return PRECISIONS[amp.PRECISION]


def seed_step(seed: int, iteration: int, rank: int) -> None:
    """Seed torch (all devices), numpy and Python for one iteration of one process.

    So the random numbers of an iteration do not depend on what ran before it, and a resumed
    training draws the same ones without saving any generator's state. Below 0 nothing is seeded.
    """
    if seed < 0:
        return
    low, high = np.random.SeedSequence([seed, iteration, rank]).generate_state(2)
    torch.manual_seed((int(high) << 32 | int(low)) & 0x7FFF_FFFF_FFFF_FFFF)
    np.random.seed(int(low))
    random.seed(int(low))


class TrainStep(AMPTrainer):
    """Detectron2's training step, with mixed precision, clipping by the full norm, and seeds.

    The checks for numbers that are not finite come before the optimizer, on all processes alike,
    so that the weights of the last good iteration stay as they are.

    Attributes:
        batch: the inputs of the latest step, for hooks that draw them.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        device: str,
        dtype: torch.dtype | None = None,
        max_grad_norm: float = math.inf,
        seed: int = -1,
        accumulation_steps: int = 1,
    ) -> None:
        """
        Args:
            model: maps a list of dicts to a dict of scalar losses; DistributedDataParallel or not.
            dtype: of mixed precision, None for none; float16 scales the loss.
            max_grad_norm: larger norms of all gradients together are scaled down to it.
            seed: see :func:`seed_step`.
            accumulation_steps: into how many micro-batches, one after the other, this process'
                batch is divided; the gradients are those of the mean of their losses.
        """
        self.device_type = torch.device(device).type
        # Does nothing in the other precisions.
        scaler = torch.amp.GradScaler(self.device_type, enabled=dtype == torch.float16)
        # The loader comes with the first iteration's number: see Trainer.
        super().__init__(model, None, optimizer, grad_scaler=scaler)
        self.dtype = dtype
        self.max_grad_norm = max_grad_norm
        self.seed = seed
        self.accumulation_steps = accumulation_steps
        self.batch: list[dict[str, Any]] = []

    def run_step(self) -> None:
        """Do one iteration; raises FloatingPointError before the weights would be spoilt."""
        assert self.model.training, "The model was left in eval mode during training."
        start = time.perf_counter()
        self.batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        # After the data: a loader may draw from the same generators.
        seed_step(self.seed, self.iter, comm.get_rank())

        self.optimizer.zero_grad(set_to_none=True)
        losses = self._accumulate_gradients()
        self.after_backward()
        grad_norm = self._clip_gradients()
        self._check_and_log(losses, grad_norm, data_time)
        # With float16 it skips the step where the scaled gradients overflowed.
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _accumulate_gradients(self) -> dict[str, torch.Tensor]:
        """Forward and backward over all micro-batches; returns the means of their losses."""
        steps = self.accumulation_steps
        size, rest = divmod(len(self.batch), steps)
        if rest:
            raise ValueError(
                f"A batch of {len(self.batch)} samples cannot be divided into "
                f"SOLVER.ACCUMULATION_STEPS {steps} equal parts."
            )
        means: dict[str, torch.Tensor] = {}
        for step in range(steps):
            # Processes need to exchange their gradients once, when all of them are there.
            waits = step < steps - 1 and isinstance(self.model, DistributedDataParallel)
            with self.model.no_sync() if waits else contextlib.nullcontext():
                with torch.autocast(self.device_type, self.dtype, enabled=self.dtype is not None):
                    losses = self.model(self.batch[step * size : (step + 1) * size])
                self.grad_scaler.scale(sum(losses.values()) / steps).backward()
            for name, loss in losses.items():
                means[name] = means.get(name, 0.0) + loss.detach() / steps
        return means

    def _clip_gradients(self) -> torch.Tensor:
        """Scale the gradients down to ``max_grad_norm``; returns their norm before, a scalar."""
        self.grad_scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        return nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)

    def _check_and_log(
        self, losses: dict[str, torch.Tensor], grad_norm: torch.Tensor, data_time: float
    ) -> None:
        """Average the losses over all processes, raise if one is not finite, log them."""
        names = list(losses)
        values = torch.stack([losses[name].detach().float() for name in names])
        if comm.get_world_size() > 1:
            dist.all_reduce(values)
            values /= comm.get_world_size()
        # One copy from the device for all numbers: each copy waits for the device.
        *numbers, norm = torch.cat([values, grad_norm.detach().float()[None]]).tolist()
        averages, total = dict(zip(names, numbers)), sum(numbers)
        # With float16 overflow is usual now and then: GradScaler skips the step and adapts.
        overflow = not math.isfinite(norm) and not self.grad_scaler.is_enabled()
        if overflow or not math.isfinite(total):
            raise FloatingPointError(
                f"Training diverged at iteration {self.iter}: losses {averages}, norm of the "
                f"gradients {norm}. The weights of the iteration before are unchanged."
            )
        storage = get_event_storage()
        storage.put_scalar("total_loss", total)
        if len(averages) > 1:
            storage.put_scalars(**averages)
        storage.put_scalar("data_time", data_time)
        if math.isfinite(norm):
            storage.put_scalar("grad_norm", norm)
        if self.grad_scaler.is_enabled():
            storage.put_scalar("amp_scale", self.grad_scaler.get_scale(), smoothing_hint=False)
