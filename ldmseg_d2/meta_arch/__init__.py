"""Meta-architectures. Importing registers them in Detectron2's META_ARCH_REGISTRY."""

from .autoencoders import LDMSegAutoencoder, LDMSegDepthAutoencoder
from .ldmseg import LDMSeg

__all__ = ["LDMSeg", "LDMSegAutoencoder", "LDMSegDepthAutoencoder"]
