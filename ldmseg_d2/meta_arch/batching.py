"""From Detectron2's list of dicts to tensors: what both meta-architectures do with their input."""

import logging
import zlib
from collections.abc import Sequence

import torch
from detectron2.utils.logger import log_every_n_seconds
from torch import Tensor
from torch.nn import functional as F

from ..structures import keep_largest

logger = logging.getLogger(__name__)


def image_generator(seed: int, image_id: int | str, device: torch.device) -> torch.Generator:
    """A generator for one image: its result depends on no other image, batch or process.

    Args:
        seed: ``cfg.SEED``, or the input dict's own ``seed``.
        image_id: the data set's id of the image.
        device: where the noise is drawn.
    """
    key = zlib.crc32(f"{seed}/{image_id}".encode())
    return torch.Generator(device=device).manual_seed(key)


def stack_images(batched_inputs: Sequence[dict], size: int, mean: Tensor, std: Tensor) -> Tensor:
    """Normalise photos and pad them at the right and bottom to one square.

    Args:
        batched_inputs: dicts with ``image``, uint8 (3, h, w) RGB, h and w at most ``size``.
        size: side S of the square.
        mean, std: (3, 1, 1), in the photos' units.

    Returns:
        (B, 3, S, S) float32; padding is 0, the mean photo.

    Raises:
        ValueError: a photo is larger than the square.
    """
    images = []
    for entry in batched_inputs:
        image = entry["image"].to(mean.device)
        if max(image.shape[-2:]) > size:
            raise ValueError(
                f"{entry.get('file_name', 'image')}: the photo given to the model is "
                f"{tuple(image.shape[-2:])}, larger than INPUT.LDMSEG.IMAGE_SIZE {size}: resize it "
                "as PanopticDatasetMapper does"
            )
        images.append(pad_to_square((image - mean) / std, size))
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
        maps.append(pad_to_square(ids, size))
    if dropped:
        log_every_n_seconds(
            logging.WARNING,
            f"{dropped} segments in {images} of {len(maps)} images became void: "
            f"MODEL.LDMSEG.NUM_BITS holds {max_segments} segments, the smallest give way",
            n=30,
            name=__name__,
        )
    return torch.stack(maps)


def pad_to_square(x: Tensor, size: int) -> Tensor:
    """Pad (..., h, w) with zeros at the right and bottom to (..., size, size)."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, size - width, 0, size - height))
