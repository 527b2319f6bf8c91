"""The trainer: Detectron2's, with exact resume, EMA and training on any device."""

import logging
import math
import os
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import (
    DefaultTrainer,
    HookBase,
    TrainerBase,
    create_ddp_model,
    default_writers,
    hooks,
)
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from detectron2.utils.logger import setup_logger
from torch import nn

from ldmseg_d2.data.loaders import build_test_loader, build_train_loader
from ldmseg_d2.evaluation import build_evaluator

from .checkpointer import LDMSegCheckpointer
from .ema import ModelEMA
from .hooks import EMAHook, PeriodicCheckpointer, SyncBuffersHook, VisualizationHook
from .optimizer import build_lr_scheduler, build_optimizer, gather_state
from .reporting import describe_parameters, results_table, trim_metrics, write_results
from .train_step import TrainStep, amp_dtype

logger = logging.getLogger(__name__)

CHECKPOINTS_TO_KEEP = 3


class Trainer(DefaultTrainer):
    """Trains any Detectron2 model, on one or several processes, with or without GPUs.

    A training that was stopped and resumed ends, on a CPU bit for bit, with the weights that it
    would have had: the random numbers and the data of an iteration depend on its number only.
    """

    build_optimizer = staticmethod(build_optimizer)
    build_lr_scheduler = staticmethod(build_lr_scheduler)
    build_train_loader = staticmethod(build_train_loader)
    build_test_loader = staticmethod(build_test_loader)

    def __init__(self, cfg: CfgNode) -> None:
        # Not DefaultTrainer's: it would read the data set before the first iteration is known.
        TrainerBase.__init__(self)
        for name in ("detectron2", "ldmseg_d2"):
            if not logging.getLogger(name).isEnabledFor(logging.INFO):
                setup_logger(name=name)
        self.cfg = cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        dtype, clipping = amp_dtype(cfg), cfg.SOLVER.CLIP_GRADIENTS
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        self.unwrapped_model = model
        self._trainer = TrainStep(
            _in_ddp(model, cfg.MODEL.DEVICE),
            optimizer,
            device=cfg.MODEL.DEVICE,
            dtype=dtype,
            max_grad_norm=clipping.CLIP_VALUE if clipping.ENABLED else math.inf,
            seed=cfg.SEED,
            accumulation_steps=cfg.SOLVER.ACCUMULATION_STEPS,
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        # After DistributedDataParallel, which gives all processes the weights of the first.
        self.ema = ModelEMA(model, decay=cfg.MODEL.EMA.DECAY) if cfg.MODEL.EMA.ENABLED else None
        self.checkpointer = LDMSegCheckpointer(
            model,
            cfg.OUTPUT_DIR,
            before_save=lambda: gather_state(optimizer),
            trainer=weakref.proxy(self),
            **({"ema": self.ema} if self.ema else {}),
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self._last_eval_results: OrderedDict | None = None
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from OUTPUT_DIR's last checkpoint, or start from ``MODEL.WEIGHTS``."""
        has_checkpoint = self.checkpointer.has_checkpoint()
        if has_checkpoint and not resume:
            logger.warning(
                "%s already holds a training, which this one will overwrite. "
                "Use --resume to continue it, or another OUTPUT_DIR.",
                self.cfg.OUTPUT_DIR,
            )
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resume and has_checkpoint:
            self.start_iter = self.iter + 1
        if self.ema and (not self.start_iter or not self.ema.num_updates):
            self.ema.reset(self.unwrapped_model)
        self._trainer.reset_data_loader(
            lambda: self.build_train_loader(self.cfg, start_iter=self.start_iter)
        )

    def train(self) -> OrderedDict | None:
        """Train from ``start_iter`` to ``MAX_ITER``; returns the last evaluation, see :meth:`test`.

        :meth:`resume_or_load` comes first. FloatingPointError: the loss diverged.
        """
        if self.start_iter >= self.max_iter:
            logger.info("All %d iterations are done: only evaluating.", self.max_iter)
            return self.test(self.cfg, self.evaluation_model)
        if comm.is_main_process():
            # Only now the first iteration is known, which a resumed run's writers need.
            self.register_hooks([hooks.PeriodicWriter(self.build_writers(), period=20)])
        TrainerBase.train(self, self.start_iter, self.max_iter)
        return self._last_eval_results

    @property
    def evaluation_model(self) -> nn.Module:
        """The model to evaluate: the averaged one where it exists."""
        return self.ema.module if self.ema and self.ema.num_updates else self.unwrapped_model

    @property
    def batch(self) -> list[dict[str, Any]]:
        """The training inputs of the latest iteration."""
        return self._trainer.batch

    def build_hooks(self) -> list[HookBase]:
        """The hooks in the order in which they run after a step; writers come last, in `train`.

        The averaged weights and the schedule come before the checkpoint that saves them, the
        checkpoint before the evaluation that may fail.
        """
        cfg, is_main = self.cfg, comm.is_main_process()
        checkpoints = PeriodicCheckpointer(
            self.checkpointer,
            cfg.SOLVER.CHECKPOINT_PERIOD,
            # The others only take part: see LDMSegCheckpointer.save.
            max_to_keep=CHECKPOINTS_TO_KEEP if is_main else None,
        )
        # The hook must not keep the trainer alive.
        trainer = weakref.proxy(self)
        return [
            hooks.IterationTimer(),
            *([SyncBuffersHook()] if comm.get_world_size() > 1 else []),
            *([EMAHook()] if self.ema else []),
            hooks.LRScheduler(),
            checkpoints,
            hooks.EvalHook(cfg.TEST.EVAL_PERIOD, lambda: trainer._evaluate()),
            *([VisualizationHook(cfg.VIS_PERIOD)] if is_main else []),
        ]

    def build_writers(self) -> list[EventWriter]:
        """Console, TensorBoard, and ``metrics.json``, without what came after the checkpoint."""
        trim_metrics(Path(self.cfg.OUTPUT_DIR, "metrics.json"), self.start_iter)
        return default_writers(self.cfg.OUTPUT_DIR, self.max_iter)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Detectron2's, which logs the size of the model's parts."""
        model = build_model(cfg)
        logger.info("Model: %s", describe_parameters(model))
        return model

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None
    ) -> DatasetEvaluator:
        """See :func:`ldmseg_d2.evaluation.build_evaluator`; into OUTPUT_DIR/inference/DATASET."""
        folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
        return build_evaluator(cfg, dataset_name, folder)

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators=None) -> OrderedDict:
        """Evaluate a model on ``DATASETS.TEST``, see Detectron2's.

        The main process gets task to metric to value; for several data sets, one such dict for
        each name. ``OUTPUT_DIR/inference/results.json`` always has the names.
        """
        if not cfg.DATASETS.TEST:
            logger.warning("DATASETS.TEST is empty: there is nothing to evaluate on.")
            return OrderedDict()
        results = super().test(cfg, model, evaluators)
        if comm.is_main_process() and cfg.OUTPUT_DIR:
            names = cfg.DATASETS.TEST
            by_name = results if len(names) > 1 else {names[0]: results}
            write_results(Path(cfg.OUTPUT_DIR, "inference", "results.json"), by_name)
            logger.info("Results:\n%s", results_table(by_name))
        return results

    def _evaluate(self) -> OrderedDict:
        self._last_eval_results = self.test(self.cfg, self.evaluation_model)
        return self._last_eval_results


def _in_ddp(model: nn.Module, device: str) -> nn.Module:
    """The model in DistributedDataParallel where there are several processes."""
    return create_ddp_model(
        model,
        device_ids=[torch.cuda.current_device()] if device.startswith("cuda") else None,
        broadcast_buffers=False,
        # Looking for them in every iteration costs time.
        find_unused_parameters=getattr(model, "find_unused_parameters", False),
        gradient_as_bucket_view=True,
    )
