"""What LDMSeg is compared with: other models behind the same inputs, outputs and trainer.

Importing registers their meta-architectures, backbones and dataset mappers. Nothing of the method
imports this package.
"""

from . import baseline_mappers, mask2former, panoptic_deeplab, panoptic_fpn, small_resnet
from .baseline_keys import add_baseline_config

_REGISTERED = (baseline_mappers, mask2former, panoptic_deeplab, panoptic_fpn, small_resnet)
__all__ = ["add_baseline_config"]
