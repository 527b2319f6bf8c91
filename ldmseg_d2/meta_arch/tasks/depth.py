"""The task "depth": continuous, normalised to [-1, 1], through an autoencoder of its own."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor
from torch.nn import functional as F

from ...modeling.depth_autoencoder import DepthAutoencoder
from ...modeling.depth_normalization import DepthNormalization
from ..batching import SampleRandomness, pad_stack, pool_valid, shown_size
from .base import TASK_REGISTRY, Predict, Target, Task


@TASK_REGISTRY.register()
class DepthTask(Task):
    """Relative or metric depth; invalid pixels are left out of every loss."""

    name = "depth"
    annotation = "depth"
    autoencoder_name = "depth_autoencoder"
    output_key = "depth"
    autoencoder: DepthAutoencoder

    def __init__(
        self,
        autoencoder: DepthAutoencoder,
        *,
        image_size: int,
        normalization: DepthNormalization,
        train_size: int = 0,
    ) -> None:
        """
        Args:
            autoencoder: of depth.
            image_size, train_size: see :class:`Task`.
            normalization: metres to [-1, 1] and back.
        """
        super().__init__(autoencoder, image_size=image_size, train_size=train_size)
        self.normalization = normalization

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {**super().from_config(cfg), "normalization": build_depth_normalization(cfg)}

    def has_target(self, entry: dict) -> bool:
        return super().has_target(entry) and bool((entry["depth"] > 0).any())

    @torch.no_grad()
    def encode(
        self, entries: Sequence[dict], randomness: SampleRandomness, predict: Predict
    ) -> Target:
        depth, valid = stack_depth(entries, self.train_size, self.normalization, randomness.device)
        latents = self.autoencoder.normalize(self.autoencoder.encode(depth, valid))
        return Target(latents, pool_valid(valid, latents.shape[-1]), (depth, valid))

    def decode(self, latents: Tensor, entries: Sequence[dict]) -> list[Tensor]:
        """(H, W) float32 for each sample: metres, or relative depth in [0, 1]."""
        decoded = self.decode_latents(latents).float()
        return [
            resize_depth(self.normalization.denormalize(one), entry)
            for one, entry in zip(decoded, entries, strict=True)
        ]

    def decoded_loss(self, latents: Tensor, target: Target) -> Tensor:
        """Mean absolute error (scalar) of the normalised depth over valid pixels."""
        depth, valid = target.pixels
        return masked_l1(self.decode_latents(latents), depth, valid)


def build_depth_normalization(cfg: CfgNode) -> DepthNormalization:
    """The normalisation of ``MODEL.LDMSEG.DEPTH``.

    Raises:
        ValueError: values that make no sense.
    """
    depth = cfg.MODEL.LDMSEG.DEPTH
    normalization = DepthNormalization(depth.NORMALIZATION, tuple(depth.RANGE), depth.SCALE)
    normalization.check()
    return normalization


def stack_depth(
    entries: Sequence[dict], size: int, normalization: DepthNormalization, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Normalised depth of some pictures, padded with invalid pixels.

    Args:
        entries: dicts with ``depth``, float32 (h, w) metres, 0 invalid, h and w at most ``size``.
        size: side S of the square.
        normalization: metres to [-1, 1].
        device: of the result.

    Returns:
        (N, S, S) float32 in [-1, 1], and (N, S, S) bool, which pixels are valid.

    Raises:
        KeyError: an input has no depth.
    """
    for entry in entries:
        if "depth" not in entry:
            raise KeyError(
                f"{entry.get('file_name', 'image')}: the model needs 'depth' here; data sets have "
                "it where INPUT.LDMSEG.DEPTH_ROOTS names a folder, and at test it is loaded where "
                "INPUT.LDMSEG.ANNOTATIONS_AT_TEST is True"
            )
    metres = pad_stack([entry["depth"].to(device) for entry in entries], size, 0.0)
    pairs = [normalization.normalize(one) for one in metres]
    return torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])


def resize_depth(depth: Tensor, entry: dict) -> Tensor:
    """One picture's depth (S, S) without its padding, bilinearly at its ``height`` x ``width``."""
    height, width = shown_size(entry)
    size = entry["height"], entry["width"]
    shown = depth[None, None, :height, :width]
    return F.interpolate(shown, size=size, mode="bilinear", align_corners=False)[0, 0]


def masked_l1(prediction: Tensor, depth: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute error (scalar) over valid pixels of (N, S, S); 0 where nothing is valid."""
    error = (prediction.float() - depth).abs() * valid
    return error.sum() / valid.sum().clamp(min=1)
