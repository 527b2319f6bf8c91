"""A small ResNet with a feature pyramid, trained along with the denoiser."""

from collections.abc import Sequence

import fvcore.nn.weight_init as weight_init
from detectron2.layers import Conv2d
from torch import Tensor, nn
from torch.nn import functional as F

from ..small_resnet import CHANNELS_PER_GROUP, build_small_resnet, group_norm
from .registry import IMAGE_ENCODER_REGISTRY, ImageEncoder

# Detectron2's ResNet knows "res2" to "res5".
MAX_STAGES = 4


@IMAGE_ENCODER_REGISTRY.register()
class FPNImageEncoder(ImageEncoder):
    """Detectron2's basic blocks, then FPN's top-down path (arXiv 1612.03144) to one grid.

    Two stride-2 convs come first, where :class:`ConvImageEncoder` starts at full resolution: more
    parameters in less time. Of the pyramid only the wanted level is computed.
    """

    def __init__(
        self,
        *,
        out_channels: int,
        stride: int = 8,
        stem_channels: int = 32,
        stem_stride: int = 4,
        widths: Sequence[int] = (48, 96, 160, 224),
        num_blocks: int = 1,
        pyramid_channels: int = 96,
    ) -> None:
        """
        Args:
            out_channels: channels of the condition.
            stride: side of a cell of the condition's grid, pixels: the stride of one of the stages.
            stem_channels, stem_stride: of the first convs; the stride is 1, 2 or 4.
            widths: width of each of one to four stages, multiples of 8, none the same as that
                before it. The first keeps the stem's stride, each further one doubles it.
            num_blocks: two-conv blocks in each stage.
            pyramid_channels: of the top-down path, a multiple of 8.

        Raises:
            ValueError: sizes that do not fit.
        """
        if not 1 <= len(widths) <= MAX_STAGES:
            raise ValueError(
                f"FPNImageEncoder: WIDTHS has {len(widths)} stages; Detectron2's ResNet takes 1 to "
                f"{MAX_STAGES}"
            )
        if pyramid_channels < 1 or pyramid_channels % CHANNELS_PER_GROUP:
            raise ValueError(
                f"FPNImageEncoder: PYRAMID_CHANNELS must be multiples of {CHANNELS_PER_GROUP}, got "
                f"{pyramid_channels}"
            )
        strides = [stem_stride * 2**i for i in range(len(widths))]
        if stride not in strides:
            raise ValueError(
                f"FPNImageEncoder: STRIDE {stride} is the stride of none of its {len(widths)} "
                f"stages, which have {strides}: change STRIDE, STEM_STRIDE or WIDTHS"
            )
        super().__init__(out_channels=out_channels, stride=stride)
        names = [f"res{i + 2}" for i in range(len(widths))]
        first = strides.index(stride)
        self.levels = names[first:]
        self.backbone = build_small_resnet(
            stem_channels=stem_channels,
            stem_stride=stem_stride,
            channels=widths,
            num_blocks=[num_blocks] * len(widths),
            strides=[1] + [2] * (len(widths) - 1),
            out_features=self.levels,
            owner="FPNImageEncoder",
        )
        self.lateral_convs = nn.ModuleList(
            _conv(width, pyramid_channels, kernel_size=1) for width in widths[first:]
        )
        self.output_conv = _conv(pyramid_channels, pyramid_channels, kernel_size=3)
        self.projection = nn.Sequential(nn.SiLU(), nn.Conv2d(pyramid_channels, out_channels, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, out_channels, S / stride, S / stride)."""
        features = self.backbone(images)
        x: Tensor | None = None
        for level, lateral_conv in zip(self.levels[::-1], self.lateral_convs[::-1], strict=True):
            lateral = lateral_conv(features[level])
            if x is None:
                x = lateral
            else:
                # A side that is odd at the coarser level has one cell less than twice there.
                x = lateral + F.interpolate(x, size=lateral.shape[-2:], mode="nearest")
        return self.projection(self.output_conv(x))


def _conv(in_channels: int, out_channels: int, *, kernel_size: int) -> Conv2d:
    """As in Detectron2's FPN: no bias, normalised, no activation."""
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        padding=kernel_size // 2,
        bias=False,
        norm=group_norm(out_channels),
    )
    weight_init.c2_xavier_fill(conv)
    return conv
