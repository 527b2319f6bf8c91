"""Classes of segments by masked average pooling of the image encoder's features."""

import torch
from torch import Tensor, nn


class MaskPoolingHead(nn.Module):
    """Mean of the image encoder's features over a segment, then a linear layer.

    As mask-pooled classification in ODISE and MaskCLIP, with classes that are learnt.
    """

    def __init__(self, *, in_channels: int, num_classes: int) -> None:
        """
        Args:
            in_channels: channels C' of the features.
            num_classes: C, at least 1.
        """
        super().__init__()
        self.num_classes = num_classes
        self.norm = nn.LayerNorm(in_channels)
        self.linear = nn.Linear(in_channels, num_classes)

    def forward(self, features: Tensor, ids: Tensor, num_segments: int) -> Tensor:
        """Class logits of one picture's segments.

        Args:
            features: (C', h, w).
            ids: (S, S) int64 with ids 0..K, on the square that the features cover.
            num_segments: K.

        Returns:
            (K, C) logits; of an absent id those of zero features.
        """
        shares = cell_shares(ids, num_segments, *features.shape[-2:]).to(features)  # [K, h w]
        pooled = shares @ features.flatten(1).T  # [K, C']
        return self.linear(self.norm(pooled.to(self.linear.weight.dtype)))


def cell_shares(ids: Tensor, num_segments: int, height: int, width: int) -> Tensor:
    """How a segment's pixels are spread over the cells of a grid.

    Args:
        ids: (H, W) int64 with ids 0..num_segments.
        num_segments: K.
        height, width: h, w of the grid.

    Returns:
        (K, h * w) float32, each row sums to 1, or to 0 for an absent id.
    """
    rows = torch.arange(ids.shape[0], device=ids.device) * height // ids.shape[0]
    columns = torch.arange(ids.shape[1], device=ids.device) * width // ids.shape[1]
    cells = rows[:, None] * width + columns  # [H, W]
    num_cells = height * width
    counts = torch.bincount(
        (ids * num_cells + cells).flatten(), minlength=(num_segments + 1) * num_cells
    )
    counts = counts.view(num_segments + 1, num_cells)[1:].float()
    return counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
