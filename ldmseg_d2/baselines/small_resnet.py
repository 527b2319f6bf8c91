"""A ResNet of a few million parameters for small pictures, of Detectron2's blocks."""

from collections.abc import Sequence

import fvcore.nn.weight_init as weight_init
from detectron2.layers import CNNBlockBase, Conv2d
from detectron2.modeling.backbone.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS_PER_GROUP = 8
# Stride of the stem to those of its convs.
STEM_STRIDES = {1: (1,), 2: (2,), 4: (2, 2)}


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm of 8 channels a group: with few channels, 32 groups would see one or two each.

    Args:
        channels: a multiple of 8.
    """
    return nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels)


class SmallStem(CNNBlockBase):
    """One or two 3x3 convs: ResNet's 7x7 conv and pooling would skip most of a small picture."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        """
        Args:
            in_channels, out_channels: of the stem.
            stride: 1, 2 or 4.
        """
        super().__init__(in_channels, out_channels, stride)
        self.convs = nn.ModuleList()
        for one in STEM_STRIDES[stride]:
            conv = Conv2d(
                in_channels,
                out_channels,
                kernel_size=3,
                stride=one,
                padding=1,
                bias=False,
                norm=group_norm(out_channels),
                activation=F.relu,
            )
            weight_init.c2_msra_fill(conv)
            self.convs.append(conv)
            in_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x)
        return x


def build_small_resnet(
    *,
    in_channels: int = 3,
    stem_channels: int,
    stem_stride: int,
    channels: Sequence[int],
    num_blocks: Sequence[int],
    strides: Sequence[int],
    out_features: Sequence[str],
    owner: str = "MODEL.SMALL_RESNET",
) -> ResNet:
    """Build it, with random weights and GroupNorm.

    Args:
        in_channels: of the photo.
        stem_channels, stem_stride: see :class:`SmallStem`.
        channels, num_blocks, strides: one for each stage, "res2" first.
        out_features: names of the stages whose features are wanted.
        owner: whose keys these are, for errors.

    Raises:
        ValueError: lists of different lengths, a stem or blocks that cannot be, or channels that do
            not fit.
    """
    if not len(channels) == len(num_blocks) == len(strides):
        raise ValueError(
            f"{owner}: CHANNELS, NUM_BLOCKS and STRIDES need one entry for each stage, got "
            f"{list(channels)}, {list(num_blocks)} and {list(strides)}"
        )
    if stem_stride not in STEM_STRIDES or min(num_blocks, default=1) < 1:
        raise ValueError(
            f"{owner}: STEM_STRIDE is {stem_stride} and NUM_BLOCKS {list(num_blocks)}; allowed: "
            "1, 2 or 4, and at least 1"
        )
    widths = [stem_channels, *channels]
    # With a stride and the same channels, Detectron2's block would have no conv on its shortcut.
    same = any(s > 1 and a == b for s, a, b in zip(strides, widths[:-1], channels, strict=True))
    if same or any(width < 1 or width % CHANNELS_PER_GROUP for width in widths):
        raise ValueError(
            f"{owner}: all channels must be multiples of {CHANNELS_PER_GROUP}, and a stage with a "
            f"stride above 1 needs other channels than before it; got {stem_channels} for the stem "
            f"and {list(channels)}, strides {list(strides)}"
        )
    stem = SmallStem(in_channels, stem_channels, stem_stride)
    stages = [
        ResNet.make_stage(
            BasicBlock,
            num_blocks=blocks,
            stride_per_block=[stride] + [1] * (blocks - 1),
            in_channels=before,
            out_channels=width,
            norm=group_norm,
        )
        for before, width, blocks, stride in zip(
            widths[:-1], channels, num_blocks, strides, strict=True
        )
    ]
    return ResNet(stem, stages, out_features=list(out_features))
