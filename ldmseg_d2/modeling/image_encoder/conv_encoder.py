"""A small convolutional image encoder, trained along with the denoiser."""

from collections.abc import Sequence

from torch import Tensor, nn

from ..latent_autoencoder import ResidualBlock
from .encoder_registry import IMAGE_ENCODER_REGISTRY, ImageEncoder


@IMAGE_ENCODER_REGISTRY.register()
class ConvImageEncoder(ImageEncoder):
    """A conv at full resolution, then stages of [stride-2 conv, residual blocks]."""

    def __init__(
        self,
        *,
        out_channels: int,
        widths: Sequence[int] = (32, 64, 128, 256),
        num_blocks: int = 1,
    ) -> None:
        """`widths`: of each stage; `num_blocks`: residual blocks in each after the first."""
        if not widths or any(width % 8 for width in widths):
            raise ValueError(
                "ConvImageEncoder: widths needs at least one multiple of 8, and nothing else; got "
                f"{list(widths)}"
            )
        super().__init__(out_channels=out_channels, stride=2 ** (len(widths) - 1))
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1), nn.SiLU()]
        for previous, width in zip(widths[:-1], widths[1:], strict=True):
            layers.append(nn.Conv2d(previous, width, 3, stride=2, padding=1))
            layers += [ResidualBlock(width) for _ in range(num_blocks)]
        layers += [nn.GroupNorm(8, widths[-1]), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], out_channels, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)
