"""Exponential moving average of a model's weights."""

import copy
from typing import Any

import torch
from torch import nn

from ldmseg_d2.modeling.weights import load_into, without_prefixes


class ModelEMA:
    """The moving average of a model's weights, as a model of its own that is in eval mode.

    In the manner of ``torch.optim.swa_utils.AveragedModel``, with three differences: frozen
    networks are shared with the model and not copied; buffers (running statistics) follow the
    model; and the decay warms up, so that short trainings have an average worth evaluating.

    Attributes:
        module: the averaged model, in eval mode, in float32, without gradients.
        num_updates: how often :meth:`update` has run.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        """
        Args:
            model: its attribute ``frozen_prefixes``, if it has one, names the networks to share.
            decay: in [0, 1): the weight of the past in each update, once the warm-up is over.

        Raises:
            ValueError: `decay` is out of range.
        """
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"MODEL.EMA.DECAY must be at least 0 and below 1, got {decay}.")
        self.decay = decay
        self.num_updates = 0
        self.frozen_prefixes = tuple(getattr(model, "frozen_prefixes", ()))
        # What deepcopy finds in its memo, it takes instead of copying.
        shared = {}
        for name, module in model.named_modules():
            if self.frozen_prefixes and f"{name}.".startswith(self.frozen_prefixes):
                shared[id(module)] = module
        self.module = copy.deepcopy(model, shared).eval()
        for name, parameter in self.module.named_parameters():
            if not self._is_frozen(name):
                parameter.requires_grad_(False)
                if parameter.is_floating_point():
                    parameter.data = parameter.data.float()

    def current_decay(self) -> float:
        """The decay of the next update: 0 at first, then (1 + n) / (10 + n) up to ``decay``."""
        n = self.num_updates
        return 0.0 if n == 0 else min(self.decay, (1 + n) / (10 + n))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the weights of `model`, after an optimizer step.

        Args:
            model: the one that this was made from (not its DistributedDataParallel wrapper).
        """
        averaged = {k: p for k, p in self.module.named_parameters() if not self._is_frozen(k)}
        current = dict(model.named_parameters())
        weight = 1.0 - self.current_decay()
        trained = [key for key in averaged if current[key].requires_grad]
        ours = [averaged[key] for key in trained]
        # The same tensors where the model is in float32: nothing is copied.
        theirs = [current[key].detach().to(averaged[key].dtype) for key in trained]
        if weight == 1.0:
            torch._foreach_copy_(ours, theirs)
        elif ours:
            torch._foreach_lerp_(ours, theirs, weight)
        self._copy_buffers(model)
        self.num_updates += 1

    @torch.no_grad()
    def reset(self, model: nn.Module) -> None:
        """Start again from the weights of `model`, for instance after loading some into it."""
        current = dict(model.named_parameters())
        for key, parameter in self.module.named_parameters():
            if not self._is_frozen(key):
                parameter.copy_(current[key])
        self._copy_buffers(model)
        self.num_updates = 0

    def state_dict(self) -> dict[str, Any]:
        """``model``: the averaged state dict without frozen networks; ``num_updates``; ``decay``.

        All of it loads with ``torch.load(weights_only=True)``.
        """
        weights = without_prefixes(self.module.state_dict(), self.frozen_prefixes)
        return {"model": weights, "num_updates": self.num_updates, "decay": self.decay}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a :meth:`state_dict`; ``decay`` stays what the config says now.

        Raises:
            ValueError: the weights do not fit the model.
        """
        load_into(
            self.module,
            state["model"],
            source="the checkpoint's averaged weights",
            ignore_missing=self.frozen_prefixes,
        )
        self.num_updates = int(state["num_updates"])

    def _is_frozen(self, key: str) -> bool:
        return key.startswith(self.frozen_prefixes)

    def _copy_buffers(self, model: nn.Module) -> None:
        current = dict(model.named_buffers())
        for key, buffer in self.module.named_buffers():
            if not self._is_frozen(key):
                buffer.copy_(current[key])
