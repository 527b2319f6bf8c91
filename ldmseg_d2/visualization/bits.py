"""Shows what the networks see: analog bits and latents."""

import math

import numpy as np
import torch

from .layout import grid


def draw_bits(bits: torch.Tensor, *, scale: int = 1) -> np.ndarray:
    """Show the analog bits of an id map as grey pictures, the least significant bit first.

    Args:
        bits: (N, H, W) in -1..1; -1 is black, 1 white, and void (0) grey.
        scale: whole factor of enlargement.

    Returns:
        (H', W', 3) uint8: the N pictures on light grey, in at most 4 columns.

    Raises:
        ValueError: for another number of dimensions.
    """
    if bits.ndim != 3:
        raise ValueError(f"expected bits (N, H, W), got {tuple(bits.shape)}")
    grey = ((bits.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    pictures = [_to_rgb(channel.numpy()[..., None].repeat(3, 2), scale) for channel in grey]
    # Void has the middle grey; the frame is lighter, so that neither is taken for the other.
    num_columns = math.ceil(len(pictures) / math.ceil(len(pictures) / 4))
    rows = [pictures[i : i + num_columns] for i in range(0, len(pictures), num_columns)]
    return grid(rows, background=190)


def draw_latents(latents: torch.Tensor, *, scale: int = 1) -> np.ndarray:
    """Show the first three channels of a latent as red, green and blue.

    Args:
        latents: (C, h, w) of any range; each channel is stretched from its 1st to its 99th
            percentile. With fewer than three channels the last one is repeated.
        scale: whole factor of enlargement.

    Returns:
        (scale * h, scale * w, 3) uint8.

    Raises:
        ValueError: for another number of dimensions, or no channel.
    """
    if latents.ndim != 3 or latents.shape[0] == 0:
        raise ValueError(f"expected latents (C >= 1, h, w), got {tuple(latents.shape)}")
    channels = [min(c, latents.shape[0] - 1) for c in range(3)]
    values = latents.detach().float().cpu()[channels].numpy()
    low, high = np.percentile(values, [1, 99], axis=(1, 2), keepdims=True)
    unit = np.clip((values - low) / np.maximum(high - low, 1e-8), 0, 1)
    return _to_rgb(np.round(255 * unit).astype(np.uint8).transpose(1, 2, 0), scale)


def _to_rgb(picture: np.ndarray, scale: int) -> np.ndarray:
    # Nearest: a cell of a latent, or a pixel of a mask, is shown as what it is.
    return np.ascontiguousarray(picture.repeat(scale, axis=0).repeat(scale, axis=1))
