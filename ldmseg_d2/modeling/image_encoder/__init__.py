"""Image encoders: photo to the denoiser's image condition. Importing registers them."""

from .conv import ConvImageEncoder
from .registry import IMAGE_ENCODER_REGISTRY, ImageEncoder, build_image_encoder

__all__ = ["IMAGE_ENCODER_REGISTRY", "ConvImageEncoder", "ImageEncoder", "build_image_encoder"]
