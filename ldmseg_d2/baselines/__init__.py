"""What LDMSeg is compared with: other models behind the same inputs, outputs and trainer.

Importing registers their meta-architectures, backbones and dataset mappers. Nothing of the method
imports this package.
"""

from . import baseline_mappers, small_resnet_backbones
from .baseline_keys import add_baseline_config
from .mask2former import HFMask2Former
from .panoptic_deeplab import PanopticDeepLabBaseline
from .panoptic_fpn import PanopticFPNBaseline

__all__ = [
    "HFMask2Former",
    "PanopticDeepLabBaseline",
    "PanopticFPNBaseline",
    "add_baseline_config",
    "baseline_mappers",
    "small_resnet_backbones",
]
