"""A budget is a time or a number of iterations."""

import pytest

from ldmseg_d2.experiments import Budget


@pytest.mark.parametrize(
    "text, seconds, iterations",
    [("90s", 90, 0), ("20m", 1200, 0), ("1.5h", 5400, 0), ("iters:7", None, 7)],
)
def test_budgets(text, seconds, iterations):
    assert Budget.parse(text) == Budget(seconds, iterations)


@pytest.mark.parametrize("text", ["20", "m", "0s", "iters:0", "iters 5", "-3m", "20 m"])
def test_budgets_that_are_none(text):
    with pytest.raises(ValueError, match="such as 90s, 20m or 1.5h.*iters:2000"):
        Budget.parse(text)
