"""Sizes of pictures, and pictures with titles in a grid."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torchvision.utils import make_grid

PAD = 6  # pixels between pictures


def enlarge(image: np.ndarray, scale: int) -> np.ndarray:
    """Enlarge a photo (H, W, 3) by a whole factor, smoothly."""
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def fit(image: np.ndarray, longest_side: int) -> np.ndarray:
    """Shrink a picture (H, W, 3) until its longer side is at most that; smaller ones stay."""
    factor = longest_side / max(image.shape[:2])
    if factor >= 1:
        return image
    size = [max(1, round(side * factor)) for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def grid(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[Sequence[str]] | None = None
) -> np.ndarray:
    """Put rows of (H, W, 3) uint8 pictures with titles on white, in cells of the largest's size.

    Rows may be shorter than others; titles are smaller where they would not fit.
    """
    num_columns = max(len(row) for row in rows)
    pictures = [picture for row in rows for picture in row]
    height, width = (max(p.shape[axis] for p in pictures) for axis in (0, 1))
    bar = 0 if titles is None else round(1.6 * _title_size(pictures))
    cells = torch.full((len(rows), num_columns, height + bar, width, 3), 255, dtype=torch.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            top, left = ((side - s) // 2 for side, s in zip((height, width), picture.shape))
            cell = cells[y, x, bar:][top : top + picture.shape[0], left : left + picture.shape[1]]
            cell.copy_(torch.tensor(picture))
            if titles is not None:
                text = _draw_title(titles[y][x], _title_size(pictures), (bar, width))
                cells[y, x, :bar] = torch.from_numpy(text)
    cells = cells.flatten(0, 1).permute(0, 3, 1, 2)
    return make_grid(cells, num_columns, PAD, pad_value=255).permute(1, 2, 0).contiguous().numpy()


def _title_size(pictures: Sequence[np.ndarray]) -> int:
    return int(np.clip(min(p.shape[1] for p in pictures) / 16, 11, 26))


def _draw_title(title: str, size: int, shape: tuple[int, int]) -> np.ndarray:
    bar = Image.new("RGB", shape[::-1], "white")
    while size > 7 and ImageFont.load_default(size).getlength(title) > bar.width:
        size -= 1
    middle, font = (bar.width // 2, bar.height // 2), ImageFont.load_default(size)
    ImageDraw.Draw(bar).text(middle, title, fill=(40, 40, 40), font=font, anchor="mm")
    return np.array(bar)
