"""Training: the trainer, its optimizer, averaged weights, checkpoints, configs and processes."""

from .checkpointer import LDMSegCheckpointer
from .config_reader import ConfigError, load_config
from .ema import ModelEMA
from .launch import LaunchError, launch
from .optimizer import build_lr_scheduler, build_optimizer
from .trainer import Trainer

__all__ = [
    "ConfigError",
    "LDMSegCheckpointer",
    "LaunchError",
    "ModelEMA",
    "Trainer",
    "build_lr_scheduler",
    "build_optimizer",
    "launch",
    "load_config",
]
