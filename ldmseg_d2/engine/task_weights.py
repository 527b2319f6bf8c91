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


def extend_weights(source_cfg: CfgNode, target_cfg: CfgNode, path: str) -> dict[str, Tensor]:
    """Start weights for a model of more tasks, which does the old ones as before.

    With "joint" tasks the new latents' input weights are zero, and their output weights random;
    with "separate" ones what the cross-attention adds is zero at first.

    Args:
        source_cfg: of the model whose weights are in `path`.
        target_cfg: with the same networks, and with all of its tasks and more.
        path: of the weights; averaged ones are preferred.

    Returns:
        State dict of the target, without its frozen networks.

    Raises:
        FileNotFoundError, ValueError: the weights do not fit the source, or the models have more
            differences than their tasks.
    """
    source, target = (_build_unloaded(cfg) for cfg in (source_cfg, target_cfg))
    old = without_prefixes(load_weights(path), source.frozen_prefixes)
    check_fits(source, old, source=path, ignore_missing=source.frozen_prefixes)
    new = without_prefixes(target.state_dict(), target.frozen_prefixes)
    missing = [task for task in source.layout.names if task not in target.layout.names]
    if missing:
        raise ValueError(
            f"the target lacks the tasks {missing} of the source: MODEL.LDMSEG.TASKS is "
            f"{target.layout.names} there and {source.layout.names} here"
        )
    for key, value in new.items():
        if key == CONV_IN:
            new[key] = _extend_inputs(old[key], value, source, target)
        elif key in CONV_OUT:
            new[key] = _extend_outputs(old[key], value, source, target)
        elif key in old and old[key].shape == value.shape:
            new[key] = old[key].to(value.dtype)
        elif key in old:
            raise ValueError(
                f"{key} is {tuple(old[key].shape)} in {path!r}, but the target has "
                f"{tuple(value.shape)}: the models may differ in their tasks only"
            )
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
    cfg.MODEL.LDMSEG.DENOISER.PRETRAINED = ""
    return build_model(cfg)


def _task_channels(model: nn.Module, task: str) -> slice:
    """Where a task is among the latents' channels."""
    layout = model.layout
    start = layout.names.index(task) * layout.task_channels if layout.joint else 0
    return slice(start, start + layout.task_channels)


def _extend_inputs(old: Tensor, new: Tensor, source: nn.Module, target: nn.Module) -> Tensor:
    """Input weights over [latents | condition | self-conditioning | known]; new ones get zeros."""
    result = torch.zeros_like(new)
    before, after = source.layout.latent_channels, target.layout.latent_channels
    num_known = int(source.denoiser.known_channel)
    num_condition = old.shape[1] - before * (1 + source.denoiser.self_conditioning) - num_known
    result[:, after : after + num_condition] = old[:, before : before + num_condition]
    both = source.denoiser.self_conditioning and target.denoiser.self_conditioning
    offsets = [(0, 0)] + [(before + num_condition, after + num_condition)] * both
    for task in source.layout.names:
        there, here = _task_channels(source, task), _task_channels(target, task)
        for old_start, new_start in offsets:
            result[:, new_start + here.start : new_start + here.stop] = old[
                :, old_start + there.start : old_start + there.stop
            ]
    if source.denoiser.known_channel and target.denoiser.known_channel:
        result[:, -1] = old[:, -1]
    return result


def _extend_outputs(old: Tensor, new: Tensor, source: nn.Module, target: nn.Module) -> Tensor:
    """Output weights of the old tasks; new ones stay random."""
    result = new.clone()
    for task in source.layout.names:
        result[_task_channels(target, task)] = old[_task_channels(source, task)].to(new.dtype)
    return result
