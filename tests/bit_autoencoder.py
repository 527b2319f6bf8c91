"""A mask autoencoder that loses nothing, so that a test sees what is around it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ldmseg_d2.ids import encode_bits
from ldmseg_d2.modeling.mask_autoencoder import MaskAutoencoder, Posterior


class BitAutoencoder(MaskAutoencoder):
    """Latents are the analog bits of 2x2 pixels; the decoder puts them back."""

    def __init__(self, num_bits: int) -> None:
        super().__init__(
            num_bits=num_bits,
            decoder="pixel_shuffle",
            head="factored",
            downsample_factor=2,
            latent_channels=4 * num_bits,
            decoder_channels=16,
            num_layers=0,
            scaling_factor=0.5,
        )
        self.encoder, self.decoder = nn.Identity(), nn.Identity()
        self.unused = nn.Parameter(torch.zeros(()))  # tells the device

    def encode(self, ids: Tensor) -> Posterior:
        return Posterior(F.pixel_unshuffle(encode_bits(ids, self.num_bits), 2), None)

    def decode(self, latents: Tensor) -> Tensor:
        bits = F.pixel_shuffle(latents, 2)
        void = 20 * self.num_bits * (0.5 - bits.abs().mean(dim=1, keepdim=True))
        return torch.cat([10 * bits, void], dim=1)
