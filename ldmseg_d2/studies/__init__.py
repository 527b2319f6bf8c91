"""Studies: several trainings whose results are compared, and the page that says what came out."""

from .report import describe_conditions, mean_and_spread, write_section
from .runs import Run, collect, do_run

__all__ = [
    "Run",
    "collect",
    "describe_conditions",
    "do_run",
    "mean_and_spread",
    "write_section",
]
