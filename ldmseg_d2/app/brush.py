"""The round brush: from the points of a stroke to pixels."""

from collections.abc import Sequence

import cv2
import numpy as np

_FAR = 2**14  # cv2 overflows far outside of the picture
# It cuts lines at the picture's border and rounds where, which moves all that is left of them.
_MARGIN = 64


def stroke_mask(
    shape: tuple[int, int], points: Sequence[Sequence[float]], diameter: float
) -> np.ndarray:
    """(H, W) bool: pixels under a stroke of a round brush; one point (x, y) is a disc.

    Lengths are in pixels. ValueError: coordinates that are no finite numbers.
    """
    corners = np.asarray(points, dtype=np.float64)
    if corners.ndim != 2 or corners.shape[1:] != (2,) or not np.isfinite(corners).all():
        raise ValueError(f"a stroke is a list of points (x, y), not {str(points)[:80]}")
    corners = np.floor(corners).clip(-_FAR, _FAR).astype(np.int32) + _MARGIN
    mask = np.zeros([side + 2 * _MARGIN for side in shape], dtype=np.uint8)
    cv2.polylines(mask, [corners], False, 1, thickness=max(1, round(diameter)))
    for point in corners.tolist():
        cv2.circle(mask, point, int(diameter / 2), 1, thickness=-1)
    return mask[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN].astype(bool)
