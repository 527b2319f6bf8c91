"""Stage 1 of the task "depth": trains and evaluates the depth autoencoder."""

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from ..modeling.depth_autoencoder import DepthAutoencoder
from ..modeling.depth_normalization import DepthNormalization
from .build import build_depth_autoencoder
from .tasks.depth import build_depth_normalization, masked_l1, resize_depth, stack_depth


@META_ARCH_REGISTRY.register()
class LDMSegDepthAutoencoder(nn.Module):
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
        super().__init__()
        self.autoencoder = autoencoder
        self.image_size = image_size
        self.train_size = train_size or image_size
        self.normalization = normalization
        # No network of this stage sees a photo; the buffer only tells the device.
        self.register_buffer("device_marker", torch.zeros(()), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        return {
            "autoencoder": build_depth_autoencoder(cfg),
            "image_size": cfg.INPUT.LDMSEG.IMAGE_SIZE,
            "normalization": build_depth_normalization(cfg),
            "train_size": cfg.INPUT.LDMSEG.TRAIN_SIZE,
        }

    @property
    def device(self) -> torch.device:
        return self.device_marker.device

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
        side = self.train_size if self.training else self.image_size
        depth, valid = stack_depth(batched_inputs, side, self.normalization, self.device)
        decoded = self.autoencoder(depth, valid)
        if self.training:
            return {"loss_depth": masked_l1(decoded, depth, valid)}
        return [
            {"depth": resize_depth(self.normalization.denormalize(one.float()), entry)}
            for one, entry in zip(decoded, batched_inputs, strict=True)
        ]
