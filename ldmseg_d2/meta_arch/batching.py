"""From Detectron2's list of dicts to tensors: what both meta-architectures do with their input."""

import copy
import logging
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.utils.logger import log_every_n_seconds
from torch import Tensor
from torch.nn import functional as F

from ..config import PADDINGS
from ..ids import assign_ids, keep_largest

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


class SampleRandomness:
    """What training draws for the samples of a batch.

    Where every input has a ``sample_seed``, each sample's numbers come from a generator of its
    own: they depend neither on how a batch is split over processes and micro-batches nor on what
    was drawn before. Inputs without the key share torch's global generator.
    """

    def __init__(self, batched_inputs: Sequence[dict], device: torch.device) -> None:
        """
        Args:
            batched_inputs: dicts, perhaps with ``sample_seed``, an int.
            device: where the numbers are drawn.
        """
        self.batch_size = len(batched_inputs)
        self.device = device
        self.generators: list[torch.Generator] | None = None
        if all("sample_seed" in entry for entry in batched_inputs):
            self.generators = [
                torch.Generator(device=device).manual_seed(entry["sample_seed"])
                for entry in batched_inputs
            ]

    def of_samples(self, indices: Sequence[int]) -> "SampleRandomness":
        """The same generators, of some samples of the batch."""
        part = copy.copy(self)
        part.batch_size = len(indices)
        if self.generators is not None:
            part.generators = [self.generators[index] for index in indices]
        return part

    def randn(self, *shape: int) -> Tensor:
        """(B, *shape) standard normal."""
        return self._draw(torch.randn, shape)

    def rand(self) -> Tensor:
        """(B,) uniform in [0, 1)."""
        return self._draw(torch.rand, ())

    def rand_map(self, height: int, width: int | None = None) -> Tensor:
        """(B, height, width or height) uniform in [0, 1)."""
        return self._draw(torch.rand, (height, width or height))

    def randint(self, high: int, *shape: int) -> Tensor:
        """(B, *shape) int64, uniform in 0..high - 1."""
        return self._draw(lambda size, **where: torch.randint(high, size, **where), shape)

    def assign_ids(self, segment_ids: Tensor, **kwargs: Any) -> Tensor:
        """:func:`ldmseg_d2.ids.assign_ids` of (B, H, W) maps, one per sample."""
        if self.generators is None:
            return assign_ids(segment_ids, **kwargs)
        pairs = zip(segment_ids, self.generators, strict=True)
        maps = [assign_ids(one.unsqueeze(0), generator=g, **kwargs) for one, g in pairs]
        return torch.cat(maps)

    def _draw(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        if self.generators is None:
            return draw((self.batch_size, *shape), device=self.device)
        return torch.stack(
            [draw(shape, generator=generator, device=self.device) for generator in self.generators]
        )


def check_padding(padding: str) -> str:
    """``padding`` as it is; ValueError unless it is one of ``PADDINGS``."""
    if padding not in PADDINGS:
        raise ValueError(
            f"MODEL.LDMSEG.IMAGE_ENCODER.PADDING is {padding!r}; allowed: {', '.join(PADDINGS)}"
        )
    return padding


def stack_images(
    batched_inputs: Sequence[dict], size: int, mean: Tensor, std: Tensor, *, padding: str = "mean"
) -> Tensor:
    """Normalise photos and pad them at the right and bottom to one square.

    Args:
        batched_inputs: dicts with ``image``, uint8 (3, h, w) RGB, h and w at most ``size``.
        size: side S of the square.
        mean, std: (3, 1, 1), in the photos' units.
        padding: one of ``PADDINGS``: the mean photo, or the photo's last column and row, repeated.

    Returns:
        (B, 3, S, S) float32.

    Raises:
        ValueError: a photo is larger than the square, or unknown padding.
    """
    check_padding(padding)
    images = []
    for entry in batched_inputs:
        image = entry["image"].to(mean.device)
        if max(image.shape[-2:]) > size:
            raise ValueError(
                f"{entry.get('file_name', 'image')}: the photo given to the model is "
                f"{tuple(image.shape[-2:])}, larger than INPUT.LDMSEG.IMAGE_SIZE {size}: resize it "
                "as PanopticDatasetMapper does"
            )
        image = (image - mean) / std
        if padding == "edge":
            height, width = image.shape[-2:]
            pad = (0, size - width, 0, size - height)
            images.append(F.pad(image.unsqueeze(0), pad, mode="replicate")[0])
        else:
            images.append(pad_to_square(image, size))
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


def spread_indices(num_steps: int, wanted: int) -> set[int]:
    """At most ``wanted`` step indices spread over 0..num_steps - 1, the last one among them."""
    if wanted <= 0:
        return set()
    return {round(i) for i in torch.linspace(num_steps - 1, 0, min(wanted, num_steps)).tolist()}
