"""Image encoders: photo to the denoiser's image condition. Importing registers them."""

from . import conv_encoder, timm_encoders, vae_encoder
from .encoder_registry import IMAGE_ENCODER_REGISTRY, ImageEncoder, build_image_encoder

_REGISTERED = (conv_encoder, timm_encoders, vae_encoder)
__all__ = ["IMAGE_ENCODER_REGISTRY", "ImageEncoder", "build_image_encoder"]
