"""The task "instance": every segment, thing or stuff, under an id of its own."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor
from torch.nn import functional as F

from ...config import ID_ASSIGNMENTS, MATCHED_ASSIGNMENTS
from ...ids import PositionPull, match_ids, pixel_areas
from ...losses import factored_cross_entropy, id_cross_entropy
from ...modeling.mask_autoencoder import MaskAutoencoder
from ...panoptic import logits_to_panoptic
from ..batching import SampleRandomness, pool_valid, shown_size, stack_segment_ids
from .base import TASK_REGISTRY, Predict, Target, Task


class IdTask(Task):
    """Base of the tasks whose map holds ids, encoded as bits by the mask autoencoder."""

    autoencoder: MaskAutoencoder

    def __init__(
        self,
        autoencoder: MaskAutoencoder,
        *,
        image_size: int,
        train_size: int = 0,
        masked_loss: bool = True,
        segment_balance: float = 0.0,
        decoded_balance: float = 0.0,
    ) -> None:
        """
        Args:
            autoencoder: of masks.
            image_size, train_size: see :class:`Task`.
            masked_loss: leave cells that are mostly void out of the loss.
            segment_balance: b of the squared error of latents, see :func:`balanced_cells`.
            decoded_balance: of the decoded loss, see :func:`id_cross_entropy`.

        Raises:
            ValueError: a balance outside [0, 1].
        """
        super().__init__(autoencoder, image_size=image_size, train_size=train_size)
        balances = {"SEGMENT_BALANCE": segment_balance, "DECODED_LOSS_BALANCE": decoded_balance}
        for key, balance in balances.items():
            if not 0 <= balance <= 1:
                raise ValueError(
                    f"MODEL.LDMSEG.DIFFUSION.{key} must be from 0 (pixels weigh the same) to 1 "
                    f"(segments do), got {balance}"
                )
        self.masked_loss = masked_loss
        self.segment_balance = segment_balance
        self.decoded_balance = decoded_balance

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        diffusion = cfg.MODEL.LDMSEG.DIFFUSION
        return {
            **super().from_config(cfg),
            "masked_loss": diffusion.MASKED_LOSS,
            "segment_balance": diffusion.SEGMENT_BALANCE,
            "decoded_balance": diffusion.DECODED_LOSS_BALANCE,
        }

    @torch.no_grad()
    def encode_ids(self, ids: Tensor) -> Target:
        """The target of id maps (N, S, S) int64, 0 is void."""
        latents = self.autoencoder.normalize(self.autoencoder.encode(ids).mean)
        size = latents.shape[-1]
        valid = pool_valid(ids != 0, size) if self.masked_loss else None
        balance = self.segment_balance
        weights = balanced_cells(ids, size, balance) if balance else None
        return Target(latents, valid, ids, weights)

    def decoded_loss(self, latents: Tensor, target: Target) -> Tensor:
        """Cross-entropy (scalar) between decoded latents and the ids; void is left out."""
        factored = self.autoencoder.head == "factored"
        cross_entropy = factored_cross_entropy if factored else id_cross_entropy
        head_output = self.decode_latents(latents)
        return cross_entropy(head_output, target.pixels, segment_balance=self.decoded_balance)


def balanced_cells(ids: Tensor, size: int, balance: float) -> Tensor:
    """Weights of latent cells with which small segments count for more than their area.

    A pixel of a segment weighs area^-balance, a cell the mean of its pixels, scaled so that a
    picture's mean is 1. Void, which no evaluation counts, weighs as little as the largest segment.

    Args:
        ids: (N, S, S) int64.
        size: side h of the latents, a divisor of S.
        balance: 0: all cells weigh the same, 1: all segments.

    Returns:
        (N, 1, h, h) float32.
    """
    areas = pixel_areas(ids).float()
    largest = (areas * (ids != 0)).amax(dim=(1, 2), keepdim=True).clamp(min=1)  # [N, 1, 1]
    weights = torch.where(ids == 0, largest, areas) ** -balance
    cells = F.avg_pool2d(weights.unsqueeze(1), ids.shape[-1] // size)
    return cells / cells.mean(dim=(1, 2, 3), keepdim=True)


@TASK_REGISTRY.register()
class InstanceTask(IdTask):
    """Segments without classes: ids assigned anew in every training step."""

    name = "instance"
    annotation = "segment_ids"
    output_key = "panoptic_seg"

    def __init__(
        self,
        autoencoder: MaskAutoencoder,
        *,
        id_assignment: str = "random",
        position_edges: tuple[list[float], list[float]] = ((), ()),
        position_weight: float = 1.0,
        postprocess: dict | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            autoencoder: of masks.
            id_assignment: one of ``ID_ASSIGNMENTS``.
            position_edges: inner bin edges of y and x for "positional" and "matched_positional";
                empty: equal bins.
            position_weight: of "matched_positional", see :class:`PositionPull`.
            postprocess: keyword arguments of ``logits_to_panoptic``.
            kwargs: see :class:`IdTask`.

        Raises:
            ValueError: unknown id assignment.
        """
        super().__init__(autoencoder, **kwargs)
        if id_assignment not in ID_ASSIGNMENTS:
            raise ValueError(
                f"MODEL.LDMSEG.ID_ASSIGNMENT is {id_assignment!r}; allowed: {ID_ASSIGNMENTS}"
            )
        self.id_assignment = id_assignment
        self.position_edges = position_edges
        self.position_weight = position_weight
        self.postprocess = postprocess or {}

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        ldmseg = cfg.MODEL.LDMSEG
        return {
            **super().from_config(cfg),
            "id_assignment": ldmseg.ID_ASSIGNMENT,
            "position_edges": (ldmseg.POSITIONAL.Y_EDGES, ldmseg.POSITIONAL.X_EDGES),
            "position_weight": ldmseg.MATCHED_POSITION_WEIGHT,
            "postprocess": postprocess_arguments(cfg),
        }

    @torch.no_grad()
    def encode(
        self, entries: Sequence[dict], randomness: SampleRandomness, predict: Predict
    ) -> Target:
        max_segments = self.autoencoder.num_ids - 1
        segment_ids = stack_segment_ids(entries, self.train_size, max_segments)
        segment_ids = segment_ids.to(randomness.device)
        return self.encode_ids(self.assign_ids(segment_ids, randomness, predict))

    @torch.no_grad()
    def assign_ids(
        self, segment_ids: Tensor, randomness: SampleRandomness, predict: Predict
    ) -> Tensor:
        """Give the segments the ids under which they are encoded.

        Args:
            segment_ids: (N, S, S) int64, consecutive ids in each map.
            randomness: of "random" ids.
            predict: "matched" and "matched_positional" ids come near to what it gives.

        Returns:
            (N, S, S) int64.
        """
        if self.id_assignment in MATCHED_ASSIGNMENTS:
            position = None
            if self.id_assignment == "matched_positional":
                position = PositionPull(self.position_weight, *self.position_edges)
            decoded = self.decode_latents(predict())
            return match_ids(segment_ids, decoded, self.autoencoder.id_logits, position)
        return randomness.assign_ids(
            segment_ids,
            num_bits=self.autoencoder.num_bits,
            method=self.id_assignment,
            y_edges=self.position_edges[0],
            x_edges=self.position_edges[1],
        )

    def decode(
        self, latents: Tensor, entries: Sequence[dict]
    ) -> list[tuple[Tensor, list[dict[str, Any]]]]:
        """``panoptic_seg`` of every sample, see :func:`logits_to_panoptic`.

        An entry's ``keep_ids`` are channels that no threshold deletes: given segments.
        """
        head_output = self.decode_latents(latents)
        return [
            decode_panoptic(self.autoencoder, one, entry, self.postprocess)
            for one, entry in zip(head_output, entries, strict=True)
        ]


def picture_logits(autoencoder: MaskAutoencoder, head_output: Tensor, entry: dict) -> Tensor:
    """Logits (2^num_bits, h, w) of one picture's ids without its padding.

    Args:
        autoencoder: expands the head's output to logits of ids.
        head_output: (*, S, S) of one picture, see ``MaskAutoencoder.decode``.
        entry: the picture's input dict, whose ``image`` or ``segment_ids`` says what of the square
            is not padding.
    """
    height, width = shown_size(entry)
    head_output = head_output[:, :height, :width].float()
    return autoencoder.id_logits(head_output.unsqueeze(0))[0]


def decode_panoptic(
    autoencoder: MaskAutoencoder, head_output: Tensor, entry: dict, postprocess: dict
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Panoptic map of one picture at its ``height`` x ``width`` from the decoder's output.

    Args:
        autoencoder, head_output, entry: see :func:`picture_logits`.
        postprocess: keyword arguments of ``logits_to_panoptic``.
    """
    logits = picture_logits(autoencoder, head_output, entry)
    return logits_to_panoptic(
        logits,
        (entry["height"], entry["width"]),
        keep_ids=entry.get("keep_ids", ()),
        keep_prior=entry.get("keep_prior"),
        **postprocess,
    )


def postprocess_arguments(cfg: CfgNode) -> dict:
    """Keyword arguments of ``logits_to_panoptic`` from ``cfg.MODEL.LDMSEG.POSTPROCESS``."""
    post = cfg.MODEL.LDMSEG.POSTPROCESS
    return {
        "mask_threshold": post.MASK_THRESHOLD,
        "overlap_threshold": post.OVERLAP_THRESHOLD,
        "count_threshold": post.COUNT_THRESHOLD,
        "min_segment_score": post.MIN_SEGMENT_SCORE,
        "min_segment_area": post.MIN_SEGMENT_AREA,
    }
