"""Reads uploaded pictures and zips without trusting them: few formats, limited bytes and pixels."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

# Much used decoders only.
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
# Of a picture, by its header: nothing is decoded above it.
MAX_PIXELS = 50_000_000
MAX_FILES = 16


class UploadError(ValueError):
    """A file that is not taken; the message is for the user and says what would be."""


@dataclass(frozen=True)
class Limits:
    """What one file may cost, also one in a zip; a photo is reduced to ``max_side`` pixels."""

    max_bytes: int = 20 * 2**20
    max_side: int = 2048

    def check(self, num_bytes: int, name: str) -> None:
        """Raises UploadError for a file with more than ``max_bytes``."""
        if num_bytes > self.max_bytes:
            raise UploadError(
                f"{name} has {num_bytes / 2**20:.1f} MB; at most {self.max_bytes / 2**20:g} MB are "
                "taken. Save it smaller, or start the page with a larger --max-upload-mb."
            )


def decode_photo(data: bytes, name: str, limits: Limits) -> tuple[np.ndarray, str]:
    """An uploaded photo as (H, W, 3) uint8 RGB: upright, transparent parts white.

    Returns it with a sentence for the user where it was reduced to ``limits.max_side``, else "".
    UploadError, which starts with `name`: too many bytes or pixels, another format, or damaged.
    """
    limits.check(len(data), name)
    photo = _decode(data, name, PHOTO_FORMATS)
    if photo.mode.startswith("I"):
        # PIL clips 16 bits at 255 instead of scaling them.
        photo = Image.fromarray((np.asarray(photo) / 257).clip(0, 255).astype(np.uint8))
    if photo.has_transparency_data:
        photo = photo.convert("RGBA")
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
    photo = photo.convert("RGB")
    width, height = photo.size
    if max(width, height) <= limits.max_side:
        return np.array(photo), ""
    photo.thumbnail((limits.max_side, limits.max_side), Image.Resampling.LANCZOS)
    note = (
        f"It was reduced from {width} x {height} to {photo.width} x {photo.height} pixels; its "
        "segments will be saved at that size, together with the reduced photo."
    )
    return np.array(photo), note


def decode_png(data: bytes, name: str, mode: str) -> np.ndarray:
    """A PNG's bytes: (H, W, 3) uint8 of mode "RGB", (H, W) of "L"; errors as above."""
    image = _decode(data, name, ("PNG",))
    if image.mode != mode:
        raise UploadError(f"{name} has PIL mode {image.mode!r}; a saved one has {mode!r}.")
    return np.asarray(image)


def _decode(data: bytes, name: str, formats: Sequence[str]) -> Image.Image:
    """The picture, upright, its size checked before a pixel is decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            return ImageOps.exif_transpose(image)
    except Image.DecompressionBombError as error:
        raise UploadError(
            f"{name} has too many pixels; at most {MAX_PIXELS / 1e6:g} megapixels are taken."
        ) from error
    # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
    except Exception as error:
        raise UploadError(
            f"{name} cannot be read as {' or '.join(formats)}: it is damaged, or of another type."
        ) from error


def unpack_zip(data: bytes, name: str, limits: Limits) -> dict[str, bytes]:
    """The files of a zip by name, in memory: no path in it is ever used as a path here."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            if len(members) > MAX_FILES:
                raise UploadError(
                    f"{name} holds {len(members)} files; a saved annotation has four. Of a whole "
                    "data set, load one JSON and PNG."
                )
            for member in members:  # zipfile reads no more than the size that a member declares
                limits.check(member.file_size, f"{member.filename} in {name}")
            return {m.filename: archive.read(m) for m in members}
    except UploadError:
        raise
    # BadZipFile, zlib.error, NotImplementedError, RuntimeError (encrypted), ...
    except Exception as error:
        raise UploadError(f"{name} cannot be read as a zip: {error}") from error
