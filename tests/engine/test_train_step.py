"""The step in float16 runs on the CPU here: torch's loss scaling works there as well."""

import random

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from ldmseg_d2.engine.train_step import TrainStep, seed_step


class Scaled(nn.Module):
    """One weight; the loss is its square times `factor`."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0]))
        self.factor = factor

    def forward(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        return {"loss": self.factor * self.weight.square().sum()}


def make_step(model: nn.Module, **kwargs) -> TrainStep:
    step = TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.5), device="cpu", **kwargs)
    step.data_loader = [[{}]] * 10
    return step


def run(step: TrainStep) -> dict:
    with EventStorage() as storage:
        step.run_step()
    return {name: value for name, (value, _) in storage.latest().items()}


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_clips_the_true_gradient_in_every_precision(dtype):
    """With float16, the gradient that is clipped is the unscaled one."""
    model = Scaled()
    logged = run(make_step(model, dtype=dtype))
    assert logged["total_loss"] == logged["grad_norm"] == 4.0
    assert model.weight.item() == 2.0 - 0.5 * 4.0
    model = Scaled()
    logged = run(make_step(model, dtype=dtype, max_grad_norm=1.0))
    assert logged["grad_norm"] == pytest.approx(4.0)
    assert model.weight.item() == pytest.approx(2.0 - 0.5 * 1.0, rel=1e-5)


def test_float16_skips_the_step_that_overflows():
    model = Scaled(factor=1e35)
    step = make_step(model, dtype=torch.float16)
    scale = step.grad_scaler.get_scale()
    logged = run(step)
    assert "grad_norm" not in logged
    assert model.weight.item() == 2.0
    assert step.grad_scaler.get_scale() == scale / 2

    other = make_step(model, dtype=torch.float16)
    other.load_state_dict(step.state_dict())
    assert other.grad_scaler.get_scale() == scale / 2
    make_step(model).load_state_dict(step.state_dict())


def test_gradient_that_is_not_finite_stops_training():
    model = Scaled()
    model.weight.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(FloatingPointError, match="iteration 0: .* norm of the gradients inf"):
        run(make_step(model))
    assert model.weight.item() == 2.0


def draw() -> tuple:
    return torch.rand(1).item(), float(np.random.rand()), random.random()


def test_seeds_depend_on_seed_iteration_and_rank():
    draws = []
    for key in [(0, 5, 0), (0, 5, 1), (0, 6, 0), (1, 5, 0), (0, 5, 0)]:
        seed_step(*key)
        draws.append(draw())
    assert draws[0] == draws[-1]
    for column in zip(*draws[:-1]):
        assert len(set(column)) == 4
