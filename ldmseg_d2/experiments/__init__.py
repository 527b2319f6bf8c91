"""Benchmarks and studies: train or load models, measure quality and cost, write tables and a plot.

A benchmark compares models (``tools/benchmark.py``); a study changes one thing at a time in one
model (``tools/study.py``, a YAML file of ``configs/studies/``). Both are a list of contenders that
one runner trains, evaluates and times; what an interrupted one has done is not repeated.
"""

from .contenders import Contender, Stage, read_contenders
from .runner import Runner, Settings
from .study_file import Study, read_study
from .timed_training import Budget

__all__ = [
    "Budget",
    "Contender",
    "Runner",
    "Settings",
    "Stage",
    "Study",
    "read_contenders",
    "read_study",
]
