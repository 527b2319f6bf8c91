"""Small layers that several networks share."""

from torch import Tensor, nn
from torch.nn import functional as F


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, H, W), at each position on its own."""

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__(num_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(
            x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps
        )
        return x.permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Pre-activation residual block (arXiv 1603.05027) with GroupNorm, on (B, C, H, W).

    The second conv starts at zero, so that a new block is the identity.
    """

    def __init__(self, channels: int, num_groups: int = 8) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(num_groups, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(num_groups, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))
