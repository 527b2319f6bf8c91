"""Panoptic id maps: segments of a map, relabelling, and the assignment of ids to segments."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .bit_codes import gray_code


def pixel_areas(ids: Tensor) -> Tensor:
    """For each pixel of ids (B, ...) int64, how many of its picture have the same id: (B, ...)."""
    size = int(ids.max()) + 1
    keys = ids.flatten(1) + size * torch.arange(len(ids), device=ids.device).view(-1, 1)  # [B, P]
    counts = torch.bincount(keys.flatten(), minlength=size * len(ids))
    return counts[keys].view_as(ids)


def relabel(ids: Tensor, table: Tensor) -> Tensor:
    """Replace every id by ``table[id]``.

    Args:
        ids: (..., H, W) int64 in 0..len(table) - 1.
        table: (num_ids,) new id of each old one; ``table[0]`` should be 0 to keep void.
    """
    return table.to(ids.device)[ids]


def segment_masks(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Split an id map into boolean masks.

    Args:
        ids: (H, W) integer ids, 0 is void.

    Returns:
        labels (K,) the ids present in increasing order, without void; masks (K, H, W) bool.
    """
    labels = torch.unique(ids)
    labels = labels[labels != 0]
    return labels, ids.unsqueeze(0) == labels.view(-1, 1, 1)


def keep_largest(ids: Tensor, max_segments: int) -> tuple[Tensor, int]:
    """Turn the smallest segments into void where there are more than ``max_segments``.

    Args:
        ids: (H, W) int64 segment ids, 0 is void.
        max_segments: how many segments may stay.

    Returns:
        The map (H, W) with ids 1..K, K <= max_segments, in the order of the old ids; and the number
        of segments that became void.
    """
    labels, inverse, counts = torch.unique(ids, return_inverse=True, return_counts=True)
    is_segment = labels != 0
    dropped = max(int(is_segment.sum()) - max_segments, 0)
    keep = is_segment.clone()
    if dropped:
        order = torch.argsort(torch.where(is_segment, counts, counts.max() + 1), stable=True)
        keep[order[:dropped]] = False
    table = torch.cumsum(keep, 0) * keep  # consecutive new ids, void for the others
    return table[inverse], dropped


def segment_centroids(ids: Tensor, num_segments: int) -> Tensor:
    """Centroid of each segment of a map with consecutive ids.

    Args:
        ids: (H, W) int64 with ids 0..num_segments.
        num_segments: K.

    Returns:
        (K, 2) float64: (y, x) as fractions of height and width in (0, 1); 0.5 for an absent id.
        float64 because sums over a picture must not depend on the device's order of addition.
    """
    height, width = ids.shape
    flat = ids.reshape(-1)
    grid_y, grid_x = torch.meshgrid(
        (torch.arange(height, device=ids.device, dtype=torch.float64) + 0.5) / height,
        (torch.arange(width, device=ids.device, dtype=torch.float64) + 0.5) / width,
        indexing="ij",
    )
    counts = torch.bincount(flat, minlength=num_segments + 1)[1:]
    centroids = torch.stack(
        [
            torch.bincount(flat, weights=grid.reshape(-1), minlength=num_segments + 1)[1:]
            for grid in (grid_y, grid_x)
        ],
        dim=1,
    )
    return torch.where(counts.view(-1, 1) > 0, centroids / counts.clamp(min=1).view(-1, 1), 0.5)


def random_id_table(num_segments: int, num_ids: int, generator: torch.Generator | None) -> Tensor:
    """Ids drawn without replacement from 1..num_ids - 1 (the paper's assignment).

    Returns:
        (num_segments + 1,) int64: new id of the segments 0 (void, stays 0), 1, ..., K.
    """
    device = generator.device if generator is not None else "cpu"
    drawn = torch.randperm(num_ids - 1, generator=generator, device=device)[:num_segments] + 1
    return torch.cat([drawn.new_zeros(1), drawn])


def ordered_id_table(centroids: Tensor) -> Tensor:
    """Ids 1..K in raster order of the centroids: by row (in 64ths of the height), then by x.

    Args:
        centroids: (K, 2) (y, x) in (0, 1).
    """
    rows = (centroids[:, 0] * 64).floor()
    rank = torch.argsort(torch.argsort(rows * 2 + centroids[:, 1], stable=True), stable=True)
    return torch.cat([rank.new_zeros(1), rank + 1])


def positional_codes(
    centroids: Tensor, num_bits: int, y_edges: Sequence[float], x_edges: Sequence[float]
) -> Tensor:
    """The code of each centroid's place, see :func:`positional_id_table`; 0 and doubles included.

    Returns:
        (K,) int64 on the CPU in 0..2^num_bits - 1.
    """
    y_bits = num_bits // 2
    x_bits = num_bits - y_bits
    # On the CPU: a handful of segments, visited one after the other.
    centroids = centroids.cpu()
    bins = [
        torch.bucketize(values.contiguous(), _edges(edges, bits), right=True)
        for values, edges, bits in (
            (centroids[:, 0], y_edges, y_bits),
            (centroids[:, 1], x_edges, x_bits),
        )
    ]
    return (gray_code(bins[0]) << x_bits) | gray_code(bins[1])


def positional_id_table(
    centroids: Tensor, num_bits: int, y_edges: Sequence[float], x_edges: Sequence[float]
) -> Tensor:
    """Ids that say where a segment is: Gray-coded bins of its centroid, y in the high bits.

    Neighbouring bins differ in one bit, so a small error in position is a small error in the code.
    A segment whose code is taken (or is 0, void) gets the free code nearest in Hamming distance,
    the smallest of several.

    Args:
        centroids: (K, 2) (y, x) in (0, 1); K < 2^num_bits.
        num_bits: bits of an id; floor(num_bits / 2) for y, the rest for x.
        y_edges, x_edges: inner edges of the bins, increasing, 2^bits - 1 each; empty: equal bins.

    Returns:
        (K + 1,) int64 on the CPU.
    """
    wanted = positional_codes(centroids, num_bits, y_edges, x_edges)
    free = torch.ones(2**num_bits, dtype=torch.bool)
    free[0] = False
    codes = torch.arange(2**num_bits)
    bit_masks = 2 ** torch.arange(num_bits)
    table = torch.zeros(len(centroids) + 1, dtype=torch.int64)
    for segment, code in enumerate(wanted.tolist(), start=1):
        if not free[code]:
            distance = ((codes ^ code).unsqueeze(1) & bit_masks).ne(0).sum(1)
            code = int(torch.where(free, distance, num_bits + 1).argmin())
        table[segment] = code
        free[code] = False
    return table


def _edges(edges: Sequence[float], bits: int) -> Tensor:
    expected = 2**bits - 1
    if len(edges) not in (0, expected):
        raise ValueError(
            f"MODEL.LDMSEG.POSITIONAL: {len(edges)} edges for {bits} bits; expected {expected}, "
            "or none for equal bins"
        )
    if not edges:
        return torch.arange(1, expected + 1, dtype=torch.float64) / (expected + 1)
    tensor = torch.tensor(list(edges), dtype=torch.float64)
    if not bool((tensor[1:] > tensor[:-1]).all()):
        raise ValueError(f"MODEL.LDMSEG.POSITIONAL: edges must increase, got {list(edges)}")
    return tensor


def assign_ids(
    segment_ids: Tensor,
    *,
    num_bits: int,
    method: str,
    generator: torch.Generator | None = None,
    y_edges: Sequence[float] = (),
    x_edges: Sequence[float] = (),
) -> Tensor:
    """Give every segment of each map the id under which the autoencoder encodes it.

    Args:
        segment_ids: (B, H, W) int64, consecutive ids 1..K in each map (K may differ), 0 is void;
            K < 2^num_bits (see :func:`keep_largest`).
        num_bits: bits of an id.
        method: "random", "ordered" or "positional" (``MODEL.LDMSEG.ID_ASSIGNMENT``).
        generator: of the random ids; None: torch's global one.
        y_edges, x_edges: of "positional".

    Returns:
        (B, H, W) int64 in 0..2^num_bits - 1: the same partition under other ids.

    Raises:
        ValueError: unknown method, or more segments than ids.
    """
    num_segments = segment_ids.flatten(1).amax(dim=1).tolist()
    if max(num_segments, default=0) >= 2**num_bits:
        raise ValueError(
            f"{max(num_segments)} segments, but {num_bits} bits hold {2**num_bits - 1}"
        )
    maps = []
    for ids, count in zip(segment_ids, num_segments, strict=True):
        if method == "random":
            table = random_id_table(count, 2**num_bits, generator)
        elif method == "ordered":
            table = ordered_id_table(segment_centroids(ids, count))
        elif method == "positional":
            centroids = segment_centroids(ids, count)
            table = positional_id_table(centroids, num_bits, y_edges, x_edges)
        else:
            raise ValueError(
                f"unknown id assignment {method!r}; allowed: random, ordered, positional"
            )
        maps.append(relabel(ids, table))
    return torch.stack(maps)
