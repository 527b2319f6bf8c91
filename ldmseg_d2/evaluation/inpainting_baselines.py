"""What completes a mask without a diffusion model: the nearest given segment, and a random walk."""

import warnings

import numpy as np
from scipy import ndimage

from ..inpainting.given_prior import MAX_PIXELS


def nearest_fill(ids: np.ndarray, known_mask: np.ndarray) -> np.ndarray:
    """Every unknown pixel takes the id of the nearest known one (Euclidean distance transform).

    Args:
        ids: (H, W) integers; read where ``known_mask``.
        known_mask: (H, W) bool.

    Returns:
        (H, W) of the same type; 0 where nothing is known.
    """
    if not known_mask.any():
        return np.zeros_like(ids)
    nearest = ndimage.distance_transform_edt(
        ~known_mask, return_distances=False, return_indices=True
    )
    return ids[tuple(nearest)]


def random_walker_fill(
    photo: np.ndarray, ids: np.ndarray, known_mask: np.ndarray, *, beta: float = 130.0
) -> np.ndarray:
    """Every unknown pixel takes the id that a random walker from it meets first.

    The walker avoids edges of the photo (Grady, IEEE PAMI 28(11), 2006), as scikit-image has it.

    Args:
        photo: (H, W, 3) uint8.
        ids: (H, W) integers; read where ``known_mask``. Known void (0) is a region as any other.
        known_mask: (H, W) bool: the seeds.
        beta: how much edges keep the walker back; scikit-image's default.

    Returns:
        (H, W) of the same type; 0 where nothing is known.

    Raises:
        ImportError: scikit-image is not installed; says how to install it.
    """
    try:
        from skimage.segmentation import random_walker
    except ImportError as error:
        raise ImportError(
            "the random walker needs scikit-image: tools/install.sh --extras=inpainting, or "
            "pip install scikit-image"
        ) from error
    labels, seeds = np.unique(ids[known_mask], return_inverse=True)
    if len(labels) < 2 or known_mask.all():
        return nearest_fill(ids, known_mask)
    markers = np.zeros(ids.shape, dtype=np.int32)
    markers[known_mask] = seeds.reshape(-1) + 1
    with warnings.catch_warnings():
        # Probabilities a little outside of [0, 1] do not matter to an argmax.
        warnings.filterwarnings("ignore", message="The probability range is outside")
        # Factorised, or where that would need much memory, in iterations. Neither needs an optional
        # solver.
        mode = "bf" if markers.size <= MAX_PIXELS else "cg_j"
        walked = random_walker(photo, markers, beta=beta, mode=mode, tol=1e-4, channel_axis=-1)
    return np.where(known_mask, ids, labels[np.clip(walked, 1, None) - 1])
