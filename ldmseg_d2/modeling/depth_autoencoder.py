"""Depth in metres to [-1, 1] and back, and the autoencoder of such maps, by regression."""

from typing import NamedTuple

import torch
from torch import Tensor

from .latent_autoencoder import LatentAutoencoder, shuffle_decoder, unshuffle_encoder

NORMALIZATIONS = ("relative", "metric")
SCALES = ("linear", "log")
# Marigold (arXiv 2312.02145, eq. 2) normalises between these quantiles, robust to outliers.
QUANTILES = (0.02, 0.98)


class DepthNormalization(NamedTuple):
    """How depth is normalised.

    "relative": each picture's 2 % and 98 % quantiles become -1 and 1 (Marigold, arXiv 2312.02145,
    section 3.2); metres are lost, a result (with scale "log" its logarithm) is known up to scale
    and shift. "metric": a range of metres becomes [-1, 1], the same in all pictures; values outside
    are clipped.
    """

    kind: str = "relative"
    range: tuple[float, float] = (0.5, 80.0)  # metres, of "metric"
    scale: str = "linear"  # or "log": equal ratios become equal steps

    def check(self) -> None:
        """Raise a ValueError that names the config key unless the values make sense."""
        if self.kind not in NORMALIZATIONS:
            raise ValueError(
                f"MODEL.LDMSEG.DEPTH.NORMALIZATION is {self.kind!r}; allowed: "
                f"{', '.join(NORMALIZATIONS)}"
            )
        if self.scale not in SCALES:
            raise ValueError(
                f"MODEL.LDMSEG.DEPTH.SCALE is {self.scale!r}; allowed: {', '.join(SCALES)}"
            )
        if len(self.range) != 2 or not 0 < self.range[0] < self.range[1]:
            raise ValueError(
                f"MODEL.LDMSEG.DEPTH.RANGE is {self.range}; it takes two metres, 0 < near < far"
            )

    def normalize(self, depth: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            depth: (H, W) metres; 0, negative and infinite values are invalid.

        Returns:
            (H, W) in [-1, 1], 0 where invalid; and (H, W) bool, the valid pixels.
        """
        self.check()
        valid = torch.isfinite(depth) & (depth > 0)
        if not bool(valid.any()):
            return torch.zeros_like(depth), valid
        values = self._scaled(depth.where(valid, torch.ones_like(depth)))
        if self.kind == "relative":
            near, far = torch.quantile(values[valid], values.new_tensor(QUANTILES))
        else:
            near, far = self._scaled(values.new_tensor(self.range))
        # Of a flat picture both quantiles are one value.
        span = (far - near).clamp(min=1e-6)
        normalized = (2 * (values - near) / span - 1).clamp(-1, 1)
        return normalized.where(valid, torch.zeros_like(normalized)), valid

    def denormalize(self, normalized: Tensor) -> Tensor:
        """From [-1, 1] to metres ("metric"), or to [0, 1] ("relative")."""
        self.check()
        share = (normalized.clamp(-1, 1) + 1) / 2
        if self.kind == "relative":
            return share
        near, far = self._scaled(normalized.new_tensor(self.range))
        values = near + share * (far - near)
        return values.exp() if self.scale == "log" else values

    def _scaled(self, depth: Tensor) -> Tensor:
        return depth.log() if self.scale == "log" else depth


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
    ) -> None:
        """
        Args:
            downsample_factor, latent_channels, latent_noise: see :class:`LatentAutoencoder`; the
                latents are standardised.
            channels: of every conv at low resolution.
            num_layers: residual blocks of the encoder, and of the decoder.

        Raises:
            ValueError: a factor that does not fit.
        """
        super().__init__(
            downsample_factor=downsample_factor,
            latent_channels=latent_channels,
            latent_noise=latent_noise,
            normalization="standardize",
            scaling_factor=1.0,
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
