"""What encoders around a pretrained backbone share: photo statistics and the trained projection."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..latent_autoencoder import ChannelLayerNorm


class PhotoStatistics(nn.Module):
    """From photos in [-1, 1] to the statistics that a backbone was trained with."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """
        Args:
            mean, std: of R, G and B for photos in [0, 1], such as ImageNet's.
        """
        super().__init__()
        # Constants: not in the checkpoint.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to the same, normalised."""
        return ((images + 1) / 2 - self.mean) / self.std


class Projection(nn.Sequential):
    """LayerNorm over the channels, then a linear map of each cell, on (B, C, h, w)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(ChannelLayerNorm(in_channels), nn.Conv2d(in_channels, out_channels, 1))


def resize_photos(images: Tensor, height: int, width: int) -> Tensor:
    """Resize photos bilinearly, with antialiasing where they become smaller."""
    if images.shape[-2:] == (height, width):
        return images
    return F.interpolate(
        images, size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )
