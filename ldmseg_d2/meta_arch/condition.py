"""The image condition: an encoder's features, and what teaches their cells classes."""

import logging
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.modeling.postprocessing import sem_seg_postprocess
from torch import Tensor, nn
from torch.nn import functional as F

from ..modeling.class_head import CellHead
from ..modeling.image_encoder import ImageEncoder, build_image_encoder
from ..modeling.weights import load_into, load_weights
from .batching import pad_stack, shown_size
from .tasks import dataset_classes
from .tasks.classes import IGNORE_LABEL

logger = logging.getLogger(__name__)


class CellSupervision(nn.Module):
    """Teaches the image encoder the classes of its cells; the condition may hold what it sees."""

    def __init__(
        self,
        head: CellHead,
        *,
        loss_weight: float,
        probs_in_condition: bool = False,
        semantic_share: float = 0.0,
    ) -> None:
        """
        Args:
            head: classifies cells.
            loss_weight: of its cross-entropy.
            probs_in_condition: :meth:`extend` appends its probabilities.
            semantic_share: of its probabilities in those that :meth:`mix` gives, in [0, 1].
        """
        super().__init__()
        self.head = head
        self.loss_weight = loss_weight
        self.probs_in_condition = probs_in_condition
        self.semantic_share = semantic_share

    def extend(self, features: Tensor) -> Tensor:
        """The condition made of the image encoder's features (B, C', h, w).

        Returns:
            (B, C' + C n^2, h, w): the features, then, for each class, the probabilities of a cell's
            n x n parts, mapped to [-1, 1] as analog bits are; the features alone without
            ``probs_in_condition``. No gradient flows through them: the layer's own loss alone says
            what they are, and the denoiser cannot bend them to what it lacks.
        """
        if not self.probs_in_condition:
            return features
        with torch.no_grad():
            probs = self.head(features).float().softmax(dim=1)  # [B, C, n h, n w]
        cells = F.pixel_unshuffle(probs, self.head.subdivision)  # [B, C n^2, h, w]
        return torch.cat([features, (2 * cells - 1).to(features.dtype)], dim=1)

    def class_probs(
        self, features: Tensor, entry: dict, *, side: int, size: Sequence[int]
    ) -> Tensor:
        """The classes of one picture's pixels.

        Args:
            features: (C'', h, w) of the picture's square; further channels may follow.
            entry: its input dict.
            side: S of the square that the features cover, pixels.
            size: (H, W) of the result.

        Returns:
            (C, H, W) float32 probabilities, bilinear between the cells' parts.
        """
        logits = self.head(features[None, : self.head.in_channels]).float()
        logits = F.interpolate(logits, size=(side, side), mode="bilinear", align_corners=False)
        return sem_seg_postprocess(logits[0], shown_size(entry), *size).softmax(dim=0)

    def mix(self, sem_seg: Tensor, features: Tensor, entry: dict, *, side: int) -> Tensor:
        """The semantic task's map, averaged with the cells' classes: two classifiers of a photo.

        They err at different places: one knows outlines, the other has seen more photos where it
        was trained before (``IMAGE_ENCODER.WEIGHTS``).

        Args:
            sem_seg: (C + 1, H, W) probabilities, void first.
            features, entry, side: see :meth:`class_probs`.

        Returns:
            (C + 1, H, W) probabilities. The cells know no void: theirs is 0.
        """
        if self.semantic_share == 0:
            return sem_seg
        cells = self.class_probs(features, entry, side=side, size=sem_seg.shape[-2:])
        mixed = (1 - self.semantic_share) * sem_seg
        mixed[1:] += self.semantic_share * cells
        return mixed

    def losses(self, condition: Tensor, entries: Sequence[dict], size: int) -> dict[str, Tensor]:
        """The loss of a batch.

        Args:
            condition: (B, C'', h, w), the features first.
            entries: B input dicts; those without ``sem_seg`` teach nothing.
            size: side S of the square that the features cover, pixels.
        """
        maps = [
            entry.get("sem_seg", torch.full((1, 1), IGNORE_LABEL)).to(condition.device)
            for entry in entries
        ]
        classes = pad_stack(maps, size, IGNORE_LABEL)
        features = condition[:, : self.head.in_channels]
        return {"loss_cells": self.loss_weight * self.head.loss(features, classes)}


def build_condition_encoder(cfg: CfgNode) -> ImageEncoder:
    """The image encoder of ``MODEL.LDMSEG.IMAGE_ENCODER``.

    Raises:
        ValueError: unknown name or option, it needs photos in [-1, 1] and gets others, or
            ``IMAGE_ENCODER.WEIGHTS`` are not its own.
    """
    encoder = cfg.MODEL.LDMSEG.IMAGE_ENCODER
    built = build_image_encoder(
        encoder.NAME,
        out_channels=encoder.OUT_CHANNELS,
        options={key.lower(): value for key, value in encoder.OPTIONS.items()},
    )
    if built.needs_unit_range and {*cfg.MODEL.PIXEL_MEAN, *cfg.MODEL.PIXEL_STD} != {127.5}:
        raise ValueError(
            f"{encoder.NAME} needs photos in [-1, 1] and converts them itself: leave "
            f"MODEL.PIXEL_MEAN and PIXEL_STD at 127.5 (they are {cfg.MODEL.PIXEL_MEAN} and "
            f"{cfg.MODEL.PIXEL_STD})"
        )
    has_weights = built.is_pretrained or encoder.WEIGHTS or cfg.MODEL.WEIGHTS
    if encoder.FREEZE and not has_weights:
        logger.warning(
            "MODEL.LDMSEG.IMAGE_ENCODER: %s is frozen with random weights, and the checkpoints of "
            "a training leave frozen weights out: set its OPTIONS.PRETRAINED, its WEIGHTS, or "
            "MODEL.WEIGHTS to a file that has them",
            encoder.NAME,
        )
    _load_part(cfg, built, "image_encoder")
    return built


def build_supervision(cfg: CfgNode) -> CellSupervision | None:
    """What teaches the image encoder classes; None where ``CELL_LOSS_WEIGHT`` is 0.

    Raises:
        ValueError: the weight is negative, ``CELL_SHARE`` not in [0, 1], the semantic task is
            missing, ``CELL_PROBS`` or ``CELL_SHARE`` have no layer, or ``IMAGE_ENCODER.WEIGHTS``
            are not its own.
    """
    ldmseg = cfg.MODEL.LDMSEG
    key, encoder = "MODEL.LDMSEG.IMAGE_ENCODER.CELL_LOSS_WEIGHT", ldmseg.IMAGE_ENCODER
    weight, share = encoder.CELL_LOSS_WEIGHT, encoder.CELL_SHARE
    if not 0 <= share <= 1:
        raise ValueError(f"MODEL.LDMSEG.IMAGE_ENCODER.CELL_SHARE must be in [0, 1], got {share}")
    if weight < 0:
        raise ValueError(f"{key} must be at least 0, got {weight}")
    if weight == 0:
        for name in ("CELL_PROBS", "CELL_SHARE"):
            if encoder[name]:
                raise ValueError(
                    f"MODEL.LDMSEG.IMAGE_ENCODER.{name} needs the layer of CELL_LOSS_WEIGHT, which "
                    "is 0: set it to 1.0"
                )
        return None
    if "semantic" not in ldmseg.TASKS:
        raise ValueError(
            f"{key} {weight} needs 'semantic' in MODEL.LDMSEG.TASKS, which is {list(ldmseg.TASKS)}"
        )
    num_classes = dataset_classes(cfg).num_classes
    head = CellHead(
        in_channels=encoder.OUT_CHANNELS,
        num_classes=num_classes,
        subdivision=encoder.CELL_LOSS_SUBDIVISION,
    )
    supervision = CellSupervision(
        head,
        loss_weight=weight,
        probs_in_condition=encoder.CELL_PROBS,
        semantic_share=share,
    )
    _load_part(cfg, supervision, "supervision")
    return supervision


def condition_channels(cfg: CfgNode) -> int:
    """Channels of the image condition: the encoder's, and with ``CELL_PROBS`` those of classes."""
    encoder = cfg.MODEL.LDMSEG.IMAGE_ENCODER
    if not encoder.CELL_PROBS:
        return encoder.OUT_CHANNELS
    num_classes = dataset_classes(cfg).num_classes
    return encoder.OUT_CHANNELS + num_classes * encoder.CELL_LOSS_SUBDIVISION**2


def _load_part(cfg: CfgNode, module: nn.Module, name: str) -> None:
    """Load what ``IMAGE_ENCODER.WEIGHTS`` holds under a prefix, in place.

    Not where ``MODEL.WEIGHTS`` brings the same: all but what is frozen.
    """
    encoder = cfg.MODEL.LDMSEG.IMAGE_ENCODER
    if not encoder.WEIGHTS or (cfg.MODEL.WEIGHTS and not encoder.FREEZE):
        return
    source = f"MODEL.LDMSEG.IMAGE_ENCODER.WEIGHTS {encoder.WEIGHTS}"
    prefix = f"{name}."
    try:
        weights = load_weights(encoder.WEIGHTS)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"MODEL.LDMSEG.IMAGE_ENCODER.WEIGHTS: {error} Train the encoder before, by a config "
            "whose MODEL.META_ARCHITECTURE is LDMSegImageEncoder, or set the key to '' to start "
            "from what OPTIONS build"
        ) from error
    state = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    if not state:
        raise ValueError(
            f"{source}: no weights of {prefix}* in it. Give a checkpoint of LDMSegImageEncoder, or "
            "of an LDMSeg with the same MODEL.LDMSEG.IMAGE_ENCODER"
        )
    load_into(module, state, source=source)
