"""A budget is a time or a number of iterations."""

import pytest

from ldmseg_d2.experiments import Budget


def test_budgets():
    assert [Budget.parse(text).seconds for text in ("90s", "20m", "1.5h")] == [90, 1200, 5400]
    assert Budget.parse("iters:7") == Budget(None, 7)


@pytest.mark.parametrize("text", ["20", "m", "0s", "iters:0", "iters 5", "-3m", "20 m"])
def test_budgets_that_are_none(text):
    with pytest.raises(ValueError, match="such as 90s, 20m or 1.5h.*iters:2000"):
        Budget.parse(text)
