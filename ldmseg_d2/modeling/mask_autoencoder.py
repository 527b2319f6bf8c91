"""The mask autoencoder: segment ids to a small latent and back (arXiv 2401.10227, section 3.1).

One class for both stages and for every variant: the encoder, the decoder and the head are chosen by
name, so that an experiment is a configuration.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..ids import code_matrix, encode_bits
from .latent_autoencoder import (
    ChannelLayerNorm,
    LatentAutoencoder,
    conv3x3,
    shuffle_decoder,
    unshuffle_encoder,
)

ENCODERS = ("conv", "pixel_unshuffle")
DECODERS = ("transposed_conv", "pixel_shuffle")
HEADS = ("id_logits", "factored")


class Posterior(NamedTuple):
    """Diagonal Gaussian over latents; ``logvar`` is None for a deterministic encoder."""

    mean: Tensor  # (B, C, h, w)
    logvar: Tensor | None  # (B, C, h, w)

    def sample(self) -> Tensor:
        """Draw latents (B, C, h, w) with torch's global generator."""
        if self.logvar is None:
            return self.mean
        return self.mean + torch.exp(0.5 * self.logvar) * torch.randn_like(self.mean)

    def kl(self) -> Tensor:
        """KL divergence from the standard normal, mean over all latent values (scalar)."""
        if self.logvar is None:
            return self.mean.new_zeros(())
        return 0.5 * (self.mean**2 + self.logvar.exp() - 1 - self.logvar).mean()


class MaskAutoencoder(LatentAutoencoder):
    """Shallow autoencoder of segment-id maps."""

    def __init__(
        self,
        *,
        num_bits: int = 7,
        encoder: str = "conv",
        decoder: str = "transposed_conv",
        head: str = "id_logits",
        downsample_factor: int = 8,
        latent_channels: int = 4,
        encoder_channels: int = 32,
        decoder_channels: int = 256,
        num_layers: int = 3,
        variational: bool = True,
        latent_noise: float = 0.0,
        normalization: str = "fixed",
        scaling_factor: float = 0.18215,
    ) -> None:
        """
        Args:
            num_bits: bits of an id; ids are 0 (void) to 2^num_bits - 1.
            encoder: "conv" (the paper) or "pixel_unshuffle".
            decoder: "transposed_conv" (the paper) or "pixel_shuffle".
            head: "id_logits" (the paper: a channel per id) or "factored" (bit logits and a void
                logit, from which the ids' logits follow).
            downsample_factor: picture side over latent side, a power of 2.
            latent_channels: channels C of the latent.
            encoder_channels, decoder_channels, num_layers: sizes, see ``MODEL.LDMSEG.AUTOENCODER``
                in config/model_keys.py.
            variational: the encoder gives a Gaussian posterior.
            latent_noise: noise in training, in standard deviations of each latent channel.
            normalization: "fixed" or "standardize" (running mean and deviation per channel).
            scaling_factor: normalised latents are multiplied by it.

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
        self.check_choice("ENCODER", encoder, ENCODERS)
        self.check_choice("DECODER", decoder, DECODERS)
        self.check_choice("HEAD", head, HEADS)
        num_halvings = self.num_halvings
        self.num_bits = num_bits
        self.num_ids = 2**num_bits
        self.head = head
        self.variational = variational

        encoder_out = latent_channels * (2 if variational else 1)
        if encoder == "conv":
            self.encoder = _conv_encoder(num_bits, encoder_channels, num_halvings, encoder_out)
        else:
            self.encoder = unshuffle_encoder(
                num_bits, encoder_channels, downsample_factor, num_layers, encoder_out
            )
        decoder_out = self.num_ids if head == "id_logits" else num_bits + 1
        if decoder == "transposed_conv":
            self.decoder = _transposed_conv_decoder(
                latent_channels, decoder_channels, num_halvings, decoder_out
            )
        else:
            self.decoder = shuffle_decoder(
                latent_channels, decoder_channels, downsample_factor, num_layers, decoder_out
            )
        if head == "factored":
            self.register_buffer("codes", code_matrix(num_bits), persistent=False)

    def encode(self, ids: Tensor) -> Posterior:
        """Posterior of the raw latents of id maps.

        Args:
            ids: (B, H, W) int64 in 0..2^num_bits - 1, H and W multiples of downsample_factor.
        """
        moments = self.encoder(encode_bits(ids, self.num_bits))  # [B, C or 2C, h, w]
        if not self.variational:
            return Posterior(moments, None)
        mean, logvar = moments.chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(-30.0, 20.0))

    def decode(self, latents: Tensor) -> Tensor:
        """Head output for raw latents (B, C, h, w).

        Returns:
            "id_logits": (B, 2^num_bits, H, W) logits of the ids, 0 being void;
            "factored": (B, num_bits + 1, H, W) bit logits, least significant first, then void.
        """
        return self.decoder(latents)

    def id_logits(self, head_output: Tensor) -> Tensor:
        """Logits (B, 2^num_bits, H, W) of all ids from what :meth:`decode` returns."""
        if self.head == "id_logits":
            return head_output
        bits, void = head_output.split([self.num_bits, 1], dim=1)
        return torch.cat([void, torch.einsum("kb,nbhw->nkhw", self.codes.to(bits), bits)], dim=1)

    def forward(self, ids: Tensor) -> tuple[Tensor, Posterior]:
        """Reconstruct id maps (B, H, W): the head's output and the posterior.

        In training the posterior is sampled, latent noise is added and the running statistics of
        the latents are updated; in eval mode the posterior's mean is decoded.
        """
        posterior = self.encode(ids)
        if not self.training:
            return self.decode(posterior.mean), posterior
        latents = posterior.sample()
        self.update_statistics(posterior.mean)
        return self.decode(self.add_latent_noise(latents)), posterior


def _conv_encoder(num_bits: int, width: int, num_halvings: int, out_channels: int) -> nn.Sequential:
    """The paper's encoder.

    Positions in the sequence are those of published checkpoints, hence the Identity.
    """
    layers: list[nn.Module] = [conv3x3(num_bits, width), nn.SiLU()]
    for _ in range(num_halvings):
        layers += [conv3x3(width, width), conv3x3(width, 2 * width, stride=2), nn.SiLU()]
        width *= 2
    layers += [conv3x3(width, width), nn.Identity(), nn.GroupNorm(32, width, eps=1e-6), nn.SiLU()]
    return nn.Sequential(*layers, conv3x3(width, out_channels))


def _transposed_conv_decoder(
    latent_channels: int, width: int, num_halvings: int, out_channels: int
) -> nn.Sequential:
    """The paper's decoder: two learnt upsamplings, then a bilinear one for what is left.

    Positions in the sequence are those of published checkpoints, hence the Identity.
    """
    layers: list[nn.Module] = [conv3x3(latent_channels, width), nn.Identity()]
    for _ in range(min(num_halvings, 2)):
        layers += [
            nn.ConvTranspose2d(width, width, 2, stride=2),
            ChannelLayerNorm(width),
            nn.SiLU(),
        ]
    layers += [nn.GroupNorm(32, width), nn.SiLU(), conv3x3(width, out_channels)]
    if num_halvings > 2:
        factor = 2 ** (num_halvings - 2)
        layers.append(nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)
