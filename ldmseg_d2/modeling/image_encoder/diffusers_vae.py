"""The encoders of Stable Diffusion's VAE and of its small stand-in, through diffusers."""

from collections.abc import Mapping, Sequence
from typing import Any

from diffusers import AutoencoderKL, AutoencoderTiny, ModelMixin
from torch import Tensor

from .pretrained import load_diffusers_model
from .registry import IMAGE_ENCODER_REGISTRY, ImageEncoder


@IMAGE_ENCODER_REGISTRY.register()
class VAEImageEncoder(ImageEncoder):
    """AutoencoderKL's encoder: the posterior's mean, times the scaling factor (the paper's).

    The sizes' defaults are Stable Diffusion 1.x's: 8x down, 4 channels, 34M parameters.
    """

    needs_unit_range = True

    def __init__(
        self,
        *,
        out_channels: int,
        pretrained: str = "",
        subfolder: str = "vae",
        block_out_channels: Sequence[int] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        latent_channels: int = 4,
        norm_num_groups: int = 32,
        scaling_factor: float = 0.18215,
    ) -> None:
        """
        Args:
            out_channels: must be `latent_channels`.
            pretrained: a local folder or a repository on the hub, see
                :func:`load_diffusers_model`; "": random weights.
            subfolder: of `pretrained`.
            block_out_channels, layers_per_block, latent_channels, norm_num_groups: as in
                diffusers' AutoencoderKL; those of `pretrained` must be the same.
            scaling_factor: brings the latents to a standard deviation of about 1.

        Raises:
            ValueError: channels or sizes do not agree.
        """
        _check_channels(type(self).__name__, out_channels, latent_channels)
        super().__init__(out_channels=out_channels, stride=2 ** (len(block_out_channels) - 1))
        sizes = {
            "block_out_channels": tuple(block_out_channels),
            "layers_per_block": layers_per_block,
            "latent_channels": latent_channels,
            "norm_num_groups": norm_num_groups,
        }
        if pretrained:
            vae = load_diffusers_model(AutoencoderKL, pretrained, subfolder=subfolder)
            _check_sizes(vae, sizes, pretrained)
        else:
            vae = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * len(block_out_channels),
                up_block_types=("UpDecoderBlock2D",) * len(block_out_channels),
                **sizes,
            )
        del vae.decoder, vae.post_quant_conv
        self.vae = vae
        self.is_pretrained = bool(pretrained)
        self.scaling_factor = scaling_factor

    def forward(self, images: Tensor) -> Tensor:
        """Photos (B, 3, S, S) in [-1, 1] to (B, latent_channels, S / stride, S / stride)."""
        return self.vae.encode(images).latent_dist.mean * self.scaling_factor


@IMAGE_ENCODER_REGISTRY.register()
class TinyVAEImageEncoder(ImageEncoder):
    """AutoencoderTiny's encoder, a fast stand-in for Stable Diffusion's VAE.

    The weights named "madebyollin/taesd" give latents that are scaled already: their factor is 1.
    """

    needs_unit_range = True

    def __init__(
        self,
        *,
        out_channels: int,
        pretrained: str = "",
        subfolder: str = "",
        block_out_channels: Sequence[int] = (64, 64, 64, 64),
        num_blocks: Sequence[int] = (1, 3, 3, 3),
        latent_channels: int = 4,
        scaling_factor: float = 1.0,
    ) -> None:
        """
        Args:
            out_channels: must be `latent_channels`.
            pretrained, subfolder: as for :class:`VAEImageEncoder`.
            block_out_channels, num_blocks, latent_channels: ``encoder_block_out_channels``,
                ``num_encoder_blocks`` and ``latent_channels`` of diffusers' AutoencoderTiny; those
                of `pretrained` must be the same.
            scaling_factor: brings the latents to a standard deviation of about 1.

        Raises:
            ValueError: channels or sizes do not agree.
        """
        _check_channels(type(self).__name__, out_channels, latent_channels)
        super().__init__(out_channels=out_channels, stride=2 ** (len(block_out_channels) - 1))
        sizes = {
            "encoder_block_out_channels": tuple(block_out_channels),
            "num_encoder_blocks": tuple(num_blocks),
            "latent_channels": latent_channels,
        }
        if pretrained:
            vae = load_diffusers_model(AutoencoderTiny, pretrained, subfolder=subfolder)
            _check_sizes(vae, sizes, pretrained)
        else:
            # Its decoder, which is built along and removed, may be anything.
            vae = AutoencoderTiny(**sizes)
        del vae.decoder
        self.vae = vae
        self.is_pretrained = bool(pretrained)
        self.scaling_factor = scaling_factor

    def forward(self, images: Tensor) -> Tensor:
        """Photos (B, 3, S, S) in [-1, 1] to (B, latent_channels, S / stride, S / stride)."""
        return self.vae.encode(images).latents * self.scaling_factor


def _check_channels(name: str, out_channels: int, latent_channels: int) -> None:
    if out_channels != latent_channels:
        raise ValueError(
            f"MODEL.LDMSEG.IMAGE_ENCODER.OUT_CHANNELS is {out_channels}, but {name} gives its "
            f"{latent_channels} latent channels: set OUT_CHANNELS to {latent_channels}"
        )


def _check_sizes(vae: ModelMixin, sizes: Mapping[str, Any], pretrained: str) -> None:
    """The config must tell the whole architecture: without PRETRAINED it builds the same."""
    # JSON has lists where the constructor has tuples.
    found = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in ((key, vae.config[key]) for key in sizes)
    }
    wrong = [
        f"{key} {sizes[key]} (there: {found[key]})" for key in sizes if sizes[key] != found[key]
    ]
    if wrong:
        raise ValueError(
            f"MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS are not the sizes of {pretrained!r}: "
            + ", ".join(wrong)
        )
