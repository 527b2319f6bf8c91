"""The depth autoencoder: a normalised depth map to a small latent and back, by regression."""

import torch
from torch import Tensor

from .latent_autoencoder import LatentAutoencoder, shuffle_decoder, unshuffle_encoder


class DepthAutoencoder(LatentAutoencoder):
    """Shallow autoencoder of depth maps in [-1, 1] with invalid pixels.

    Its latents have the shape of the mask autoencoder's, so that one denoiser serves both.
    """

    config_key = "MODEL.LDMSEG.DEPTH.AUTOENCODER"

    def __init__(
        self,
        *,
        downsample_factor: int = 8,
        latent_channels: int = 4,
        channels: int = 64,
        num_layers: int = 2,
        latent_noise: float = 0.0,
        normalization: str = "standardize",
        scaling_factor: float = 1.0,
    ) -> None:
        """
        Args:
            downsample_factor, latent_channels, latent_noise, normalization, scaling_factor: see
                :class:`LatentAutoencoder`.
            channels: of every conv at low resolution.
            num_layers: residual blocks of the encoder, and of the decoder.

        Raises:
            ValueError: an unknown name, or a factor that does not fit.
        """
        super().__init__(
            downsample_factor=downsample_factor,
            latent_channels=latent_channels,
            latent_noise=latent_noise,
            normalization=normalization,
            scaling_factor=scaling_factor,
        )
        sizes = channels, downsample_factor, num_layers
        self.encoder = unshuffle_encoder(2, *sizes, latent_channels)
        self.decoder = shuffle_decoder(latent_channels, *sizes, 1)

    def encode(self, depth: Tensor, valid: Tensor) -> Tensor:
        """Raw latents (B, C, h, w) of depth maps.

        Args:
            depth: (B, H, W) in [-1, 1] where valid; whatever else it holds is not read.
            valid: (B, H, W) bool.
        """
        depth = torch.where(valid, depth, 0.0)
        return self.encoder(torch.stack([depth, valid.to(depth.dtype)], dim=1))

    def decode(self, latents: Tensor) -> Tensor:
        """Depth (B, H, W), about in [-1, 1], from raw latents (B, C, h, w)."""
        return self.decoder(latents)[:, 0]

    def forward(self, depth: Tensor, valid: Tensor) -> Tensor:
        """Reconstruct depth maps (B, H, W); in training with latent noise."""
        latents = self.encode(depth, valid)
        if self.training:
            self.update_statistics(latents)
            latents = self.add_latent_noise(latents)
        return self.decode(latents)
