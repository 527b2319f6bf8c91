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
        module: the averaged model, in eval mode, in float32, without gradients.
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
        self.module = copy.deepcopy(model, shared).eval()
        for parameter in self._averaged(self.module.named_parameters()).values():
            parameter.requires_grad_(False)
            if parameter.is_floating_point():
                parameter.data = parameter.data.float()

    def current_decay(self) -> float:
        """The decay of the next update: 0 at first, then (1 + n) / (10 + n) up to ``decay``."""
        n = self.num_updates
        return 0.0 if n == 0 else min(self.decay, (1 + n) / (10 + n))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the weights of `model` (not its DDP wrapper), after a step."""
        current = dict(model.named_parameters())
        averaged = self._averaged(self.module.named_parameters())
        averaged = {key: p for key, p in averaged.items() if current[key].requires_grad}
        ours = list(averaged.values())
        # The same tensors where the model is in float32: nothing is copied.
        theirs = [current[key].detach().to(p.dtype) for key, p in averaged.items()]
        if ours:
            torch._foreach_lerp_(ours, theirs, 1.0 - self.current_decay())
        self._copy(self.module.named_buffers(), dict(model.named_buffers()))
        self.num_updates += 1

    @torch.no_grad()
    def reset(self, model: nn.Module) -> None:
        """Start again from the weights of `model`, for instance after loading some into it."""
        self._copy(self.module.named_parameters(), dict(model.named_parameters()))
        self._copy(self.module.named_buffers(), dict(model.named_buffers()))
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

    def _averaged(self, named: Any) -> dict[str, Tensor]:
        """Those of (name, tensor) that are not shared."""
        return {key: value for key, value in named if not key.startswith(self.frozen_prefixes)}

    def _copy(self, named: Any, source: dict[str, Tensor]) -> None:
        for key, tensor in self._averaged(named).items():
            tensor.copy_(source[key])
