"""What given pixels say about the pixels around them, along a photo: a random walker's chances.

Grady, "Random walks for image segmentation", IEEE PAMI 28(11), 2006. The walker that may die on its
way is the same author's "Multilabel random walker image segmentation using prior models" (CVPR
2005), with one more label whose prior is the same everywhere.
"""

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.nn import functional as F

from .given_parts import KnownParts, resize_nearest

# Chosen on CamVid's training photos; scikit-image's default is 130.
BETA = 400.0
# Walks are on maps of at most as many pixels: a second on a CPU.
MAX_PIXELS = 2**18
# Edges of the photo never cut a walker off altogether.
_MIN_WEIGHT = 1e-10


def random_walk(
    photo: Tensor, seeds: Tensor, *, reach: float = np.inf, beta: float = BETA
) -> Tensor:
    """Which seed a random walker from each pixel meets first.

    A step to a neighbour (of four) is exp(-beta |difference|^2 / (10 std sqrt(C))) as likely as one
    in a flat region. At every step the walker may die, so that of those from far away few arrive:
    with the graph's Laplacian L, p = -(L_uu + I / reach^2)^-1 L_us. In a flat region, p falls by a
    factor e with every ``reach`` pixels.

    Args:
        photo: (C, h, w), numbers in [0, 1].
        seeds: (h, w) int64: 1..K, 0 where there is none.
        reach: pixels, above 0; infinite: all walkers arrive.
        beta: how much edges keep the walker back.

    Returns:
        (K + 1, h, w) float32: the chances of seeds 1..K and of dying, with sum 1.

    Raises:
        ValueError: no seed, or sizes that differ.
    """
    if photo.shape[1:] != seeds.shape:
        raise ValueError(
            f"photo and seeds differ in size: {tuple(photo.shape[1:])} and {tuple(seeds.shape)}"
        )
    num_labels = int(seeds.max())
    if num_labels == 0:
        raise ValueError("there is no seed to walk to: all of seeds is 0")
    labels = seeds.cpu().numpy().reshape(-1)
    chances = np.zeros((num_labels + 1, labels.size), dtype=np.float32)
    seeded = labels > 0
    chances[labels[seeded] - 1, np.nonzero(seeded)[0]] = 1.0
    if not seeded.all():
        laplacian = _laplacian(photo.cpu().double().numpy(), beta)
        unseeded = np.nonzero(~seeded)[0]
        rows = laplacian[unseeded]
        system = rows[:, unseeded] + sparse.identity(len(unseeded)) / reach**2
        arriving = -rows[:, seeded] @ np.eye(num_labels)[labels[seeded] - 1]  # [U, K]
        # One factorisation for all labels. The matrix is symmetric and positive definite.
        factors = splu(
            system.tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        chances[:-1, unseeded] = factors.solve(arriving).T.clip(0.0, 1.0)
        chances[-1] = (1.0 - chances[:-1].sum(axis=0)).clip(0.0)
    return torch.from_numpy(chances).view(num_labels + 1, *seeds.shape)


def given_log_prior(
    known: KnownParts, photo: Tensor, *, reach: float, floor: float = 1e-3
) -> Tensor:
    """Log probability that a pixel belongs to each given segment, before the network is asked.

    The walk is at the size of the result, or smaller: a pixel of the networks' square can be more
    than a small segment has.

    Args:
        known: the given part, at the size (H, W) of the result.
        photo: (3, h, w) uint8, at any size.
        reach: see :func:`random_walk`, pixels of ``photo``.
        floor: no probability is smaller.

    Returns:
        (K + 2, H, W) float32: the K segments of ``known.labels()``, void where it is given, and
        all that is not given.

    Raises:
        ValueError: a reach that is not above 0.
    """
    if not reach > 0:
        raise ValueError(f"MODEL.LDMSEG.SAMPLER.GIVEN_REACH must be above 0 pixels, got {reach}")
    labels = known.labels()
    numbers = torch.where(known.ids == 0, known.mask * (len(labels) + 1), 0)  # void: K + 1
    numbers = torch.where(known.ids != 0, torch.searchsorted(labels, known.ids) + 1, numbers)
    scale = min(1.0, (MAX_PIXELS / numbers.numel()) ** 0.5)
    size = tuple(max(1, int(scale * side)) for side in numbers.shape)
    seeds = resize_nearest(numbers, size)
    _add_lost_seeds(seeds, numbers)
    reach = reach * (size[0] / photo.shape[1] + size[1] / photo.shape[2]) / 2
    walked = random_walk(_resize(photo, size) / 255, seeds, reach=reach)
    # Where no void is given, nothing walks there.
    chances = walked.new_zeros(len(labels) + 2, *size)
    chances[: len(walked) - 1] = walked[:-1]
    chances[-1] = walked[-1]
    if size != tuple(numbers.shape):
        chances = F.interpolate(
            chances.unsqueeze(0), size=numbers.shape, mode="bilinear", align_corners=False
        )[0]
    return chances.clamp(min=floor).log().to(known.ids.device)


def _resize(photo: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, *size) float32 in [0, 255]."""
    resized = F.interpolate(
        photo.unsqueeze(0).float(), size=size, mode="bicubic", align_corners=False, antialias=True
    )
    return resized[0].clamp(0, 255)


def _laplacian(photo: np.ndarray, beta: float) -> sparse.csr_array:
    """Of the grid with 4 neighbours of a photo (C, h, w), in row-major order of its pixels."""
    channels, height, width = photo.shape
    index = np.arange(height * width).reshape(height, width)
    ends = np.concatenate(
        [
            np.stack([index[:, :-1].ravel(), index[:, 1:].ravel()]),
            np.stack([index[:-1].ravel(), index[1:].ravel()]),
        ],
        axis=1,
    )  # [2, E]
    flat = photo.reshape(channels, -1)
    differences = ((flat[:, ends[0]] - flat[:, ends[1]]) ** 2).sum(axis=0)
    # A photo of one colour has no edges.
    scale = 10.0 * max(float(photo.std()), 1e-12) * np.sqrt(channels)
    weights = np.exp(-beta * differences / scale) + _MIN_WEIGHT
    size = (height * width,) * 2
    adjacency = sparse.coo_array((weights, (ends[0], ends[1])), shape=size)
    adjacency = (adjacency + adjacency.T).tocsr()
    return (sparse.diags_array(adjacency.sum(axis=1)) - adjacency).tocsr()


def _add_lost_seeds(seeds: Tensor, numbers: Tensor) -> None:
    """A segment of which a smaller map has no pixel left gets one, in place: its middle one."""
    lost = set(numbers.unique().tolist()) - set(seeds.unique().tolist())
    for number in sorted(lost):
        points = torch.nonzero(numbers == number)
        y, x = points[len(points) // 2].tolist()
        row = y * seeds.shape[0] // numbers.shape[0]
        seeds[row, x * seeds.shape[1] // numbers.shape[1]] = number
