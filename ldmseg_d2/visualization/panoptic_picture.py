"""Draws panoptic maps over photos; every function returns a picture and writes no file."""

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from .color_overlay import overlay

# Multiples of the golden ratio, modulo 1, spread hues evenly however many there are.
GOLDEN_RATIO = (5**0.5 - 1) / 2
SATURATIONS, VALUES = (0.72, 0.95, 0.55), (0.98, 0.82)
MAX_COLORED_ID = 255


def segment_colors(ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Colours of N segment ids: (N, 3) uint8 RGB; each depends on its id alone."""
    colors = [
        colorsys.hsv_to_rgb(
            (i * GOLDEN_RATIO + 0.4) % 1.0,
            SATURATIONS[i % len(SATURATIONS)],
            VALUES[i // len(SATURATIONS) % len(VALUES)],
        )
        for i in map(int, ids)
    ]
    return np.round(255 * np.array(colors).reshape(-1, 3)).astype(np.uint8)


def align_ids(panoptic_seg: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Rename the segments of a map after those of another map that they overlap most.

    One to one, with the largest sum of IoUs; segments that overlap none get new ids. So two maps
    drawn show the same thing in the same colour: ground truth and prediction, or diffusion steps.
    Both are (H, W) integer ids, 0 is void; so is the result, the same partition as `panoptic_seg`.
    """
    labels, inverse, areas = np.unique(panoptic_seg, return_inverse=True, return_counts=True)
    names, columns, name_areas = np.unique(reference, return_inverse=True, return_counts=True)
    pairs = inverse.reshape(-1) * len(names) + columns.reshape(-1)
    overlap = np.bincount(pairs, minlength=len(labels) * len(names)).reshape(len(labels), -1)
    iou = overlap / (areas[:, None] + name_areas[None] - overlap)
    iou[labels == 0] = iou[:, names == 0] = 0
    new_ids = np.where(labels == 0, 0, names.max() + 1 + np.arange(len(labels)))
    for row, column in zip(*linear_sum_assignment(iou, maximize=True)):
        if iou[row, column] > 0:
            new_ids[row] = names[column]
    return new_ids[inverse].reshape(panoptic_seg.shape)


def draw_panoptic(
    image: np.ndarray,
    panoptic_seg: np.ndarray | torch.Tensor,
    segments_info: list[dict[str, Any]] | None = None,
    *,
    class_names: Sequence[str] | None = None,
    like: np.ndarray | torch.Tensor | None = None,
    scale: int = 1,
) -> np.ndarray:
    """Lay a panoptic map over a photo: a colour an id, outlines, void as dark stripes.

    Ids above 255, as data sets have them, are numbered first.

    Args:
        image: (H, W, 3) uint8 RGB.
        panoptic_seg: (H, W) integer ids, 0 is void.
        segments_info: of the model's output: ``id`` and ``category_id``, for the names.
        class_names: of the contiguous classes: with segments_info, and in pictures of at least
            200 px, names are written on the segments that have room for one.
        like: another map (H, W), such as the ground truth: segments get the colours of those that
            they overlap there, see :func:`align_ids`.
        scale: enlarges small pictures by this whole factor.

    Returns:
        (scale * H, scale * W, 3) uint8 RGB.
    """
    ids, like = (_to_array(one) for one in (panoptic_seg, panoptic_seg if like is None else like))
    if like.max() > MAX_COLORED_ID:  # a data set's: numbered, they get well separated hues
        like = np.where(like == 0, 0, np.searchsorted(np.unique(like[like != 0]), like) + 1)
    labels, first, regions = np.unique(ids, return_index=True, return_inverse=True)
    named = align_ids(ids, like)
    names = {}
    if class_names is not None and segments_info:
        names = {s["id"]: class_names[s["category_id"]] for s in segments_info}
    return overlay(
        image,
        regions.reshape(ids.shape),
        segment_colors(named.reshape(-1)[first]),
        void=labels == 0,
        names=[names.get(label) for label in labels.tolist()],
        alpha=0.6,
        scale=scale,
    )


def _to_array(ids: np.ndarray | torch.Tensor) -> np.ndarray:
    return torch.as_tensor(ids).cpu().numpy().astype(np.int64)
