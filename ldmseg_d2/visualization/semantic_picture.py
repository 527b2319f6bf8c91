"""Draws maps of classes over photos; every function returns a picture and writes no file."""

from collections.abc import Sequence

import numpy as np
import torch

from .color_overlay import overlay
from .panoptic_picture import segment_colors

IGNORE_LABEL = 255


def class_map(sem_seg: np.ndarray | torch.Tensor) -> np.ndarray:
    """The class of each pixel, (H, W) int64, from scores (C, H, W); integers (H, W) stay.

    255, no class, where one score is not a number, and where none of several probabilities (they
    sum to 1 less void's) is as large as void's.
    """
    scores = torch.as_tensor(sem_seg).detach().cpu()
    if scores.ndim == 2:
        return scores.numpy().astype(np.int64)
    void, scores = scores.isnan().any(0), scores.float().nan_to_num()
    total = scores.sum(0)
    if float(scores.min()) >= 0 and float(total.max()) <= 1 + 1e-3:
        void |= 1 - total > scores.amax(0)
    return scores.argmax(0).masked_fill(void, IGNORE_LABEL).numpy()


def draw_semantic(
    image: np.ndarray,
    sem_seg: np.ndarray | torch.Tensor,
    *,
    class_names: Sequence[str] | None = None,
    colors: Sequence[Sequence[int]] | None = None,
    scale: int = 1,
) -> np.ndarray:
    """Lay a map of classes over a photo: a colour a class, outlines, void as dark stripes.

    As :func:`~ldmseg_d2.visualization.draw_panoptic`, for :func:`class_map` of ``sem_seg``; 255 and
    negative numbers are void. ``colors`` are RGB of each class, such as the ``stuff_colors`` of a
    data set's metadata; None, or too few: they depend on the class' number alone.
    """
    classes = class_map(sem_seg)
    labels, regions = np.unique(classes, return_inverse=True)
    void = (labels < 0) | (labels == IGNORE_LABEL)
    used = np.where(void, 0, labels)
    if colors is not None and len(colors) > used.max():
        palette = np.array(colors, dtype=np.uint8)[used]
    else:
        palette = segment_colors(used + 1)
    names = dict(enumerate(class_names or ()))
    return overlay(
        image,
        regions.reshape(classes.shape),
        palette,
        void=void,
        names=[None if empty else names.get(k) for k, empty in zip(used.tolist(), void)],
        alpha=0.7,
        scale=scale,
    )
