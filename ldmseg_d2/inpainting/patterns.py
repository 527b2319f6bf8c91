"""Which part of a mask is given, and which is dropped: patterns for mask inpainting.

A pattern takes the ground truth of one picture, the share to drop and a random generator, and says
which pixels are known. One seed gives one mask. Every pattern drops an exact share of something;
what it counts stands with it. Half a unit is rounded as Python rounds.
"""

import zlib
from collections.abc import Callable

import cv2
import numpy as np

__all__ = ["PATTERNS", "known_mask"]

# (ids, drop, rng, **options) -> (H, W) bool, True where known.
Pattern = Callable[..., np.ndarray]


def known_mask(pattern: str, ids: np.ndarray, *, drop: float, seed: int, **options) -> np.ndarray:
    """Choose the known pixels of one picture.

    Args:
        pattern: a name of ``PATTERNS``.
        ids: (H, W) integers, the ground truth: 0 is void, any other id a segment.
        drop: share that is dropped, in [0, 1]; 0: all is known, 1: nothing.
        seed: of this picture; each pattern draws numbers of its own from it.
        options: of the pattern, such as ``block_size``.

    Returns:
        (H, W) bool, True where the mask is given.

    Raises:
        ValueError: unknown pattern, or a share outside [0, 1].

    Example:
        >>> known_mask("block", np.ones((64, 64), int), drop=0.25, seed=0).mean().item()
        0.75
    """
    if pattern not in PATTERNS:
        raise ValueError(f"unknown pattern {pattern!r}; allowed: {', '.join(PATTERNS)}")
    if not 0 <= drop <= 1:
        raise ValueError(f"the share to drop is {drop}, expected 0 (all is known) to 1 (nothing)")
    if drop == 0 or drop == 1:
        return np.full(ids.shape, drop == 0)
    rng = np.random.default_rng([seed, zlib.crc32(pattern.encode())])
    return PATTERNS[pattern](ids, drop, rng, **options)


def drop_blocks(
    ids: np.ndarray, drop: float, rng: np.random.Generator, *, block_size: int = 16
) -> np.ndarray:
    """Square blocks of a grid from the upper left corner (the paper's, of 16 x 16 pixels).

    Exactly round(drop x number of blocks) are dropped; those at the right and bottom may be cut.
    """
    if block_size < 1:
        raise ValueError(f"block_size is {block_size}, expected at least 1 pixel")
    rows, columns = (-(-side // block_size) for side in ids.shape)
    known = np.ones(rows * columns, dtype=bool)
    known[rng.permutation(known.size)[: round(drop * known.size)]] = False
    blocks = np.kron(known.reshape(rows, columns), np.ones((block_size,) * 2, dtype=bool))
    return blocks[: ids.shape[0], : ids.shape[1]].astype(bool)


def drop_segments(ids: np.ndarray, drop: float, rng: np.random.Generator) -> np.ndarray:
    """Whole segments: exactly round(drop x number of segments). Void is never known."""
    labels = np.unique(ids[ids != 0])
    dropped = rng.permutation(labels)[: round(drop * len(labels))]
    return (ids != 0) & ~np.isin(ids, dropped)


def drop_half_plane(ids: np.ndarray, drop: float, rng: np.random.Generator) -> np.ndarray:
    """All on one side of a straight line in a random direction: round(drop x pixels)."""
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.indices(ids.shape)
    return _drop_first(rows * np.sin(angle) + columns * np.cos(angle), drop)


def keep_points(ids: np.ndarray, drop: float, rng: np.random.Generator) -> np.ndarray:
    """Scattered pixels: in each segment round((1 - drop) x its pixels), at least one, are known."""
    return _keep_in_segments(ids, drop, lambda mask: rng.random(mask.shape))


def keep_clicks(
    ids: np.ndarray, drop: float, rng: np.random.Generator, *, clicks: int = 1
) -> np.ndarray:
    """Discs around random clicks in each segment, as large as the share allows.

    In each segment the round((1 - drop) x its pixels), at least one, that are nearest to one of its
    ``clicks`` are known.
    """
    if clicks < 1:
        raise ValueError(f"clicks is {clicks}, expected at least 1 a segment")

    def distance(mask: np.ndarray) -> np.ndarray:
        pixels = np.argwhere(mask)
        chosen = pixels[rng.choice(len(pixels), min(clicks, len(pixels)), replace=False)]
        drawn = np.zeros(mask.shape, dtype=np.uint8)
        drawn[tuple(chosen.T)] = 1
        return _distance_to(drawn)

    return _keep_in_segments(ids, drop, distance)


def drop_strokes(
    ids: np.ndarray, drop: float, rng: np.random.Generator, *, width: float = 0.1
) -> np.ndarray:
    """An eraser's strokes: round(drop x pixels), the last stroke ends where that is reached.

    Args:
        ids: (H, W).
        drop: share of the pixels.
        rng: random generator.
        width: of a stroke, as a share of the picture's longer side, in (0, 1].
    """
    if not 0 < width <= 1:
        raise ValueError(f"width is {width}, expected a share of the longer side in (0, 1]")
    wanted = round(drop * ids.size)
    thickness = max(1, round(width * max(ids.shape)))
    dropped = np.zeros(ids.shape, dtype=np.uint8)
    limits = np.array(ids.shape[::-1]) - 1
    while int(dropped.sum()) < wanted:
        start = rng.uniform(0, 1, 2) * limits
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.6) * max(ids.shape)
        end = start + length * np.array([np.cos(angle), np.sin(angle)])
        before = dropped.copy()
        points = [tuple(int(v) for v in np.round(point)) for point in (start, end)]
        cv2.line(dropped, *points, color=1, thickness=thickness)
        excess = int(dropped.sum()) - wanted
        if excess > 0:  # give back the far end of the stroke
            new = np.argwhere((dropped == 1) & (before == 0))
            along = (new[:, ::-1] - start) @ (end - start)
            dropped[tuple(new[np.argsort(-along, kind="stable")[:excess]].T)] = 0
    return dropped == 0


PATTERNS: dict[str, Pattern] = {
    "block": drop_blocks,
    "segment": drop_segments,
    "half_plane": drop_half_plane,
    "points": keep_points,
    "clicks": keep_clicks,
    "brush": drop_strokes,
}


def _drop_first(order: np.ndarray, drop: float) -> np.ndarray:
    """Drop the round(drop x pixels) with the smallest values."""
    known = np.ones(order.size, dtype=bool)
    known[np.argsort(order, axis=None, kind="stable")[: round(drop * order.size)]] = False
    return known.reshape(order.shape)


def _keep_in_segments(
    ids: np.ndarray, drop: float, order: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Keep in each segment (mask given to ``order``) the pixels with the smallest values."""
    known = np.zeros(ids.shape, dtype=bool)
    for label in np.unique(ids[ids != 0]):
        mask = ids == label
        pixels = np.flatnonzero(mask)
        values = order(mask).reshape(-1)[pixels]
        kept = max(1, round((1 - drop) * len(pixels)))
        known.reshape(-1)[pixels[np.argsort(values, kind="stable")[:kept]]] = True
    return known


def _distance_to(drawn: np.ndarray) -> np.ndarray:
    """Distance of every pixel to the nearest 1, in pixels."""
    return cv2.distanceTransform(1 - drawn, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
