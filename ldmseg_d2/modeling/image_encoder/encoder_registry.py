"""What an image encoder is, and the registry in which users put their own."""

import inspect
from typing import Any

from detectron2.utils.registry import Registry
from torch import nn

IMAGE_ENCODER_REGISTRY = Registry("IMAGE_ENCODER")
IMAGE_ENCODER_REGISTRY.__doc__ = """
Image encoders by name (``MODEL.LDMSEG.IMAGE_ENCODER.NAME``): subclasses of ImageEncoder, called
with ``out_channels`` and the keyword arguments in ``MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS``.
"""


class ImageEncoder(nn.Module):
    """Base class: photos (B, 3, S, S) to a condition (B, out_channels, S / stride, S / stride).

    Photos come normalised by ``MODEL.PIXEL_MEAN`` and ``PIXEL_STD``: in [-1, 1] by default. A
    condition whose grid is not the latent's is resized bilinearly. A subclass may say more:

    * ``backbone_names``: the children that ``MODEL.LDMSEG.IMAGE_ENCODER.FREEZE`` freezes, such as
      ``("backbone",)`` where a projection after it is always trained. Empty: the whole encoder.
    * ``needs_unit_range``: True where the photos must be in [-1, 1]; other statistics in the config
      then raise.
    * ``is_pretrained``: True where it has loaded weights; a warning tells of frozen random ones.
    * ``num_layers`` and :meth:`layer_of`: for ``SOLVER.IMAGE_ENCODER_LAYER_DECAY``.
    """

    backbone_names: tuple[str, ...] = ()
    needs_unit_range: bool = False
    is_pretrained: bool = False
    num_layers: int = 1

    def __init__(self, *, out_channels: int, stride: int) -> None:
        """`stride`: side of a cell of its grid, in pixels of the photo that the network sees."""
        super().__init__()
        self.out_channels = out_channels
        self.stride = stride

    def layer_of(self, parameter_name: str) -> int:
        """Layer of a parameter: 0, the nearest to the photo, to ``num_layers - 1``."""
        return 0


def build_image_encoder(name: str, *, out_channels: int, options: dict[str, Any]) -> ImageEncoder:
    """The encoder of that name with its options; ValueError: it, or one of them, is unknown."""
    if name not in IMAGE_ENCODER_REGISTRY:
        known = ", ".join(sorted(key for key, _ in IMAGE_ENCODER_REGISTRY))
        raise ValueError(f"MODEL.LDMSEG.IMAGE_ENCODER.NAME is {name!r}; known: {known}")
    encoder = IMAGE_ENCODER_REGISTRY.get(name)
    try:
        return encoder(out_channels=out_channels, **options)
    except TypeError as error:
        parameters = inspect.signature(encoder).parameters
        allowed = ", ".join(key.upper() for key in parameters if key != "out_channels")
        raise ValueError(
            f"MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS {sorted(map(str.upper, options))} do not fit "
            f"{name}: {error}. It takes {allowed}"
        ) from error
