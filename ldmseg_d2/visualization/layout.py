"""Puts pictures beside and below each other; every function returns a picture."""

import functools
import os
from collections.abc import Sequence

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_BACKGROUND = 255
_TEXT = (40, 40, 40)


@functools.lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib ships this font, so that titles look the same on every machine.
    path = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(path, size)


def add_title(image: np.ndarray, title: str, *, size: int = 14) -> np.ndarray:
    """Write a line of text above a picture, smaller where it would not fit.

    Args:
        image: (H, W, 3) uint8.
        title: one line.
        size: height of the font in pixels.

    Returns:
        (H + about 1.6 * size, W, 3) uint8.
    """
    bar = Image.new("RGB", (image.shape[1], round(1.6 * size)), (_BACKGROUND,) * 3)
    while size > 7 and font(size).getlength(title) > image.shape[1]:
        size -= 1
    middle = (bar.width // 2, bar.height // 2)
    ImageDraw.Draw(bar).text(middle, title, fill=_TEXT, font=font(size), anchor="mm")
    return np.concatenate([np.asarray(bar), image])


def shrink(image: np.ndarray, max_width: int) -> np.ndarray:
    """A wider picture (H, W, 3) uint8 becomes ``max_width`` wide; others stay as they are."""
    if image.shape[1] <= max_width:
        return image
    size = (max_width, max(1, round(image.shape[0] * max_width / image.shape[1])))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def side_by_side(
    images: Sequence[np.ndarray], titles: Sequence[str] | None = None, *, pad: int = 6
) -> np.ndarray:
    """Put pictures into a row; smaller ones are centred in height on white.

    Args:
        images: (H, W, 3) uint8 each; at least one.
        titles: one text a picture.
        pad: pixels between pictures and around the row.

    Returns:
        (H', W', 3) uint8.

    Raises:
        ValueError: without pictures, with something else, or with another number of titles.
    """
    return grid([images], [titles] if titles is not None else None, pad=pad)


def grid(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[Sequence[str]] | None = None,
    *,
    pad: int = 6,
    background: int = _BACKGROUND,
) -> np.ndarray:
    """Put rows of pictures below each other, in columns as wide as their widest picture.

    Args:
        rows: rows of (H, W, 3) uint8 pictures; rows may be shorter than others.
        titles: rows of texts above the pictures.
        pad: pixels between pictures and around the whole.
        background: grey value between the pictures, 0..255.

    Returns:
        (H', W', 3) uint8.

    Raises:
        ValueError: as :func:`side_by_side`.
    """
    cells = [list(row) for row in rows]
    if not cells or not all(cells):
        raise ValueError("nothing to lay out: give at least one picture a row")
    for image in (image for row in cells for image in row):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"expected (H, W, 3) uint8 pictures, got {image.shape} {image.dtype}")
    if titles is not None:
        if [len(row) for row in titles] != [len(row) for row in cells]:
            raise ValueError("give as many titles as pictures in every row")
        size = int(np.clip(min(c.shape[1] for row in cells for c in row) / 16, 11, 26))
        cells = [
            [add_title(image, title, size=size) for image, title in zip(row, row_titles)]
            for row, row_titles in zip(cells, titles)
        ]
    num_columns = max(len(row) for row in cells)
    widths = [max(r[c].shape[1] for r in cells if c < len(r)) for c in range(num_columns)]
    heights = [max(cell.shape[0] for cell in row) for row in cells]
    canvas_shape = (sum(heights) + pad * (len(cells) + 1), sum(widths) + pad * (num_columns + 1), 3)
    canvas = np.full(canvas_shape, background, dtype=np.uint8)
    y = pad
    for row, height in zip(cells, heights):
        x = pad
        for cell, width in zip(row, widths):
            top, left = y + (height - cell.shape[0]) // 2, x + (width - cell.shape[1]) // 2
            canvas[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
            x += width + pad
        y += height + pad
    return canvas


def denoising_strip(
    frames: Sequence[np.ndarray], timesteps: Sequence[int], *, pad: int = 6
) -> np.ndarray:
    """Put the steps of a diffusion into a row, each with its timestep above it.

    Args:
        frames: (H, W, 3) uint8 pictures, in the order of sampling.
        timesteps: the timestep of each frame, from T - 1 (noise) down to 0.
        pad: pixels between frames.

    Returns:
        (H', W', 3) uint8.
    """
    return side_by_side(frames, [f"t = {t}" for t in timesteps], pad=pad)


def fit(image: np.ndarray, longest_side: int) -> np.ndarray:
    """Shrink a picture until its longer side is at most `longest_side`; smaller ones stay.

    Args:
        image: (H, W, 3) uint8.
        longest_side: pixels.

    Returns:
        (H', W', 3) uint8.
    """
    factor = longest_side / max(image.shape[:2])
    if factor >= 1:
        return image
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
