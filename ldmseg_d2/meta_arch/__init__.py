"""Meta-architectures. Importing registers them in Detectron2's META_ARCH_REGISTRY."""

from .depth_autoencoder import LDMSegDepthAutoencoder
from .image_encoder import LDMSegImageEncoder
from .ldmseg import LDMSeg
from .mask_autoencoder import LDMSegAutoencoder

__all__ = [
    "LDMSeg",
    "LDMSegAutoencoder",
    "LDMSegDepthAutoencoder",
    "LDMSegImageEncoder",
]
