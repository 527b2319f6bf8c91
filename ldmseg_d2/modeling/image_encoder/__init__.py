"""Image encoders: photo to the denoiser's image condition. Importing registers them."""

from .conv_encoder import ConvImageEncoder
from .encoder_registry import IMAGE_ENCODER_REGISTRY, ImageEncoder, build_image_encoder
from .timm_encoders import DINOv2ImageEncoder, TimmImageEncoder
from .vae_encoder import VAEImageEncoder

__all__ = [
    "IMAGE_ENCODER_REGISTRY",
    "ConvImageEncoder",
    "DINOv2ImageEncoder",
    "ImageEncoder",
    "TimmImageEncoder",
    "VAEImageEncoder",
    "build_image_encoder",
]
