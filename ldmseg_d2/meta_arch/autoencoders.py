"""Stage 1: the meta-architectures that train and evaluate the autoencoders of masks and depth."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from ..diffusion import SampleRandomness, image_generator
from ..ids import random_ids
from ..losses import (
    choose_uncertain_points,
    factored_cross_entropy,
    id_cross_entropy,
    mask_bce,
    mask_dice,
    sample_at_points,
)
from ..modeling.depth_autoencoder import DepthAutoencoder, DepthNormalization
from ..modeling.mask_autoencoder import MaskAutoencoder
from .batching import resize_shown, stack_depth, stack_segment_ids
from .build import build_depth_autoencoder, build_mask_autoencoder
from .tasks import InstanceTask, build_depth_normalization, postprocess_arguments


class _Stage1(nn.Module):
    """What both have in common: no network of this stage sees a photo."""

    def __init__(self, autoencoder: nn.Module, image_size: int, train_size: int) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.image_size = image_size
        self.train_size = train_size or image_size
        # It only tells the device.
        self.register_buffer("device_marker", torch.zeros(()), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.device_marker.device

    @property
    def side(self) -> int:
        """Side S of the square maps, pixels."""
        return self.train_size if self.training else self.image_size


@META_ARCH_REGISTRY.register()
class LDMSegAutoencoder(_Stage1):
    """Trains a MaskAutoencoder on segment ids alone; at test it reconstructs them."""

    @configurable
    def __init__(
        self,
        *,
        autoencoder: MaskAutoencoder,
        image_size: int,
        train_size: int = 0,
        loss_weights: dict[str, float],
        void_weight: float = 0.0,
        num_points: int = 12544,
        postprocess: dict | None = None,
        seed: int = 0,
    ) -> None:
        """
        Args:
            autoencoder: the network.
            image_size: side S of the square id maps, pixels.
            train_size: the same in training; 0: ``image_size``.
            loss_weights: weights of "ce", "bce", "dice" and "kl".
            void_weight: weight of void pixels in the cross-entropy.
            num_points: points of the point-sampled losses; 0: every pixel.
            postprocess: keyword arguments of ``logits_to_panoptic``.
            seed: of the ids drawn at test.
        """
        super().__init__(autoencoder, image_size, train_size)
        self.loss_weights = loss_weights
        self.void_weight = void_weight
        self.num_points = num_points
        # Decodes as the task does that learns in these latents.
        self.task = InstanceTask(autoencoder, image_size=image_size, postprocess=postprocess)
        self.seed = seed

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        loss = cfg.MODEL.LDMSEG.AUTOENCODER.LOSS
        return {
            "autoencoder": build_mask_autoencoder(cfg),
            "image_size": cfg.INPUT.LDMSEG.IMAGE_SIZE,
            "train_size": cfg.INPUT.LDMSEG.TRAIN_SIZE,
            "loss_weights": {
                "ce": 1.0,
                "bce": loss.BCE_WEIGHT,
                "dice": loss.DICE_WEIGHT,
                "kl": loss.KL_WEIGHT,
            },
            "void_weight": loss.VOID_WEIGHT,
            "num_points": loss.NUM_POINTS,
            "postprocess": postprocess_arguments(cfg),
            "seed": cfg.SEED,
        }

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: a list of dicts, one per picture, with

                * ``segment_ids``: int64 (h, w), 0 is void, h and w at most ``image_size``;
                * ``sample_seed``: int, seeds ids in training; see
                  :class:`SampleRandomness`. Points, the posterior's sample and latent noise come
                  from torch's global generator;
                * ``height``, ``width``: size of the result (at test);
                * ``image_id``: seeds the ids drawn at test.

        Returns:
            Training: ``loss_ce``, ``loss_bce``, ``loss_dice``, ``loss_kl``, those whose weight is
            not 0, each a scalar times its weight. Test: a list of dicts with ``panoptic_seg``, see
            :func:`logits_to_panoptic`.
        """
        segment_ids = stack_segment_ids(batched_inputs, self.side, self.autoencoder.num_ids - 1)
        segment_ids = segment_ids.to(self.device)
        if not self.training:
            return self._reconstruct(batched_inputs, segment_ids)
        randomness = SampleRandomness(batched_inputs, self.device)
        ids = random_ids(segment_ids, self.autoencoder.num_bits, randomness.generators)
        head_output, posterior = self.autoencoder(ids)
        losses = {**self._losses(head_output, ids), "kl": posterior.kl()}
        return {
            f"loss_{name}": self.loss_weights[name] * value
            for name, value in losses.items()
            if self.loss_weights[name] > 0
        }

    def _reconstruct(self, batched_inputs: list[dict], segment_ids: Tensor) -> list[dict]:
        generators = [
            image_generator(self.seed, entry["image_id"], torch.device("cpu"))
            for entry in batched_inputs
        ]
        ids = random_ids(segment_ids, self.autoencoder.num_bits, generators)
        latents = self.autoencoder.normalize(self.autoencoder.encode(ids).mean)
        return [{"panoptic_seg": one} for one in self.task.decode(latents, batched_inputs)]

    def _losses(self, head_output: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, BCE and dice at sampled points (or everywhere)."""
        if self.num_points:
            logits = self.autoencoder.id_logits(head_output.detach())
            points = choose_uncertain_points(logits, self.num_points)
            head_output = sample_at_points(head_output, points).unsqueeze(2)  # [B, *, 1, P]
            ids = sample_at_points(ids.unsqueeze(1).float(), points, mode="nearest").long()
        factored = self.autoencoder.head == "factored"
        cross_entropy = factored_cross_entropy if factored else id_cross_entropy
        losses = {"ce": cross_entropy(head_output, ids, void_weight=self.void_weight)}
        if self.loss_weights["bce"] > 0 or self.loss_weights["dice"] > 0:
            logits, masks = self._segment_logits(head_output, ids)
            losses["bce"], losses["dice"] = mask_bce(logits, masks), mask_dice(logits, masks)
        return losses

    def _segment_logits(self, head_output: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Each ground-truth segment's own channel and mask, (K, P) over the whole batch."""
        logits, masks = [], []
        for one, labels_map in zip(head_output.flatten(2), ids.flatten(1), strict=True):
            labels = torch.unique(labels_map)
            labels = labels[labels != 0]
            if self.autoencoder.head == "factored":
                codes = self.autoencoder.codes[labels - 1].to(one)  # [K, num_bits]
                logits.append(codes @ one[: self.autoencoder.num_bits])
            else:
                logits.append(one[labels])
            masks.append(labels_map.unsqueeze(0) == labels.unsqueeze(1))
        return torch.cat(logits), torch.cat(masks)


@META_ARCH_REGISTRY.register()
class LDMSegDepthAutoencoder(_Stage1):
    """Trains a DepthAutoencoder on depth maps alone; at test it reconstructs them."""

    @configurable
    def __init__(
        self,
        *,
        autoencoder: DepthAutoencoder,
        image_size: int,
        normalization: DepthNormalization,
        train_size: int = 0,
    ) -> None:
        """
        Args:
            autoencoder: the network.
            image_size: side S of the square maps, pixels.
            normalization: metres to [-1, 1] and back.
            train_size: the square's side in training; 0: ``image_size``.
        """
        super().__init__(autoencoder, image_size, train_size)
        self.normalization = normalization

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            "autoencoder": build_depth_autoencoder(cfg),
            "image_size": cfg.INPUT.LDMSEG.IMAGE_SIZE,
            "normalization": build_depth_normalization(cfg),
            "train_size": cfg.INPUT.LDMSEG.TRAIN_SIZE,
        }

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: a list of dicts, one per picture, with

                * ``depth``: float32 (h, w) metres, 0 is invalid, h and w at most ``image_size``;
                * ``height``, ``width``: size of the result (at test).

        Returns:
            Training: ``loss_depth``, the mean absolute error of the normalised depth over valid
            pixels. Test: a list of dicts with ``depth``, float32 (H, W): metres, or relative depth
            in [0, 1].

        Raises:
            KeyError: an input has no depth.
        """
        depth, valid = stack_depth(batched_inputs, self.side, self.normalization, self.device)
        decoded = self.autoencoder(depth, valid)
        if self.training:
            error = (decoded.float() - depth).abs() * valid
            return {"loss_depth": error.sum() / valid.sum().clamp(min=1)}
        return [
            {"depth": resize_shown(self.normalization.denormalize(one.float()), entry)}
            for one, entry in zip(decoded, batched_inputs, strict=True)
        ]
