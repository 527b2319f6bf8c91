"""Image encoders: photo to the denoiser's image condition. Importing registers them."""

from .conv import ConvImageEncoder
from .diffusers_vae import TinyVAEImageEncoder, VAEImageEncoder
from .dinov2 import DINOv2ImageEncoder
from .registry import IMAGE_ENCODER_REGISTRY, ImageEncoder, build_image_encoder
from .timm_features import TimmImageEncoder

__all__ = [
    "IMAGE_ENCODER_REGISTRY",
    "ConvImageEncoder",
    "DINOv2ImageEncoder",
    "ImageEncoder",
    "TimmImageEncoder",
    "TinyVAEImageEncoder",
    "VAEImageEncoder",
    "build_image_encoder",
]
