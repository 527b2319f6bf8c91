"""AdamW with parameter groups, and the learning-rate schedules."""

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from detectron2.solver import build_lr_scheduler as build_detectron2_lr_scheduler
from detectron2.solver.build import get_default_optimizer_params
from detectron2.utils import comm
from fvcore.common.param_scheduler import ParamScheduler
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer

FLAT_LINEAR = "WarmupFlatLinearLR"
LR_SCHEDULERS = ("WarmupCosineLR", FLAT_LINEAR, "WarmupMultiStepLR", "WarmupStepWithFixedGammaLR")
IMAGE_ENCODER = "image_encoder."


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build AdamW over the trainable parameters.

    Args:
        cfg: reads ``SOLVER``.
        model: on the device where it will be trained, before DistributedDataParallel wraps it.

    Returns:
        AdamW whose groups differ in ``lr`` and ``weight_decay``. With ``SOLVER.ZERO`` every process
        keeps the state of its share of the parameters (ZeRO stage 1, arXiv 1910.02054).

    Raises:
        ValueError: nothing is trainable, or the image encoder cannot have a layer-wise decay.
    """
    solver = cfg.SOLVER
    groups = parameter_groups(cfg, model)
    if not groups:
        raise ValueError(
            f"{type(model).__name__} has no trainable parameter: all are frozen. "
            "Look at the FREEZE keys of the config."
        )
    # The fused kernel needs no temporary copy of the weights. With float16 it would do the
    # unscaling itself, after the clipping that needs unscaled gradients.
    float16 = solver.AMP.ENABLED and solver.AMP.PRECISION == "float16"
    fused = not float16 and all(p.is_cuda for group in groups for p in group["params"])
    settings = {
        "lr": solver.BASE_LR,
        "betas": tuple(solver.BETAS),
        "weight_decay": solver.WEIGHT_DECAY,
        "fused": True if fused else None,
    }
    if solver.ZERO and comm.get_world_size() > 1:
        return ZeroRedundancyOptimizer(groups, optimizer_class=torch.optim.AdamW, **settings)
    return torch.optim.AdamW(groups, **settings)


def parameter_groups(cfg: CfgNode, model: nn.Module) -> list[dict]:
    """Detectron2's parameter groups, with ``SOLVER``'s keys of the image encoder.

    Parameters whose name starts with ``image_encoder.`` have the learning rate times
    ``IMAGE_ENCODER_MULTIPLIER`` and :func:`layer_multiplier`.
    """
    solver, bias = cfg.SOLVER, cfg.SOLVER.WEIGHT_DECAY_BIAS

    def lr_factor(name: str) -> float:
        if not name.startswith(IMAGE_ENCODER):
            return 1.0
        inside, decay = name.removeprefix(IMAGE_ENCODER), solver.IMAGE_ENCODER_LAYER_DECAY
        layer = layer_multiplier(model.image_encoder, inside, decay)
        return solver.IMAGE_ENCODER_MULTIPLIER * layer

    return get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=bias,
        lr_factor_func=lr_factor,
        # What Detectron2 takes for weights, but is a norm's scale or a bias: timm's LayerScale and
        # torch's attention.
        overrides={
            "gamma": {"weight_decay": solver.WEIGHT_DECAY_NORM},
            "in_proj_bias": {} if bias is None else {"weight_decay": bias},
        },
    )


def layer_multiplier(encoder: nn.Module, parameter_name: str, decay: float) -> float:
    """Layer-wise learning-rate decay of fine-tuning (BEiT, arXiv 2106.08254).

    It is decay ^ (num_layers - 1 - layer), with the encoder's ``num_layers`` and ``layer_of``.
    """
    if decay == 1.0:
        return 1.0
    num_layers = getattr(encoder, "num_layers", 1)
    if num_layers == 1 or not 0.0 < decay < 1.0:
        raise ValueError(
            f"SOLVER.IMAGE_ENCODER_LAYER_DECAY is {decay}: it must be in (0, 1], and 1.0 for a "
            f"{type(encoder).__name__} that does not tell its layers (num_layers, layer_of)."
        )
    return decay ** (num_layers - 1 - encoder.layer_of(parameter_name))


def gather_state(optimizer: torch.optim.Optimizer) -> None:
    """Bring divided state together in the main process before it is saved: all must call this.

    Then its ``state_dict()`` is plain AdamW's: a training may be resumed with another number of
    processes, or without ``SOLVER.ZERO``.
    """
    if isinstance(optimizer, ZeroRedundancyOptimizer):
        optimizer.consolidate_state_dict(to=0)


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRMultiplier:
    """Build the learning-rate schedule, warm-up included; it is stepped after every iteration."""
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME != FLAT_LINEAR:
        return build_detectron2_lr_scheduler(cfg, optimizer)
    schedule = WarmupParamScheduler(
        FlatLinearSchedule(solver.FLAT_FRACTION),
        solver.WARMUP_FACTOR,
        min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
        solver.WARMUP_METHOD,
        solver.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, multiplier=schedule, max_iter=solver.MAX_ITER)


class FlatLinearSchedule(ParamScheduler):
    """One up to `flat_fraction` of the training, then a straight line to zero at its end."""

    def __init__(self, flat_fraction: float) -> None:
        if not 0.0 <= flat_fraction < 1.0:
            raise ValueError(f"SOLVER.FLAT_FRACTION must be in [0, 1), got {flat_fraction}.")
        self.descent = 1.0 - flat_fraction

    def __call__(self, where: float) -> float:
        return 1.0 - max(0.0, (where - (1.0 - self.descent)) / self.descent)
