"""Ids matched to what a network predicts: the noise, not the data, decides between namings."""

from collections.abc import Callable

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


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


def matched_id_table(
    ids: Tensor, num_segments: int, predicted: Tensor, expand: Callable[[Tensor], Tensor]
) -> Tensor:
    """The ids of one map's segments that a prediction comes nearest to.

    A segment's score for an id is the id's logit in the segment's mean prediction; distinct ids
    with the largest total score win (Hungarian algorithm).

    Args:
        ids: (H, W) int64, 1..K the segments, 0 elsewhere.
        num_segments: K < num_ids.
        predicted: (C, H, W) decoded prediction; its mean over a segment is that segment's.
        expand: linear map from (B, C, h, w) to logits (B, num_ids, h, w) of all ids, 0 being void.

    Returns:
        (K + 1,) int64 on the CPU, distinct ids in 1..num_ids - 1; 0 stays 0.

    Raises:
        ValueError: more segments than ids.
    """
    means = segment_means(ids, predicted, num_segments)  # [K, C]
    scores = expand(means.T[None, :, :, None])[0, 1:, :, 0].T  # [K, num_ids - 1]
    if num_segments > scores.shape[1]:
        raise ValueError(f"{num_segments} segments, but there are {scores.shape[1]} ids")
    _, best = linear_sum_assignment(scores.cpu().numpy(), maximize=True)
    return torch.cat([torch.zeros(1, dtype=torch.int64), torch.from_numpy(best) + 1])
