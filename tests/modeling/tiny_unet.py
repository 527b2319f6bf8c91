"""A UNet that a test can afford, and its inputs."""

import torch
from torch import Tensor

TINY = {
    "latent_channels": 4,
    "condition_channels": 6,
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x_t, t, condition and previous x0 of a denoiser with the sizes TINY."""
    generator = torch.Generator().manual_seed(3)
    x, previous = torch.randn(2, 2, 4, 8, 8, generator=generator)
    condition = torch.randn(2, 6, 8, 8, generator=generator)
    return x, torch.tensor([3, 700]), condition, previous
