"""Stage 1: the meta-architecture that trains and evaluates the mask autoencoder."""

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from ..ids import assign_ids, keep_largest
from ..losses import (
    choose_uncertain_points,
    factored_cross_entropy,
    id_cross_entropy,
    mask_bce,
    mask_dice,
    sample_at_points,
)
from ..modeling.mask_autoencoder import MaskAutoencoder
from .batching import SampleRandomness, image_generator, stack_segment_ids
from .build import build_mask_autoencoder
from .tasks.instance import decode_panoptic, postprocess_arguments


@META_ARCH_REGISTRY.register()
class LDMSegAutoencoder(nn.Module):
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
        oversample_ratio: float = 3.0,
        importance_ratio: float = 0.75,
        crop_size: int = 0,
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
            oversample_ratio, importance_ratio: of the point sampling.
            crop_size: side of random training crops, pixels; 0: whole maps.
            postprocess: keyword arguments of ``logits_to_panoptic``.
            seed: of the ids drawn at test.

        Raises:
            ValueError: a crop that does not fit.
        """
        super().__init__()
        self.train_size = train_size or image_size
        if crop_size % autoencoder.downsample_factor or crop_size > self.train_size:
            raise ValueError(
                f"MODEL.LDMSEG.AUTOENCODER.LOSS.CROP_SIZE {crop_size} must be a multiple of "
                f"DOWNSAMPLE_FACTOR {autoencoder.downsample_factor}, at most {self.train_size}"
            )
        self.autoencoder = autoencoder
        self.image_size = image_size
        self.loss_weights = loss_weights
        self.void_weight = void_weight
        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_ratio = importance_ratio
        self.crop_size = crop_size
        self.postprocess = postprocess or {}
        self.seed = seed
        # No network of this stage sees a photo; the buffer only tells the device.
        self.register_buffer("device_marker", torch.zeros(()), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        loss = cfg.MODEL.LDMSEG.AUTOENCODER.LOSS
        return {
            "autoencoder": build_mask_autoencoder(cfg),
            "image_size": cfg.INPUT.LDMSEG.IMAGE_SIZE,
            "train_size": cfg.INPUT.LDMSEG.TRAIN_SIZE,
            "loss_weights": {
                "ce": loss.CE_WEIGHT,
                "bce": loss.BCE_WEIGHT,
                "dice": loss.DICE_WEIGHT,
                "kl": loss.KL_WEIGHT,
            },
            "void_weight": loss.VOID_WEIGHT,
            "num_points": loss.NUM_POINTS,
            "oversample_ratio": loss.OVERSAMPLE_RATIO,
            "importance_ratio": loss.IMPORTANCE_RATIO,
            "crop_size": loss.CROP_SIZE,
            "postprocess": postprocess_arguments(cfg),
            "seed": cfg.SEED,
        }

    @property
    def device(self) -> torch.device:
        return self.device_marker.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: a list of dicts, one per picture, with

                * ``segment_ids``: int64 (h, w), 0 is void, h and w at most ``image_size``;
                * ``sample_seed``: int, seeds ids and crop in training; see
                  :class:`SampleRandomness`. Points, the posterior's sample and latent noise come
                  from torch's global generator;
                * ``height``, ``width``: size of the result (at test);
                * ``image_id``: seeds the ids drawn at test.

        Returns:
            Training: ``loss_ce``, ``loss_bce``, ``loss_dice``, ``loss_kl``, those whose weight is
            not 0, each a scalar times its weight. Test: a list of dicts with ``panoptic_seg``, see
            :func:`logits_to_panoptic`.
        """
        max_segments = self.autoencoder.num_ids - 1
        side = self.train_size if self.training else self.image_size
        segment_ids = stack_segment_ids(batched_inputs, side, max_segments)
        if not self.training:
            return self._reconstruct(batched_inputs, segment_ids)
        randomness = SampleRandomness(batched_inputs, self.device)
        if self.crop_size:
            segment_ids = self._random_crops(segment_ids, randomness)
        ids = randomness.assign_ids(
            segment_ids.to(self.device), num_bits=self.autoencoder.num_bits, method="random"
        )
        head_output, posterior = self.autoencoder(ids)
        losses = self._losses(head_output, ids)
        losses["kl"] = posterior.kl()
        return {
            f"loss_{name}": self.loss_weights[name] * value
            for name, value in losses.items()
            if self.loss_weights[name] > 0
        }

    def _reconstruct(self, batched_inputs: list[dict], segment_ids: Tensor) -> list[dict]:
        num_bits = self.autoencoder.num_bits
        ids = torch.cat(
            [
                assign_ids(
                    one.unsqueeze(0),
                    num_bits=num_bits,
                    method="random",
                    generator=image_generator(self.seed, entry["image_id"], torch.device("cpu")),
                )
                for one, entry in zip(segment_ids, batched_inputs, strict=True)
            ]
        ).to(self.device)
        head_output, _ = self.autoencoder(ids)
        return [
            {"panoptic_seg": decode_panoptic(self.autoencoder, one, entry, self.postprocess)}
            for one, entry in zip(head_output, batched_inputs, strict=True)
        ]

    def _random_crops(self, segment_ids: Tensor, randomness: SampleRandomness) -> Tensor:
        corners = randomness.randint(self.train_size - self.crop_size + 1, 2).tolist()
        size, max_segments = self.crop_size, self.autoencoder.num_ids - 1
        # keep_largest makes the ids consecutive again: a crop may have lost some.
        crops = [
            keep_largest(ids[y : y + size, x : x + size], max_segments)[0]
            for ids, (y, x) in zip(segment_ids, corners, strict=True)
        ]
        return torch.stack(crops)

    def _losses(self, head_output: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, BCE and dice at sampled points (or everywhere)."""
        factored = self.autoencoder.head == "factored"
        if self.num_points:
            points = choose_uncertain_points(
                self.autoencoder.id_logits(head_output.detach()),
                self.num_points,
                oversample_ratio=self.oversample_ratio,
                importance_ratio=self.importance_ratio,
            )
            head_output = sample_at_points(head_output, points).unsqueeze(2)  # [B, *, 1, P]
            ids = sample_at_points(ids.unsqueeze(1).float(), points, mode="nearest").long()
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
