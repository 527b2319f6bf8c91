"""What all shallow autoencoders share: the scale of their latents, training noise, small nets."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORMALIZATIONS = ("fixed", "standardize")


class LatentAutoencoder(nn.Module):
    """Base class of the mask and the depth autoencoder.

    Latents come in two scales: *raw* ones, between encoder and decoder, and *normalised* ones,
    which the diffusion model sees: ``(raw - shift) * scale``, see :meth:`normalize`.
    """

    # The config node that messages about wrong sizes name.
    config_key = "MODEL.LDMSEG.AUTOENCODER"

    def __init__(
        self,
        *,
        downsample_factor: int,
        latent_channels: int,
        latent_noise: float,
        normalization: str,
        scaling_factor: float,
    ) -> None:
        """
        Args:
            downsample_factor: picture side over latent side, a power of 2.
            latent_channels: channels C of the latent.
            latent_noise: noise in training, in standard deviations of each latent channel.
            normalization: "fixed" or "standardize" (running mean and deviation per channel).
            scaling_factor: normalised latents are multiplied by it.

        Raises:
            ValueError: an unknown name, or a factor that does not fit.
        """
        super().__init__()
        self.check_choice("NORMALIZATION", normalization, NORMALIZATIONS)
        self.num_halvings = downsample_factor.bit_length() - 1
        if downsample_factor < 2 or 2**self.num_halvings != downsample_factor:
            raise ValueError(
                f"{self.config_key}.DOWNSAMPLE_FACTOR must be a power of 2 from 2 on, got "
                f"{downsample_factor}"
            )
        self.downsample_factor = downsample_factor
        self.latent_channels = latent_channels
        self.latent_noise = latent_noise
        self.normalization = normalization
        self.scaling_factor = scaling_factor
        if normalization == "standardize":
            self.register_buffer("running_mean", torch.zeros(latent_channels))
            self.register_buffer("running_var", torch.ones(latent_channels))

    def check_choice(self, key: str, value: str, allowed: tuple[str, ...]) -> None:
        """Raise a ValueError that names the config key unless ``value`` is one of ``allowed``."""
        if value not in allowed:
            raise ValueError(f"{self.config_key}.{key} is {value!r}; allowed: {', '.join(allowed)}")

    def normalize(self, latents: Tensor) -> Tensor:
        """Raw latents (B, C, h, w) to the diffusion model's scale."""
        if self.normalization == "standardize":
            shift, scale = self._statistics()
            latents = (latents - shift) / scale
        return latents * self.scaling_factor

    def denormalize(self, latents: Tensor) -> Tensor:
        """The inverse of :meth:`normalize`."""
        latents = latents / self.scaling_factor
        if self.normalization == "standardize":
            shift, scale = self._statistics()
            latents = latents * scale + shift
        return latents

    def decode_normalized(self, latents: Tensor) -> Tensor:
        """What :meth:`decode` gives for latents (B, C, h, w) of the diffusion model's scale."""
        return self.decode(self.denormalize(latents))

    def add_latent_noise(self, latents: Tensor) -> Tensor:
        """Raw latents (B, C, h, w) with the training's noise, from torch's global generator."""
        if self.latent_noise <= 0:
            return latents
        # In units of the batch's own deviation: the encoder cannot evade it by larger values.
        std = latents.detach().float().std(dim=(0, 2, 3), keepdim=True)
        return latents + self.latent_noise * std * torch.randn_like(latents)

    @torch.no_grad()
    def update_statistics(self, latents: Tensor, momentum: float = 0.02) -> None:
        """Move the running statistics towards those of raw latents (B, C, h, w)."""
        if self.normalization != "standardize":
            return
        latents = latents.float()
        self.running_mean.lerp_(latents.mean(dim=(0, 2, 3)), momentum)
        self.running_var.lerp_(latents.var(dim=(0, 2, 3)), momentum)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        shift = self.running_mean.view(1, -1, 1, 1)
        return shift, self.running_var.view(1, -1, 1, 1).clamp(min=1e-8).sqrt()


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size, or divides it by ``stride``."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)


def unshuffle_encoder(
    in_channels: int, width: int, factor: int, num_layers: int, out_channels: int
) -> nn.Sequential:
    """Space-to-depth, then residual blocks at the latent's resolution."""
    return nn.Sequential(
        nn.PixelUnshuffle(factor),
        conv3x3(in_channels * factor**2, width),
        *(ResidualBlock(width) for _ in range(num_layers)),
        nn.SiLU(),
        nn.Conv2d(width, out_channels, 1),
    )


def shuffle_decoder(
    latent_channels: int, width: int, factor: int, num_layers: int, out_channels: int
) -> nn.Sequential:
    """Residual blocks at the latent's resolution, depth-to-space, one conv at full resolution."""
    full_width = max(width // 4, 16)
    return nn.Sequential(
        conv3x3(latent_channels, width),
        *(ResidualBlock(width) for _ in range(num_layers)),
        nn.SiLU(),
        nn.Conv2d(width, full_width * factor**2, 1),
        nn.PixelShuffle(factor),
        nn.SiLU(),
        conv3x3(full_width, out_channels),
    )


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, H, W), at each position on its own."""

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__(num_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(
            x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps
        )
        return x.permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Pre-activation residual block (arXiv 1603.05027) with GroupNorm, on (B, C, H, W).

    The second conv starts at zero, so that a new block is the identity.
    """

    def __init__(self, channels: int, num_groups: int = 8) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(num_groups, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(num_groups, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))
