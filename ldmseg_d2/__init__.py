"""LDMSeg (latent diffusion for panoptic segmentation) as a Detectron2 plugin.

Importing this package registers its meta-architectures, image encoders, data sets and dataset
mappers, and nothing else.
"""

from . import baselines, data, meta_arch, model_zoo
from .config import add_ldmseg_config

__version__ = "0.1.0"

__all__ = ["add_ldmseg_config", "baselines", "data", "meta_arch", "model_zoo"]
