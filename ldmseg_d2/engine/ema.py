"""Exponential moving average of a model's weights."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ldmseg_d2.modeling.weights import load_into, without_prefixes


class ModelEMA:
    """The moving average of a model's weights, as a model of its own that is in eval mode.

    Unlike ``torch.optim.swa_utils.AveragedModel`` it shares frozen networks with the model instead
    of copying them, and its decay warms up, so that short trainings have an average worth
    evaluating. Buffers (running statistics) follow the model.

    Attributes:
        module: the averaged model, in eval mode, without gradients.
        num_updates: how often :meth:`update` has run.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        """
        Args:
            model: its attribute ``frozen_prefixes``, if it has one, names the networks to share.
            decay: in [0, 1): the weight of the past in each update, once the warm-up is over.
        """
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"MODEL.EMA.DECAY must be at least 0 and below 1, got {decay}.")
        self.decay = decay
        self.num_updates = 0
        self.frozen_prefixes = tuple(getattr(model, "frozen_prefixes", ()))
        # What deepcopy finds in its memo, it takes instead of copying.
        shared = {
            id(module): module
            for name, module in model.named_modules()
            if f"{name}.".startswith(self.frozen_prefixes)
        }
        self.module = copy.deepcopy(model, shared).eval().requires_grad_(False)

    def current_decay(self) -> float:
        """The decay of the next update: 0 at first, then (1 + n) / (10 + n) up to ``decay``."""
        n = self.num_updates
        return 0.0 if n == 0 else min(self.decay, (1 + n) / (10 + n))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the weights of `model` (not its DDP wrapper), after a step."""
        ours, theirs = (self._own(m.named_parameters()) for m in (self.module, model))
        torch._foreach_lerp_(ours, theirs, 1.0 - self.current_decay())
        buffers = (self._own(m.named_buffers()) for m in (self.module, model))
        for ours, theirs in zip(*buffers):
            ours.copy_(theirs)
        self.num_updates += 1

    def reset(self, model: nn.Module) -> None:
        """Start again from the weights of `model`, for instance after loading some into it."""
        self.num_updates = 0
        self.update(model)  # with a decay of 0: a copy
        self.num_updates = 0

    def state_dict(self) -> dict[str, Any]:
        """``model``: the averages without frozen networks; ``num_updates``; ``decay``."""
        weights = without_prefixes(self.module.state_dict(), self.frozen_prefixes)
        return {"model": weights, "num_updates": self.num_updates, "decay": self.decay}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a :meth:`state_dict`; ``decay`` stays what the config says now."""
        source = "the checkpoint's averaged weights"
        load_into(self.module, state["model"], source=source, ignore_missing=self.frozen_prefixes)
        self.num_updates = int(state["num_updates"])

    def _own(self, named: Any) -> list[Tensor]:
        """The tensors of (name, tensor) that are not shared."""
        return [tensor for name, tensor in named if not name.startswith(self.frozen_prefixes)]
