"""Connected regions of a mask."""

import cv2
import numpy as np


def connected_regions(mask: np.ndarray, min_area: int = 1) -> list[np.ndarray]:
    """The 8-connected regions of a mask.

    Args:
        mask: (H, W) bool.
        min_area: pixels; smaller regions are left out.

    Returns:
        (H, W) bool masks, in the order of OpenCV's labels.
    """
    if np.count_nonzero(mask) < min_area:
        return []
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    areas = np.bincount(labels.reshape(-1), minlength=count)
    return [labels == label for label in range(1, count) if areas[label] >= min_area]
