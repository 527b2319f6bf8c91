"""Backbones of ``MODEL.SMALL_RESNET``, for Panoptic FPN and Panoptic-DeepLab from scratch."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, Backbone

from .small_resnet import build_small_resnet

KEY = "MODEL.SMALL_RESNET.OPTIONS"
DEFAULTS = {
    "stem_channels": 32,
    "stem_stride": 2,
    "channels": [32, 64, 128, 192],
    "num_blocks": [1, 1, 1, 1],
    "strides": [1, 2, 2, 2],
}


@BACKBONE_REGISTRY.register()
def build_small_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """The ResNet of ``MODEL.SMALL_RESNET`` that gives ``MODEL.RESNETS.OUT_FEATURES``."""
    options = {key.lower(): value for key, value in cfg.MODEL.SMALL_RESNET.OPTIONS.items()}
    unknown = options.keys() - DEFAULTS.keys()
    if unknown:
        raise ValueError(
            f"{KEY} has no {unknown.pop().upper()}; it takes "
            f"{', '.join(key.upper() for key in DEFAULTS)}"
        )
    return build_small_resnet(
        in_channels=input_shape.channels,
        out_features=cfg.MODEL.RESNETS.OUT_FEATURES,
        owner=KEY,
        **{**DEFAULTS, **options},
    )


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
