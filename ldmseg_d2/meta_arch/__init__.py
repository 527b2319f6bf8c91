"""Meta-architectures. Importing registers them in Detectron2's META_ARCH_REGISTRY."""

from .depth_autoencoder import LDMSegDepthAutoencoder
from .detectron2_baselines import PanopticDeepLabBaseline, PanopticFPNBaseline
from .image_encoder import LDMSegImageEncoder
from .ldmseg import LDMSeg
from .mask2former import HFMask2Former
from .mask_autoencoder import LDMSegAutoencoder

__all__ = [
    "HFMask2Former",
    "LDMSeg",
    "LDMSegAutoencoder",
    "LDMSegDepthAutoencoder",
    "LDMSegImageEncoder",
    "PanopticDeepLabBaseline",
    "PanopticFPNBaseline",
]
