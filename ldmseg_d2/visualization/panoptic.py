"""Draws panoptic maps over photos; every function returns a picture and writes no file."""

import colorsys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch

from .overlay import VOID_STRIPES, overlay

# Multiples of the golden ratio, modulo 1, spread hues evenly however many there are.
_GOLDEN_RATIO = (5**0.5 - 1) / 2
_SATURATIONS = (0.72, 0.95, 0.55)
_VALUES = (0.98, 0.82)
# Neighbours closer than this (distance in CIE L*a*b*) are hard to tell apart under a photo.
_MIN_CONTRAST = 55.0
# And segments that do not touch, closer than this.
_MIN_DIFFERENCE = 25.0
_MAX_SHIFTS = 64


def segment_colors(ids: Sequence[int] | np.ndarray, seed: int = 0) -> np.ndarray:
    """Colours of segment ids: consecutive ids get well separated hues.

    A colour depends on the id and the seed alone, so that an id keeps it from picture to picture.

    Args:
        ids: N integers >= 0; 0 is void and nearly black.
        seed: another seed gives other hues.

    Returns:
        (N, 3) uint8 RGB.

    Example:
        >>> segment_colors([0, 1]).shape
        (2, 3)
    """
    colors = np.zeros((len(ids), 3), dtype=np.uint8)
    for row, segment_id in enumerate(int(i) for i in ids):
        if segment_id == 0:
            colors[row] = VOID_STRIPES[0]
            continue
        hue = ((segment_id + 7 * seed) * _GOLDEN_RATIO + 0.4) % 1.0
        saturation = _SATURATIONS[segment_id % len(_SATURATIONS)]
        value = _VALUES[segment_id // len(_SATURATIONS) % len(_VALUES)]
        colors[row] = np.round(255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value)))
    return colors


def align_ids(panoptic_seg: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Rename the segments of a map after those of another map that they overlap most.

    Two maps drawn with aligned ids show the same thing in the same colour: ground truth and
    prediction, or the steps of a diffusion. Each id of the reference is given once, to the segment
    with the largest IoU; the rest get new ids.

    Args:
        panoptic_seg: (H, W) integer ids, 0 is void.
        reference: (H, W) integer ids, 0 is void.

    Returns:
        (H, W) int64: the same partition as `panoptic_seg`.

    Raises:
        ValueError: if the shapes differ.
    """
    if panoptic_seg.shape != reference.shape:
        raise ValueError(f"maps of {panoptic_seg.shape} and {reference.shape} cannot be aligned")
    labels, inverse, areas = np.unique(panoptic_seg, return_inverse=True, return_counts=True)
    names, columns, name_areas = np.unique(reference, return_inverse=True, return_counts=True)
    overlap = np.bincount(
        inverse.reshape(-1) * len(names) + columns.reshape(-1), minlength=len(labels) * len(names)
    ).reshape(len(labels), len(names))
    iou = overlap / (areas[:, None] + name_areas[None] - overlap)
    iou[labels == 0] = iou[:, names == 0] = 0
    new_ids = np.zeros(len(labels), dtype=np.int64)
    for flat in np.argsort(-iou, axis=None, kind="stable"):
        row, column = divmod(int(flat), len(names))
        if iou[row, column] <= 0:
            break
        if new_ids[row] == 0 and names[column] not in new_ids:
            new_ids[row] = names[column]
    unnamed = np.flatnonzero((new_ids == 0) & (labels != 0))
    new_ids[unnamed] = max(int(names.max()), 0) + 1 + np.arange(len(unnamed))
    return new_ids[inverse].reshape(panoptic_seg.shape)


def draw_panoptic(
    image: np.ndarray,
    panoptic_seg: np.ndarray | torch.Tensor,
    segments_info: list[dict[str, Any]] | None = None,
    *,
    class_names: Sequence[str] | None = None,
    alpha: float = 0.6,
    draw_boundaries: bool = True,
    scale: int = 1,
    like: np.ndarray | torch.Tensor | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Lay a panoptic map over a photo: a colour a segment, outlines, void as dark stripes.

    Each segment has the colour of its id, unless another one has nearly the same: then it takes the
    next one that differs.

    Args:
        image: (H, W, 3) uint8 RGB.
        panoptic_seg: (H, W) integer ids, 0 is void.
        segments_info: of the model's output; only read for the names (``id``, ``category_id``).
        class_names: name of each contiguous class; with it, segments_info and a picture of at least
            200 px, names are written on the segments that have room for one.
        alpha: opacity of the colours, 0 (photo) to 1 (colours alone).
        draw_boundaries: draw white outlines between segments.
        scale: enlarges small pictures by this whole factor.
        like: another map (H, W) of the photo, such as the ground truth: segments that overlap in
            both (see :func:`align_ids`) get the colours that they have when `like` is drawn.
        seed: see :func:`segment_colors`.

    Returns:
        (scale * H, scale * W, 3) uint8 RGB.

    Raises:
        ValueError: if the sizes of photo and maps differ, or alpha or scale is out of range.
    """
    ids = _to_array(panoptic_seg)
    if image.shape != (*ids.shape, 3) or image.dtype != np.uint8:
        raise ValueError(
            f"photo {image.shape} {image.dtype} and map {ids.shape} do not belong together; "
            "expected (H, W, 3) uint8 and (H, W)"
        )
    labels, inverse = np.unique(ids, return_inverse=True)
    inverse = inverse.reshape(ids.shape)
    palette = _choose_palette(ids, like, seed)
    names = {}
    if class_names is not None and segments_info:
        names = {s["id"]: class_names[s["category_id"]] for s in segments_info}
    return overlay(
        image,
        inverse,
        palette,
        void=labels == 0,
        names=[names.get(label) for label in labels.tolist()],
        alpha=alpha,
        draw_boundaries=draw_boundaries,
        scale=scale,
    )


def _to_array(panoptic_seg: np.ndarray | torch.Tensor) -> np.ndarray:
    return np.asarray(torch.as_tensor(panoptic_seg).cpu()).astype(np.int64)


def _choose_palette(
    ids: np.ndarray, like: np.ndarray | torch.Tensor | None, seed: int
) -> np.ndarray:
    """A colour for each of a map's labels, in increasing order: (K, 3) uint8."""
    if like is None:
        return _separate_neighbours(ids, {}, seed)
    like = _to_array(like)
    names = np.unique(like).tolist()
    fixed = dict(zip(names, _separate_neighbours(like, {}, seed)))
    aligned = align_ids(ids, like)
    palette = _separate_neighbours(aligned, fixed, seed)
    new_names, first_pixels = np.unique(aligned, return_index=True)
    by_old = dict(zip(ids.reshape(-1)[first_pixels].tolist(), palette[: len(new_names)]))
    return np.stack([by_old[label] for label in np.unique(ids).tolist()])


def _separate_neighbours(ids: np.ndarray, fixed: dict[int, np.ndarray], seed: int) -> np.ndarray:
    """Colours of a map's labels that differ visibly, most where segments touch: (K, 3) uint8.

    Labels in `fixed` have the colours given there.
    """
    labels, inverse = np.unique(ids, return_inverse=True)
    inverse = inverse.reshape(ids.shape)
    neighbours: dict[int, set[int]] = {}
    # Also across thin void lines, which COCO's annotators leave between segments.
    for step in (1, max(2, min(ids.shape) // 80)):
        pairs = ((inverse[step:], inverse[:-step]), (inverse[:, step:], inverse[:, :-step]))
        for a, b in pairs:
            for code in np.unique(a * len(labels) + b).tolist():
                first, second = divmod(code, len(labels))
                neighbours.setdefault(first, set()).add(second)
                neighbours.setdefault(second, set()).add(first)
    palette = segment_colors(labels, seed)
    done = [row for row, label in enumerate(labels.tolist()) if label in fixed]
    for row in done:
        palette[row] = fixed[int(labels[row])]
    for row, label in enumerate(labels.tolist()):
        if label == 0 or row in done:
            continue
        others = [r for r in done if labels[r] != 0]
        touches = np.isin(others, list(neighbours.get(row, ())))
        wanted = np.where(touches, _MIN_CONTRAST, _MIN_DIFFERENCE)
        candidates = segment_colors(label + np.arange(_MAX_SHIFTS), seed)
        gaps = _to_lab(candidates)[:, None] - _to_lab(palette[others])[None]
        fits = (np.linalg.norm(gaps, axis=2) / wanted).min(axis=1, initial=np.inf)
        good = np.flatnonzero(fits >= 1)
        palette[row] = candidates[good[0] if len(good) else fits.argmax()]
        done.append(row)
    return palette


def _to_lab(colors: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 RGB to CIE L*a*b*: (N, 3) float32, L in 0..100."""
    if len(colors) == 0:
        return np.zeros((0, 3), dtype=np.float32)
    return cv2.cvtColor(colors[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
