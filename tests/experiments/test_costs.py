"""Clocks, and operations by hand."""

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
    seconds = costs.interleave(calls, rounds=3, warm_up=2, clock=lambda: now[0])
    assert [name for name, _ in log] == ["A", "B", "C"] * 5
    assert [number for _, number in log[6:]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert all(len(times) == 3 and times == sorted(times) for times in seconds.values())
    assert all(b > a for a, b in zip(seconds["A"], seconds["B"], strict=True))
    times = [0.001 * k for k in range(1, 12)]
    found = costs.summarize({"A": times, "B": [2 * t for t in times]})
    assert found["A"] == pytest.approx({"median_ms": 6.0, "p90_ms": 10.0, "relative": 1.0})
    assert found["B"]["relative"] == pytest.approx(2.0)


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
