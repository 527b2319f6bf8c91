"""Ids matched to what a network predicts: the noise, not the data, decides between namings."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .id_maps import positional_codes, relabel, segment_centroids


class PositionPull(NamedTuple):
    """How strongly, and where to, positions pull matched ids."""

    weight: float  # logits that every bit of distance to the positional code costs
    y_edges: Sequence[float] = ()  # as for positional_id_table
    x_edges: Sequence[float] = ()


def segment_means(ids: Tensor, values: Tensor, num_segments: int) -> Tensor:
    """Mean of per-pixel values over each segment.

    Args:
        ids: (H, W) int64 with ids 0..num_segments.
        values: (C, H, W).
        num_segments: K.

    Returns:
        (K, C) float32; 0 for an absent id.
    """
    values = values.flatten(1).T.float()  # [H W, C]
    sums = values.new_zeros(num_segments + 1, values.shape[1]).index_add_(0, ids.flatten(), values)
    counts = torch.bincount(ids.flatten(), minlength=num_segments + 1).clamp(min=1)
    return (sums / counts.unsqueeze(1))[1:]


def matched_id_table(scores: Tensor) -> Tensor:
    """Distinct ids for the segments with the largest total score (Hungarian matching).

    Args:
        scores: (K, num_ids) score of every segment for every id, channel 0 being void, which is
            never given; K < num_ids.

    Returns:
        (K + 1,) int64 on the CPU.
    """
    _, best = linear_sum_assignment(scores[:, 1:].cpu().numpy(), maximize=True)
    return torch.cat([torch.zeros(1, dtype=torch.int64), torch.from_numpy(best) + 1])


def predicted_id_table(
    ids: Tensor,
    num_segments: int,
    predicted: Tensor,
    expand: Callable[[Tensor], Tensor],
    position: PositionPull | None = None,
) -> Tensor:
    """The ids of one map's segments that a prediction comes nearest to.

    A segment's score for an id is the id's logit in the segment's mean prediction. With
    ``position`` it is less by weight x d, d being the Hamming distance between the id's code and
    that of the segment's place (:func:`positional_codes`): of namings that the prediction likes
    alike, the one that says where the segments are wins.

    Args:
        ids: (H, W) int64, 1..K the segments, 0 elsewhere.
        num_segments: K < num_ids.
        predicted: (C, H, W) decoded prediction; its mean over a segment is that segment's.
        expand: linear map from (B, C, h, w) to logits (B, num_ids, h, w) of all ids.
        position: None: the prediction alone decides.

    Returns:
        (K + 1,) int64 on the CPU, distinct ids in 1..num_ids - 1; 0 stays 0.
    """
    means = segment_means(ids, predicted, num_segments)  # [K, C]
    scores = expand(means.T[None, :, :, None])[0, :, :, 0].T  # [K, num_ids]
    if position is not None:
        num_bits = scores.shape[1].bit_length() - 1
        wanted = positional_codes(
            segment_centroids(ids, num_segments), num_bits, position.y_edges, position.x_edges
        )
        differing = wanted.unsqueeze(1) ^ torch.arange(scores.shape[1])  # [K, num_ids]
        distance = ((differing.unsqueeze(2) >> torch.arange(num_bits)) & 1).sum(dim=2)
        scores = scores.cpu().double() - position.weight * distance
    return matched_id_table(scores)


def match_ids(
    segment_ids: Tensor,
    predicted: Tensor,
    expand: Callable[[Tensor], Tensor],
    position: PositionPull | None = None,
) -> Tensor:
    """Give every segment the id that a prediction comes nearest to.

    Args:
        segment_ids: (B, H, W) int64, consecutive ids 1..K in each map, 0 is void.
        predicted: (B, C, H, W) decoded prediction.
        expand, position: see :func:`predicted_id_table`.

    Returns:
        (B, H, W) int64: the same partition under other ids.
    """
    maps = [
        relabel(ids, predicted_id_table(ids, int(ids.max()), one, expand, position))
        for ids, one in zip(segment_ids, predicted, strict=True)
    ]
    return torch.stack(maps)
