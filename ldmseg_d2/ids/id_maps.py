"""Operations on segment-id maps, and the paper's random ids."""

from collections.abc import Sequence

import torch
from torch import Tensor


def pixel_areas(ids: Tensor) -> Tensor:
    """For each pixel of ids (B, ...) int64, how many of its picture have the same id: (B, ...)."""
    size = int(ids.max()) + 1
    keys = ids.flatten(1) + size * torch.arange(len(ids), device=ids.device).view(-1, 1)  # [B, P]
    counts = torch.bincount(keys.flatten(), minlength=size * len(ids))
    return counts[keys].view_as(ids)


def relabel(ids: Tensor, table: Tensor) -> Tensor:
    """Replace every id of (..., H, W) int64 by ``table[id]``; ``table[0]`` should be 0, void."""
    return table.to(ids.device)[ids]


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


def random_id_table(num_segments: int, num_bits: int, generator: torch.Generator | None) -> Tensor:
    """Ids drawn without replacement from 1..2^num_bits - 1 (LDMSeg, arXiv 2401.10227).

    Args:
        num_segments: K < 2^num_bits.
        num_bits: bits of an id.
        generator: None: torch's global one, on the CPU.

    Returns:
        (K + 1,) int64: new id of the segments 0 (void, stays 0), 1, ..., K.

    Raises:
        ValueError: more segments than ids.
    """
    if num_segments >= 2**num_bits:
        raise ValueError(f"{num_segments} segments, but {num_bits} bits hold {2**num_bits - 1}")
    device = generator.device if generator is not None else "cpu"
    drawn = torch.randperm(2**num_bits - 1, generator=generator, device=device)[:num_segments] + 1
    return torch.cat([drawn.new_zeros(1), drawn])


def random_ids(
    segment_ids: Tensor, num_bits: int, generators: Sequence[torch.Generator | None]
) -> Tensor:
    """Give the segments of each map ids drawn at random, see :func:`random_id_table`.

    Args:
        segment_ids: (B, H, W) int64, consecutive ids 1..K in each map (K may differ), 0 is void.
        num_bits: bits of an id.
        generators: one per map.

    Returns:
        (B, H, W) int64: the same partition under other ids.
    """
    pairs = zip(segment_ids, generators, strict=True)
    return torch.stack(
        [relabel(ids, random_id_table(int(ids.max()), num_bits, own)) for ids, own in pairs]
    )
