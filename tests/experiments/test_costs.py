"""Clocks, operations by hand, and memory of a process of its own."""

import pytest
import torch
from torch import nn

from ldmseg_d2.experiments import costs


def test_models_are_timed_in_turn():
    now, log = [0.0], []

    def call(name, seconds):
        def run(number):
            log.append((name, number))
            # The machine becomes slower and slower.
            now[0] += seconds * (1 + now[0])

        return run

    calls = {"A": call("A", 1.0), "B": call("B", 2.0), "C": call("C", 1.0)}
    found = costs.interleave(calls, rounds=3, clock=lambda: now[0])
    assert [name for name, _ in log] == ["A", "B", "C"] * (costs.WARM_UP + 3)
    assert [number for _, number in log[-9:]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    # A round multiplies 1 + now by 2 * 3 * 2; A takes as long as 1 + now was, in the middle round.
    start = 12.0 ** (costs.WARM_UP + 1)
    assert found == pytest.approx({"A": 1e3 * start, "B": 4e3 * start, "C": 6e3 * start})


def test_operations_of_convolution_and_attention():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, inputs):
            x = self.conv(inputs[0]["image"][None]).flatten(2).transpose(1, 2)
            for _ in range(2):
                x = nn.functional.scaled_dot_product_attention(x, x, x)
            return x

    pixels = 16 * 16
    expected = 2 * pixels * 8 * 3 * 9 + 2 * 2 * (2 * pixels * pixels * 8)
    assert costs.picture_flops(Model(), {"image": torch.zeros(3, 16, 16)}) == expected
