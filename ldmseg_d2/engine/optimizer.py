"""AdamW with parameter groups, and the learning-rate schedules."""

import logging

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from detectron2.solver import build_lr_scheduler as build_detectron2_lr_scheduler
from detectron2.solver.build import maybe_add_gradient_clipping, reduce_param_groups
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)
from torch import nn

logger = logging.getLogger(__name__)

FLAT_LINEAR = "WarmupFlatLinearLR"
LR_SCHEDULERS = (
    "WarmupCosineLR",
    FLAT_LINEAR,
    "WarmupMultiStepLR",
    "WarmupStepWithFixedGammaLR",
)
# Handled by the training step, not by the optimizer: see `full_model_clip_norm`.
FULL_MODEL = "full_model"
CLIP_TYPES = (FULL_MODEL, "norm", "value")
IMAGE_ENCODER = "image_encoder."
NORM_LAYERS = (
    nn.modules.batchnorm._NormBase,  # batch and instance norm
    nn.GroupNorm,
    nn.LayerNorm,
)


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build AdamW over the trainable parameters.

    Args:
        cfg: reads ``SOLVER``.
        model: on the device where it will be trained, before DistributedDataParallel wraps it.

    Returns:
        AdamW whose groups differ in ``lr`` and ``weight_decay``; it clips in ``step`` where
        ``CLIP_GRADIENTS.CLIP_TYPE`` is one of Detectron2's per-parameter kinds.

    Raises:
        ValueError: nothing is trainable, or an optimizer or a kind of clipping is unknown.
    """
    solver = cfg.SOLVER
    if solver.OPTIMIZER != "ADAMW":
        raise ValueError(f"SOLVER.OPTIMIZER {solver.OPTIMIZER!r} is unknown: it must be 'ADAMW'.")
    clipping = solver.CLIP_GRADIENTS
    if clipping.ENABLED and clipping.CLIP_TYPE not in CLIP_TYPES:
        raise ValueError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE {clipping.CLIP_TYPE!r} is unknown: it must be one "
            f"of {', '.join(CLIP_TYPES)}."
        )
    groups = parameter_groups(
        model,
        lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        image_encoder_multiplier=solver.IMAGE_ENCODER_MULTIPLIER,
        image_encoder_layer_decay=solver.IMAGE_ENCODER_LAYER_DECAY,
    )
    if not groups:
        raise ValueError(
            f"{type(model).__name__} has no trainable parameter: all are frozen. "
            "Look at the FREEZE keys of the config."
        )
    parameters = [parameter for group in groups for parameter in group["params"]]
    # The fused kernel needs no temporary copy of the weights. With float16 it would do the
    # unscaling itself, after the clipping that needs unscaled gradients.
    float16 = solver.AMP.ENABLED and solver.AMP.PRECISION == "float16"
    fused = not float16 and all(parameter.is_cuda for parameter in parameters)
    optimizer = torch.optim.AdamW(
        groups,
        lr=solver.BASE_LR,
        betas=tuple(solver.BETAS),
        weight_decay=solver.WEIGHT_DECAY,
        fused=True if fused else None,
    )
    if clipping.CLIP_TYPE == FULL_MODEL:
        return optimizer
    return maybe_add_gradient_clipping(cfg, optimizer)


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    weight_decay_norm: float,
    weight_decay_bias: float | None,
    bias_lr_factor: float = 1.0,
    image_encoder_multiplier: float = 1.0,
    image_encoder_layer_decay: float = 1.0,
) -> list[dict]:
    """Sort the trainable parameters into groups of equal hyper-parameters.

    Every parameter of one dimension that is no bias counts as a norm's: so do the scales of norms
    that torch does not know, and LayerScale's.

    Args:
        model: parameters without ``requires_grad`` are left out, shared ones come once.
        lr: learning rate; biases have it times `bias_lr_factor`, parameters whose name starts with
            ``image_encoder.`` times `image_encoder_multiplier` and :func:`layer_multiplier`.
        weight_decay: of weights; `weight_decay_norm` of norms; `weight_decay_bias` of biases, also
            those of norms; None: as weights.

    Returns:
        Dicts with ``params``, ``lr`` and ``weight_decay``, as torch's optimizers take them.
    """
    groups, seen = [], set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            full_name = f"{module_name}.{name}"
            group = {"params": [parameter], "lr": lr, "weight_decay": weight_decay}
            if name == "bias" or name.endswith("_bias"):
                group["lr"] *= bias_lr_factor
                if weight_decay_bias is not None:
                    group["weight_decay"] = weight_decay_bias
            elif isinstance(module, NORM_LAYERS) or parameter.ndim <= 1:
                group["weight_decay"] = weight_decay_norm
            if full_name.startswith(IMAGE_ENCODER):
                name_inside = full_name.removeprefix(IMAGE_ENCODER)
                group["lr"] *= image_encoder_multiplier * layer_multiplier(
                    model.image_encoder, name_inside, image_encoder_layer_decay
                )
            groups.append(group)
    return reduce_param_groups(groups)


def layer_multiplier(encoder: nn.Module, parameter_name: str, decay: float) -> float:
    """Layer-wise learning-rate decay of fine-tuning (BEiT, arXiv 2106.08254).

    Args:
        encoder: with ``num_layers`` and ``layer_of``, see ImageEncoder.
        parameter_name: inside of the encoder.
        decay: in (0, 1]; 1 is off.

    Returns:
        decay ^ (num_layers - 1 - layer): 1 at the top.

    Raises:
        ValueError: `decay` is out of range, or the encoder does not tell its layers.
    """
    if decay == 1.0:
        return 1.0
    if not 0.0 < decay < 1.0:
        raise ValueError(f"SOLVER.IMAGE_ENCODER_LAYER_DECAY must be in (0, 1], got {decay}.")
    num_layers = getattr(encoder, "num_layers", 1)
    if num_layers == 1:
        raise ValueError(
            f"SOLVER.IMAGE_ENCODER_LAYER_DECAY is {decay}, but {type(encoder).__name__} does not "
            "tell its layers (num_layers, layer_of): set it to 1.0."
        )
    return decay ** (num_layers - 1 - encoder.layer_of(parameter_name))


def full_model_clip_norm(cfg: CfgNode) -> float | None:
    """The largest norm of all gradients together; None where the config does not clip so."""
    clipping = cfg.SOLVER.CLIP_GRADIENTS
    if not clipping.ENABLED or clipping.CLIP_TYPE != FULL_MODEL:
        return None
    return float(clipping.CLIP_VALUE)


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRMultiplier:
    """Build the learning-rate schedule, warm-up included.

    Args:
        cfg: reads ``SOLVER``.
        optimizer: the learning rates of its groups are multiplied, each from its own start.

    Returns:
        A scheduler that is stepped after every iteration.

    Raises:
        ValueError: an unknown name, or FLAT_FRACTION is not in 0..1, or MAX_ITER not positive.
    """
    solver = cfg.SOLVER
    if solver.MAX_ITER <= 0:
        raise ValueError(f"SOLVER.MAX_ITER must be positive, got {solver.MAX_ITER}.")
    if solver.LR_SCHEDULER_NAME not in LR_SCHEDULERS:
        raise ValueError(
            f"SOLVER.LR_SCHEDULER_NAME {solver.LR_SCHEDULER_NAME!r} is unknown: it must be one of "
            f"{', '.join(LR_SCHEDULERS)}."
        )
    if solver.WARMUP_ITERS >= solver.MAX_ITER:
        logger.warning(
            "SOLVER.WARMUP_ITERS %d is not below MAX_ITER %d: the learning rate stays below "
            "BASE_LR all the time.",
            solver.WARMUP_ITERS,
            solver.MAX_ITER,
        )
    if solver.LR_SCHEDULER_NAME != FLAT_LINEAR:
        return build_detectron2_lr_scheduler(cfg, optimizer)
    schedule = WarmupParamScheduler(
        flat_linear_schedule(solver.FLAT_FRACTION),
        solver.WARMUP_FACTOR,
        min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
        solver.WARMUP_METHOD,
        solver.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, multiplier=schedule, max_iter=solver.MAX_ITER)


def flat_linear_schedule(flat_fraction: float) -> ParamScheduler:
    """One up to `flat_fraction` of the training, then a straight line to zero at its end.

    Raises:
        ValueError: `flat_fraction` is not in 0..1.
    """
    if not 0.0 <= flat_fraction <= 1.0:
        raise ValueError(f"SOLVER.FLAT_FRACTION must be in 0..1, got {flat_fraction}.")
    # Not fvcore's constant, which refuses to be asked about the very end.
    flat = LinearParamScheduler(1.0, 1.0)
    if flat_fraction == 1.0:
        return flat
    return CompositeParamScheduler(
        [flat, LinearParamScheduler(1.0, 0.0)],
        lengths=[flat_fraction, 1.0 - flat_fraction],
        interval_scaling=["rescaled", "rescaled"],
    )
