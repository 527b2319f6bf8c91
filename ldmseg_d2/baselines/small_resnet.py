"""A ResNet of a few million parameters for small pictures, of Detectron2's blocks.

The backbone, with or without FPN, of Panoptic FPN and Panoptic-DeepLab from scratch.
"""

from collections.abc import Sequence

import fvcore.nn.weight_init as weight_init
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, Backbone
from detectron2.modeling.backbone.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torch.nn import functional as F

KEY = "MODEL.SMALL_RESNET.OPTIONS"
# With few channels, 32 groups would see one or two each.
CHANNELS_PER_GROUP = 8
# Stride of the stem to those of its convs.
STEM_STRIDES = {1: (1,), 2: (2,), 4: (2, 2)}


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm of 8 channels a group."""
    return nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels)


class SmallStem(CNNBlockBase):
    """One or two 3x3 convs: ResNet's 7x7 conv and pooling would skip most of a small picture."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
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
    in_channels: int,
    out_features: Sequence[str],
    *,
    stem_channels: int = 32,
    stem_stride: int = 2,
    channels: Sequence[int] = (32, 64, 128, 192),
    num_blocks: Sequence[int] = (1, 1, 1, 1),
    strides: Sequence[int] = (1, 2, 2, 2),
) -> ResNet:
    """Build it with random weights; `channels`, `num_blocks` and `strides` from "res2" on."""
    if not len(channels) == len(num_blocks) == len(strides):
        raise ValueError(
            f"{KEY}: CHANNELS, NUM_BLOCKS and STRIDES need one entry for each stage, got "
            f"{list(channels)}, {list(num_blocks)} and {list(strides)}"
        )
    if stem_stride not in STEM_STRIDES:
        raise ValueError(f"{KEY}: STEM_STRIDE is {stem_stride}; allowed: 1, 2 or 4")
    widths = [stem_channels, *channels]
    # With a stride and the same channels, Detectron2's block would have no conv on its shortcut.
    same = any(s > 1 and a == b for s, a, b in zip(strides, widths[:-1], channels, strict=True))
    if same or any(width % CHANNELS_PER_GROUP for width in widths):
        raise ValueError(
            f"{KEY}: all channels must be multiples of {CHANNELS_PER_GROUP}, and a stage with a "
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
        for before, width, blocks, stride in zip(widths, channels, num_blocks, strides)
    ]
    return ResNet(stem, stages, out_features=list(out_features))


@BACKBONE_REGISTRY.register()
def build_small_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """The ResNet of ``MODEL.SMALL_RESNET`` that gives ``MODEL.RESNETS.OUT_FEATURES``."""
    options = {key.lower(): value for key, value in cfg.MODEL.SMALL_RESNET.OPTIONS.items()}
    try:
        return build_small_resnet(input_shape.channels, cfg.MODEL.RESNETS.OUT_FEATURES, **options)
    except TypeError as error:
        known = ", ".join(key.upper() for key in build_small_resnet.__kwdefaults__)
        raise ValueError(f"{KEY}: {error}. It takes {known}") from error


@BACKBONE_REGISTRY.register()
def build_small_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """FPN on it, by ``MODEL.FPN``: "p1" is the level of stride 2, "p2" of stride 4, ..."""
    return FPN(
        bottom_up=build_small_resnet_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
