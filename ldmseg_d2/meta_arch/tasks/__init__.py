"""What the diffusion model generates: a registry of tasks, and the two ways to combine them."""

from .base import TASK_REGISTRY, Target, Task, build_tasks, task_classes
from .classes import Classes, dataset_classes
from .depth import DepthTask
from .instance import InstanceTask
from .layout import TaskLayout
from .semantic import SemanticTask

__all__ = [
    "TASK_REGISTRY",
    "Classes",
    "DepthTask",
    "InstanceTask",
    "SemanticTask",
    "Target",
    "Task",
    "TaskLayout",
    "build_tasks",
    "dataset_classes",
    "task_classes",
]
