"""Depth in metres to [-1, 1] and back."""

from typing import NamedTuple

import torch
from torch import Tensor

NORMALIZATIONS = ("relative", "metric")
SCALES = ("linear", "log")
# Marigold (arXiv 2312.02145, eq. 2) normalises between these quantiles, robust to outliers.
QUANTILES = (0.02, 0.98)


class DepthNormalization(NamedTuple):
    """How depth is normalised.

    "relative": each picture's 2 % and 98 % quantiles become -1 and 1 (Marigold, arXiv 2312.02145,
    section 3.2); metres are lost, a result (with scale "log" its logarithm) is known up to scale
    and shift. "metric": a range of metres becomes [-1, 1], the same in all pictures; values outside
    are clipped.
    """

    kind: str = "relative"
    range: tuple[float, float] = (0.5, 80.0)  # metres, of "metric"
    scale: str = "linear"  # or "log": equal ratios become equal steps

    def check(self) -> None:
        """Raise a ValueError that names the config key unless the values make sense."""
        if self.kind not in NORMALIZATIONS:
            raise ValueError(
                f"MODEL.LDMSEG.DEPTH.NORMALIZATION is {self.kind!r}; allowed: "
                f"{', '.join(NORMALIZATIONS)}"
            )
        if self.scale not in SCALES:
            raise ValueError(
                f"MODEL.LDMSEG.DEPTH.SCALE is {self.scale!r}; allowed: {', '.join(SCALES)}"
            )
        if len(self.range) != 2 or not 0 < self.range[0] < self.range[1]:
            raise ValueError(
                f"MODEL.LDMSEG.DEPTH.RANGE is {self.range}; it takes two metres, 0 < near < far"
            )

    def normalize(self, depth: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            depth: (H, W) metres; 0, negative and infinite values are invalid.

        Returns:
            (H, W) in [-1, 1], 0 where invalid; and (H, W) bool, the valid pixels.
        """
        self.check()
        valid = torch.isfinite(depth) & (depth > 0)
        if not bool(valid.any()):
            return torch.zeros_like(depth), valid
        values = self._scaled(depth.where(valid, torch.ones_like(depth)))
        if self.kind == "relative":
            near, far = torch.quantile(values[valid], values.new_tensor(QUANTILES))
        else:
            near, far = self._scaled(values.new_tensor(self.range))
        # Of a flat picture both quantiles are one value.
        span = (far - near).clamp(min=1e-6)
        normalized = (2 * (values - near) / span - 1).clamp(-1, 1)
        return normalized.where(valid, torch.zeros_like(normalized)), valid

    def denormalize(self, normalized: Tensor) -> Tensor:
        """From [-1, 1] to metres ("metric"), or to [0, 1] ("relative")."""
        self.check()
        share = (normalized.clamp(-1, 1) + 1) / 2
        if self.kind == "relative":
            return share
        near, far = self._scaled(normalized.new_tensor(self.range))
        values = near + share * (far - near)
        return values.exp() if self.scale == "log" else values

    def _scaled(self, depth: Tensor) -> Tensor:
        return depth.log() if self.scale == "log" else depth
