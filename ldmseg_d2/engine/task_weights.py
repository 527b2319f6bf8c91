"""Weights of a model with more tasks, made of one with fewer: training goes on instead of anew."""

import logging

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

from ldmseg_d2.modeling.weights import check_fits, load_weights, without_prefixes

logger = logging.getLogger(__name__)

CONV_IN = "denoiser.unet.conv_in.weight"
CONV_OUT = ("denoiser.unet.conv_out.weight", "denoiser.unet.conv_out.bias")
# One row for each task that the denoiser is told.
TASK_ROWS = ("denoiser.task_tokens", "denoiser.task_vectors.weight")
# The dimension of each whose size depends on the tasks.
TASK_DIMENSIONS = {CONV_IN: 1, **dict.fromkeys((*CONV_OUT, *TASK_ROWS), 0)}


def extend_weights(source_cfg: CfgNode, target_cfg: CfgNode, path: str) -> dict[str, Tensor]:
    """Start weights for a model of more tasks, which does the old ones as before.

    With "joint" tasks the new latents' input weights are zero, and their output weights random;
    with "separate" ones the new tasks' tokens are random, and what a new cross-attention adds is
    zero at first.

    Args:
        source_cfg: of the model whose weights are in `path`.
        target_cfg: with the same networks, and with all of its tasks and more.
        path: of the weights; averaged ones are preferred.

    Returns:
        State dict of the target, without those of its frozen networks that the source does not
        train either.

    Raises:
        FileNotFoundError, ValueError: the weights do not fit the source, or the models have more
            differences than their tasks.
    """
    source, target = (_build_unloaded(cfg) for cfg in (source_cfg, target_cfg))
    old = without_prefixes(load_weights(path), source.frozen_prefixes)
    check_fits(source, old, source=path, ignore_missing=source.frozen_prefixes)
    _check_tasks(source, target)
    new = {
        key: value
        for key, value in target.state_dict().items()
        # What the source trained and the target freezes has no other file to come from.
        if key in old or not key.startswith(target.frozen_prefixes)
    }
    for key, value in new.items():
        if key in old and _shape_apart_from_tasks(key, old[key]) != _shape_apart_from_tasks(
            key, value
        ):
            raise ValueError(
                f"{key} is {tuple(old[key].shape)} in {path!r}, but the target has "
                f"{tuple(value.shape)}: the models may differ in their tasks only"
            )
        if key == CONV_IN:
            new[key] = _extend_inputs(old[key], value, source, target)
        elif key in CONV_OUT:
            new[key] = _extend_outputs(old[key], value, source, target)
        elif key in TASK_ROWS and key in old:
            new[key] = _extend_rows(old[key], value, source, target)
        elif key in old:
            new[key] = old[key].to(value.dtype)
        elif ".attn2.to_out." in key:
            new[key] = torch.zeros_like(value)
    added = sorted(set(new) - set(old))
    logger.info("%d tensors from %s, %d are new", len(new) - len(added), path, len(added))
    return new


def _build_unloaded(cfg: CfgNode) -> nn.Module:
    """The model of a config on the CPU, without reading any weights."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    cfg.MODEL.LDMSEG.AUTOENCODER.WEIGHTS = cfg.MODEL.LDMSEG.DEPTH.AUTOENCODER.WEIGHTS = ""
    cfg.MODEL.LDMSEG.DENOISER.PRETRAINED = cfg.MODEL.LDMSEG.IMAGE_ENCODER.WEIGHTS = ""
    return build_model(cfg)


def _check_tasks(source: nn.Module, target: nn.Module) -> None:
    """Raise a ValueError unless the target can do the source's tasks as the source does."""
    ours, theirs = source.layout, target.layout
    missing = [task for task in ours.names if task not in theirs.names]
    if missing:
        raise ValueError(
            f"the target lacks the tasks {missing} of the source: MODEL.LDMSEG.TASKS is "
            f"{theirs.names} there and {ours.names} here"
        )
    if len(ours.names) > 1 and ours.joint != theirs.joint:
        raise ValueError(
            "MODEL.LDMSEG.TASK_MODE of the two models differs, and the source has several tasks "
            f"({', '.join(ours.names)}): only a model of one task can start either mode"
        )
    if ours.task_channels != theirs.task_channels or (
        source.denoiser.self_conditioning and not target.denoiser.self_conditioning
    ):
        raise ValueError(
            "the models may differ in their tasks only: MODEL.LDMSEG.AUTOENCODER.LATENT_CHANNELS "
            "and DIFFUSION.SELF_CONDITIONING must agree"
        )


def _shape_apart_from_tasks(key: str, tensor: Tensor) -> list[int]:
    """Sizes of a tensor, without the one that depends on the tasks."""
    return [n for i, n in enumerate(tensor.shape) if i != TASK_DIMENSIONS.get(key)]


def _task_row(model: nn.Module, task: str) -> int:
    """The denoiser's number for a task."""
    return 0 if model.layout.joint else model.layout.names.index(task)


def _task_channels(model: nn.Module, task: str) -> slice:
    """Where a task is among the latents' channels."""
    layout = model.layout
    start = layout.names.index(task) * layout.task_channels if layout.joint else 0
    return slice(start, start + layout.task_channels)


def _extend_inputs(old: Tensor, new: Tensor, source: nn.Module, target: nn.Module) -> Tensor:
    """Input weights over [latents | condition | self-conditioning | known]; new ones get zeros."""
    result = torch.zeros_like(new)
    before, after = source.layout.latent_channels, target.layout.latent_channels
    num_known = source.denoiser.num_known_channels
    num_condition = old.shape[1] - before * (1 + source.denoiser.self_conditioning) - num_known
    others = new.shape[1] - after * (1 + target.denoiser.self_conditioning)
    if others - target.denoiser.num_known_channels != num_condition:
        raise ValueError(
            "the models' image conditions differ in channels: MODEL.LDMSEG.IMAGE_ENCODER and "
            "DENOISER.CONDITIONING must agree"
        )
    result[:, after : after + num_condition] = old[:, before : before + num_condition]
    both = source.denoiser.self_conditioning and target.denoiser.self_conditioning
    offsets = [(0, 0)] + [(before + num_condition, after + num_condition)] * both
    for task in source.layout.names:
        there, here = _task_channels(source, task), _task_channels(target, task)
        for old_start, new_start in offsets:
            result[:, new_start + here.start : new_start + here.stop] = old[
                :, old_start + there.start : old_start + there.stop
            ]
    known_start = new.shape[1] - target.denoiser.num_known_channels
    shared = min(num_known, target.denoiser.num_known_channels)
    result[:, known_start : known_start + shared] = old[:, old.shape[1] - num_known :][:, :shared]
    return result


def _extend_outputs(old: Tensor, new: Tensor, source: nn.Module, target: nn.Module) -> Tensor:
    """Output weights of the old tasks; new ones stay random."""
    result = new.clone()
    for task in source.layout.names:
        result[_task_channels(target, task)] = old[_task_channels(source, task)].to(new.dtype)
    if None not in (source.denoiser.draft_start, target.denoiser.draft_start):
        result[-1] = old[-1].to(new.dtype)  # the draft's gate
    return result


def _extend_rows(old: Tensor, new: Tensor, source: nn.Module, target: nn.Module) -> Tensor:
    """Task tokens or vectors of the old tasks; new ones stay as they begin."""
    result = new.clone()
    for task in source.layout.names:
        result[_task_row(target, task)] = old[_task_row(source, task)].to(new.dtype)
    return result
