"""Calibration of the disagreement between samples: is the model wrong where its masks differ?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment


def wrong_pixels(truth: np.ndarray, num_segments: int, ids: np.ndarray) -> np.ndarray:
    """Pixels whose segment is not the one that their true segment is matched to.

    The matching is one to one and maximises the sum of IoUs (Hungarian algorithm). Predicted void
    is wrong where the truth is a segment.

    Args:
        truth: (H, W) int64: 0 void, 1..K segments, K + 1 crowd.
        num_segments: K.
        ids: (H, W) int64, 0 is void.

    Returns:
        (N,) bool for the N pixels whose truth is a segment, in raster order.
    """
    labels, columns = np.unique(ids, return_inverse=True)
    columns = columns.reshape(ids.shape)
    counted = (truth > 0) & (truth <= num_segments)
    pairs = truth[counted] * len(labels) + columns[counted]
    overlap = np.bincount(pairs, minlength=(num_segments + 1) * len(labels))
    overlap = overlap.reshape(num_segments + 1, len(labels))
    union = overlap.sum(1, keepdims=True) + overlap.sum(0, keepdims=True) - overlap
    iou = overlap / np.maximum(union, 1)
    iou[0] = 0
    iou[:, labels == 0] = 0
    rows, matches = linear_sum_assignment(iou, maximize=True)
    match = np.full(num_segments + 1, -1)
    for row, column in zip(rows, matches):
        if iou[row, column] > 0:
            match[row] = column
    return match[truth[counted]] != columns[counted]


class Calibration:
    """Counts of pixels and of wrong ones by disagreement, over many pictures."""

    def __init__(self, num_samples: int) -> None:
        """
        Args:
            num_samples: K masks a picture; disagreement is one of 0, 1/K, ..., 1.
        """
        self.num_samples = num_samples
        self.pixels = np.zeros(num_samples + 1, dtype=np.int64)
        self.errors = np.zeros(num_samples + 1, dtype=np.int64)

    def add(
        self, truth: np.ndarray, num_segments: int, ids: np.ndarray, disagreement: np.ndarray
    ) -> None:
        """Count one picture.

        Args:
            truth, num_segments, ids: see :func:`wrong_pixels`.
            disagreement: (H, W) in [0, 1].
        """
        wrong = wrong_pixels(truth, num_segments, ids)
        counted = (truth > 0) & (truth <= num_segments)
        bins = np.rint(disagreement[counted] * self.num_samples).astype(np.int64)
        self.pixels += np.bincount(bins, minlength=self.num_samples + 1)
        self.errors += np.bincount(bins[wrong], minlength=self.num_samples + 1)

    def summary(self) -> dict[str, Any]:
        """What the counts say.

        Returns:
            "bins": for each disagreement that occurs "disagreement", "pixels" (share of all) and
            "error" (share of those that are wrong), in [0, 1]; "error", the share of wrong pixels
            of all; "expected_calibration_error", the mean over pixels of |error - disagreement|;
            and "auroc", the probability that a wrong pixel disagrees more than a right one (0.5
            is chance; ties count half), None where all are right or all wrong.
        """
        total = max(int(self.pixels.sum()), 1)
        levels = np.arange(self.num_samples + 1) / self.num_samples
        rates = self.errors / np.maximum(self.pixels, 1)
        bins = [
            {"disagreement": float(d), "pixels": n / total, "error": float(rate)}
            for d, n, rate in zip(levels, self.pixels.tolist(), rates)
            if n
        ]
        return {
            "bins": bins,
            "error": int(self.errors.sum()) / total,
            "expected_calibration_error": float(
                (self.pixels * np.abs(rates - levels)).sum() / total
            ),
            "auroc": _auroc(self.errors, self.pixels - self.errors),
        }


def _auroc(positives: np.ndarray, negatives: np.ndarray) -> float | None:
    """Of counts in increasing bins."""
    pairs = int(positives.sum()) * int(negatives.sum())
    if pairs == 0:
        return None
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / pairs)


def calibration_table(summary: dict[str, Any]) -> str:
    """The bins as a Markdown table, in percent."""
    lines = ["| disagreement | pixels | wrong |", "| --- | --- | --- |"]
    for one in summary["bins"]:
        level, share, error = (100 * one[key] for key in ("disagreement", "pixels", "error"))
        lines.append(f"| {level:.0f} % | {share:.2f} % | {error:.1f} % |")
    return "\n".join(lines)


def mean_quality(qualities: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each number over several runs."""
    return {key: float(np.mean([q[key] for q in qualities])) for key in qualities[0]}
