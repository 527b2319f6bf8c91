"""Decodes uploaded pictures without trusting them: few formats, limited bytes, pixels and sides."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from ..data.annotations import join_bytes

# Much used decoders only: no vector formats, no layered documents, no video containers.
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")


class UploadError(ValueError):
    """A file that is not taken; the message is for the user and says what would be."""


@dataclass(frozen=True)
class Limits:
    """What an upload may cost.

    Attributes:
        max_bytes: of one file.
        max_pixels: of a picture, by its header: nothing is decoded above it.
        max_side: photos with a longer side, in pixels, are reduced to it.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000
    max_side: int = 2048


def check_bytes(data: bytes, name: str, limits: Limits) -> None:
    """Raises UploadError for an empty file, or one with more than ``limits.max_bytes``."""
    if not data:
        raise UploadError(f"{name} is empty.")
    if len(data) > limits.max_bytes:
        raise UploadError(too_many_bytes(name, len(data), limits))


def too_many_bytes(name: str, num_bytes: int, limits: Limits) -> str:
    """What to say of a file that is too large."""
    return (
        f"{name} has {num_bytes / 2**20:.1f} MB; at most {limits.max_bytes / 2**20:g} MB are "
        "taken. Save it smaller, or start the page with a larger --max-upload-mb."
    )


def decode_photo(data: bytes, name: str, limits: Limits) -> tuple[np.ndarray, str]:
    """Decode an uploaded photo.

    It is turned upright by its EXIF orientation; transparent parts become white, of an animation
    the first frame counts, and 16 bits a channel become 8.

    Args:
        data: the file's bytes.
        name: how the user knows it, for messages.
        limits: what is too much.

    Returns:
        (H, W, 3) uint8 RGB, neither side longer than ``limits.max_side``; and a sentence for the
        user where it was reduced to that, else "".

    Raises:
        UploadError: too many bytes or pixels, another format, or damaged.
    """
    with _decoding(data, name, PHOTO_FORMATS, limits) as image:
        photo = _to_rgb(ImageOps.exif_transpose(image))
    longest = max(photo.size)
    if longest <= limits.max_side:
        return np.array(photo), ""
    size = tuple(max(1, round(side * limits.max_side / longest)) for side in photo.size)
    note = (
        f"It was reduced from {photo.width} x {photo.height} to {size[0]} x {size[1]} pixels; its "
        "segments will be saved at that size, together with the reduced photo."
    )
    return np.array(photo.resize(size, Image.Resampling.LANCZOS)), note


def decode_id_png(data: bytes, name: str, limits: Limits) -> np.ndarray:
    """Decode an uploaded COCO panoptic PNG, id = R + 256 G + 65536 B.

    Args:
        data, name, limits: see :func:`decode_photo`; it is never reduced.

    Returns:
        (H, W) int32 ids, 0 is void.

    Raises:
        UploadError: as :func:`decode_photo`, or not an RGB PNG.
    """
    with _decoding(data, name, ("PNG",), limits) as image:
        if image.mode != "RGB":
            raise UploadError(
                f"{name} is no panoptic PNG: its PIL mode is {image.mode!r}, expected 'RGB' with "
                "id = R + 256 G + 65536 B."
            )
        return join_bytes(np.asarray(image))


def decode_mask_png(data: bytes, name: str, limits: Limits) -> np.ndarray:
    """Decode a PNG as a mask: (H, W) bool, true where it is not black; errors as above."""
    with _decoding(data, name, ("PNG",), limits) as image:
        return np.asarray(image.convert("L")) > 0


@contextmanager
def _decoding(
    data: bytes, name: str, formats: tuple[str, ...], limits: Limits
) -> Iterator[Image.Image]:
    """The picture, its size checked before a pixel is decoded; other errors become UploadError."""
    check_bytes(data, name, limits)
    try:
        with warnings.catch_warnings():
            # PIL's own limit only warns below twice its value; ours, on the header, comes first.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=formats) as image:
                width, height = image.size
                if width * height > limits.max_pixels:
                    raise Image.DecompressionBombError
                image.load()
                yield image
    except UploadError:
        raise
    except Image.DecompressionBombError as error:
        raise UploadError(
            f"{name} has too many pixels; at most {limits.max_pixels / 1e6:g} megapixels are taken."
        ) from error
    # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
    except Exception as error:
        raise UploadError(
            f"{name} cannot be read as {' or '.join(formats)}: it is damaged, or of another type."
        ) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # PIL clips 16 bits at 255 instead of scaling them.
        values = np.asarray(image).astype(np.float64) / 257
        return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
