"""From Detectron2's list of dicts to tensors: what all meta-architectures do with their input."""

import logging
from collections.abc import Sequence

import torch
from detectron2.utils.logger import log_every_n_seconds
from torch import Tensor
from torch.nn import functional as F

from ..ids import keep_largest, pixel_areas
from ..modeling.depth_autoencoder import DepthNormalization


def stack_images(batched_inputs: Sequence[dict], size: int, mean: Tensor, std: Tensor) -> Tensor:
    """Normalise photos and pad them at the right and bottom to one square.

    Their last column and row are repeated: a model that learnt from crops, which seldom show an end
    of the photo, would take a flat colour there for an object.

    Args:
        batched_inputs: dicts with ``image``, uint8 (3, h, w) RGB, h and w at most ``size``.
        size: side S of the square.
        mean, std: (3, 1, 1), in the photos' units.

    Returns:
        (B, 3, S, S) float32.

    Raises:
        ValueError: a photo is larger than the square.
    """
    images = []
    for entry in batched_inputs:
        height, width = entry["image"].shape[-2:]
        if max(height, width) > size:
            raise ValueError(
                f"{entry.get('file_name', 'image')}: the photo given to the model is "
                f"{(height, width)}, larger than INPUT.LDMSEG.IMAGE_SIZE {size}: resize it as "
                "PanopticDatasetMapper does"
            )
        image = (entry["image"].to(mean.device) - mean) / std
        padding = (0, size - width, 0, size - height)
        images.append(F.pad(image.unsqueeze(0), padding, mode="replicate")[0])
    return torch.stack(images)


def stack_segment_ids(batched_inputs: Sequence[dict], size: int, max_segments: int) -> Tensor:
    """Pad segment ids with void to one square, and reduce them to what the bits can hold.

    Args:
        batched_inputs: dicts with ``segment_ids``, int64 (h, w), 0 is void.
        size: side S of the square.
        max_segments: 2^num_bits - 1; the smallest segments above become void, with a warning.

    Returns:
        (B, S, S) int64 on the CPU, consecutive ids 1..K in each map.

    Raises:
        KeyError: an input has no segment ids.
    """
    maps, dropped, images = [], 0, 0
    for entry in batched_inputs:
        if "segment_ids" not in entry:
            raise KeyError(
                f"{entry.get('file_name', 'image')}: the model needs 'segment_ids' here; at test "
                "they are loaded where INPUT.LDMSEG.ANNOTATIONS_AT_TEST is True"
            )
        ids, excess = keep_largest(entry["segment_ids"].cpu(), max_segments)
        dropped += excess
        images += excess > 0
        maps.append(ids)
    if dropped:
        log_every_n_seconds(
            logging.WARNING,
            f"{dropped} segments in {images} of {len(maps)} images became void: "
            f"MODEL.LDMSEG.NUM_BITS holds {max_segments} segments, the smallest give way",
            n=30,
            name=__name__,
        )
    return pad_stack(maps, size, 0)


def pad_stack(maps: Sequence[Tensor], size: int, value: float) -> Tensor:
    """Stack maps (h, w), h and w at most ``size``, padded with ``value`` to (N, size, size)."""
    stacked = maps[0].new_full((len(maps), size, size), value)
    for one, padded in zip(maps, stacked, strict=True):
        padded[: one.shape[0], : one.shape[1]] = one
    return stacked


def pool_valid(valid: Tensor, size: int) -> Tensor:
    """Latent cells of which at least half of the pixels are valid.

    Args:
        valid: (N, S, S) bool.
        size: side h of the latents, a divisor of S.

    Returns:
        (N, 1, h, h) bool.
    """
    return F.avg_pool2d(valid.float().unsqueeze(1), valid.shape[-1] // size) >= 0.5


def shown_size(entry: dict) -> tuple[int, int]:
    """(h, w) of a picture in the networks' square; the rest is padding at the right and bottom."""
    for key in ("image", "segment_ids", "depth"):
        if key in entry:
            return tuple(entry[key].shape[-2:])
    raise KeyError("an input needs 'image', or the annotation that is reconstructed")


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


def resize_shown(values: Tensor, entry: dict) -> Tensor:
    """A map (S, S) without its padding, bilinearly at a picture's ``height`` x ``width``."""
    height, width = shown_size(entry)
    size = entry["height"], entry["width"]
    shown = values[None, None, :height, :width]
    return F.interpolate(shown, size=size, mode="bilinear", align_corners=False)[0, 0]
