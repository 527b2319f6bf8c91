"""A ResNet of a few million parameters for small pictures, of Detectron2's blocks."""

from collections.abc import Sequence

import fvcore.nn.weight_init as weight_init
from detectron2.layers import CNNBlockBase, Conv2d
from detectron2.modeling.backbone.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS_PER_GROUP = 8


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm of 8 channels a group: with few channels, 32 groups would see one or two each.

    Raises:
        ValueError: not a multiple of 8.
    """
    if channels % CHANNELS_PER_GROUP:
        raise ValueError(
            f"MODEL.SMALL_RESNET: {channels} channels; all must be multiples of "
            f"{CHANNELS_PER_GROUP}"
        )
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
        strides = {1: (1,), 2: (2,), 4: (2, 2)}
        if stride not in strides:
            raise ValueError(f"MODEL.SMALL_RESNET.STEM_STRIDE is {stride}; allowed: 1, 2, 4")
        self.convs = nn.ModuleList()
        for one in strides[stride]:
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
) -> ResNet:
    """Build it, with random weights and GroupNorm.

    Args:
        in_channels: of the photo.
        stem_channels, stem_stride: see :class:`SmallStem`.
        channels, num_blocks, strides: one for each stage, "res2" first.
        out_features: names of the stages whose features are wanted.

    Raises:
        ValueError: lists of different lengths, or channels that no norm fits.
    """
    if not len(channels) == len(num_blocks) == len(strides):
        raise ValueError(
            "MODEL.SMALL_RESNET: CHANNELS, NUM_BLOCKS and STRIDES need one entry for each stage, "
            f"got {list(channels)}, {list(num_blocks)} and {list(strides)}"
        )
    stem = SmallStem(in_channels, stem_channels, stem_stride)
    stages, width = [], stem_channels
    for wide, blocks, stride in zip(channels, num_blocks, strides):
        if stride > 1 and wide == width:  # Detectron2's block would have no conv on its shortcut
            raise ValueError(
                f"MODEL.SMALL_RESNET: a stage with stride {stride} needs other channels than "
                f"before it, got {width} and {wide}"
            )
        stages.append(
            ResNet.make_stage(
                BasicBlock,
                num_blocks=blocks,
                stride_per_block=[stride] + [1] * (blocks - 1),
                in_channels=width,
                out_channels=wide,
                norm=group_norm,
            )
        )
        width = wide
    return ResNet(stem, stages, out_features=list(out_features))
