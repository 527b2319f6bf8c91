"""Before stage 2: the meta-architecture that teaches an image encoder the classes of its cells."""

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from ..modeling.image_encoder import ImageEncoder
from .batching import check_padding, stack_images
from .build import pixel_statistics
from .condition import CellSupervision, build_condition_encoder, build_supervision


@META_ARCH_REGISTRY.register()
class LDMSegImageEncoder(nn.Module):
    """Trains LDMSeg's image encoder without its denoiser; at test a semantic map from its cells.

    An iteration takes a small part of LDMSeg's, so that an encoder with random weights sees many
    more photos in the same time. ``MODEL.LDMSEG.IMAGE_ENCODER.WEIGHTS`` of an LDMSeg with the same
    ``IMAGE_ENCODER`` takes the checkpoint; the names of the parameters are those of LDMSeg.
    """

    @configurable
    def __init__(
        self,
        *,
        image_encoder: ImageEncoder,
        supervision: CellSupervision,
        image_size: int,
        train_size: int = 0,
        padding: str = "mean",
        pixel_mean: list[float],
        pixel_std: list[float],
    ) -> None:
        """
        Args:
            image_encoder: photo to condition.
            supervision: its loss.
            image_size: side S of the square that the encoder sees, pixels.
            train_size: the square's side in training; 0: ``image_size``.
            padding: see :func:`stack_images`.
            pixel_mean, pixel_std: of the photo's R, G, B.
        """
        super().__init__()
        self.image_encoder = image_encoder
        self.supervision = supervision
        self.image_size = image_size
        self.train_size = train_size or image_size
        self.padding = check_padding(padding)
        mean, std = pixel_statistics(pixel_mean, pixel_std)
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        supervision = build_supervision(cfg)
        if supervision is None:
            raise ValueError(
                "LDMSegImageEncoder learns by MODEL.LDMSEG.IMAGE_ENCODER.CELL_LOSS_WEIGHT, which "
                "is 0: set it to 1.0"
            )
        return {
            "image_encoder": build_condition_encoder(cfg),
            "supervision": supervision,
            "image_size": cfg.INPUT.LDMSEG.IMAGE_SIZE,
            "train_size": cfg.INPUT.LDMSEG.TRAIN_SIZE,
            "padding": cfg.MODEL.LDMSEG.IMAGE_ENCODER.PADDING,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: a list of dicts, one per picture, with

                * ``image``: uint8 (3, h, w) RGB, h and w at most ``image_size`` (``train_size``);
                * ``sem_seg``: int64 (h, w), 255 is void (in training; without it a picture teaches
                  nothing);
                * ``height``, ``width``: size of the result (at test).

        Returns:
            Training: ``loss_cells``, a scalar. Test: a list of dicts with ``sem_seg``, (C, H, W)
            probabilities.
        """
        side = self.train_size if self.training else self.image_size
        images = stack_images(
            batched_inputs, side, self.pixel_mean, self.pixel_std, padding=self.padding
        )
        features = self.image_encoder(images)  # [B, C', h, w]
        if self.training:
            return self.supervision.losses(features, batched_inputs, side)
        return [
            {
                "sem_seg": self.supervision.class_probs(
                    one, entry, side=side, size=(entry["height"], entry["width"])
                )
            }
            for one, entry in zip(features, batched_inputs, strict=True)
        ]
