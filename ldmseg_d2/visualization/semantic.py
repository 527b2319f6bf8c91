"""Draws maps of classes over photos; every function returns a picture and writes no file."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from .layout import font
from .overlay import overlay
from .panoptic import segment_colors

IGNORE_LABEL = 255
# The class of its pixels, of their own colours, is what a map of classes says: little photo.
ALPHA = 0.7


def class_colors(num_classes: int, colors: Sequence[Sequence[int]] | None = None) -> np.ndarray:
    """The colours of classes.

    Args:
        num_classes: C.
        colors: RGB of each class, 0..255, such as the ``stuff_colors`` of a data set's metadata;
            None, or too few: colours that depend on the class' number alone.

    Returns:
        (C, 3) uint8.
    """
    if colors is not None and len(colors) >= num_classes:
        return np.array(colors[:num_classes], dtype=np.uint8).reshape(num_classes, 3)
    return segment_colors(np.arange(1, num_classes + 1))


def class_map(sem_seg: np.ndarray | torch.Tensor) -> np.ndarray:
    """The class of each pixel.

    Args:
        sem_seg: (C, H, W) scores, or (H, W) integers, which are returned as they are.

    Returns:
        (H, W) int64; 255, no class, where all scores are equal or one is not a number.
    """
    maps = torch.as_tensor(sem_seg).detach().cpu()
    if maps.ndim == 2:
        return maps.numpy().astype(np.int64)
    maps = maps.float()
    unknown = (maps.amax(0) == maps.amin(0)) if len(maps) > 1 else torch.zeros_like(maps[0] > 0)
    unknown = unknown | maps.isnan().any(0)
    return maps.argmax(0).where(~unknown, torch.tensor(IGNORE_LABEL)).numpy()


def draw_semantic(
    image: np.ndarray,
    sem_seg: np.ndarray | torch.Tensor,
    *,
    class_names: Sequence[str] | None = None,
    colors: Sequence[Sequence[int]] | None = None,
    alpha: float = ALPHA,
    draw_boundaries: bool = True,
    scale: int = 1,
) -> np.ndarray:
    """Lay a map of classes over a photo: a colour a class, outlines, void as dark stripes.

    Args:
        image: (H, W, 3) uint8 RGB.
        sem_seg: (C, H, W) class scores, of which the largest wins; or (H, W) contiguous classes,
            where 255 and negative numbers are void.
        class_names: name of each class, written once a class, in pictures of at least 200 px, where
            there is room for it.
        colors: see :func:`class_colors`.
        alpha: opacity of the colours, 0 (photo) to 1 (colours alone).
        draw_boundaries: draw white outlines between classes.
        scale: enlarges small pictures by this whole factor.

    Returns:
        (scale * H, scale * W, 3) uint8 RGB.

    Raises:
        ValueError: if the sizes of photo and map differ, or alpha or scale is out of range.
    """
    classes = class_map(sem_seg)
    if image.shape != (*classes.shape, 3) or image.dtype != np.uint8:
        raise ValueError(
            f"photo {image.shape} {image.dtype} and map of classes {classes.shape} do not belong "
            "together; expected (H, W, 3) uint8 and (H, W) or (C, H, W)"
        )
    labels, regions = np.unique(classes, return_inverse=True)
    void = (labels < 0) | (labels == IGNORE_LABEL)
    used = np.where(void, 0, labels)
    names = [None] * len(labels)
    if class_names is not None:
        names = [
            None if is_void or label >= len(class_names) else class_names[label]
            for label, is_void in zip(used.tolist(), void)
        ]
    return overlay(
        image,
        regions.reshape(classes.shape),
        class_colors(max(int(used.max()) + 1, len(class_names or ())), colors)[used],
        void=void,
        names=names,
        alpha=alpha,
        draw_boundaries=draw_boundaries,
        scale=scale,
    )


def draw_legend(
    names: Sequence[str], colors: Sequence[Sequence[int]] | np.ndarray, *, height: int, width: int
) -> np.ndarray:
    """Names beside patches of their colours, in as many columns as needed; what fits is shown.

    Args:
        names: one a colour.
        colors: RGB, 0..255.
        height, width: of the picture, pixels.

    Returns:
        (height, width, 3) uint8, on white.
    """
    canvas = Image.new("RGB", (width, height), (255, 255, 255))
    if not names:
        return np.asarray(canvas)
    draw = ImageDraw.Draw(canvas)
    size = int(np.clip(min(height, width) / 18, 10, 24))
    line = round(1.5 * size)
    rows = max(1, (height - size) // line)
    widest = max(font(size).getlength(name) for name in names) + 2.2 * size
    for number, (name, color) in enumerate(zip(names, colors, strict=True)):
        column, row = divmod(number, rows)
        x, y = size // 2 + column * widest, size // 2 + row * line
        if column and x + widest > width:
            break
        draw.rectangle((x, y, x + size, y + size), fill=tuple(int(c) for c in color))
        draw.text((x + 1.5 * size, y + size / 2), name, (40, 40, 40), font(size), anchor="lm")
    return np.asarray(canvas)
