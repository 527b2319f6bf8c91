"""A UNet that a test can afford, its inputs, and the whole model around it."""

import torch
from detectron2.modeling import build_model
from tiny import tiny_config
from torch import Tensor, nn

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


def inputs(condition_size: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x_t, t, condition and previous x0 of a denoiser with the sizes TINY."""
    generator = torch.Generator().manual_seed(3)
    x, previous = torch.randn(2, 2, 4, 8, 8, generator=generator)
    condition = torch.randn(2, 6, condition_size, condition_size, generator=generator)
    return x, torch.tensor([3, 700]), condition, previous


def whole_model(**options) -> nn.Module:
    """LDMSeg at a tiny size, with an image encoder whose grid is half the latent's."""
    named = [(f"MODEL.LDMSEG.DENOISER.{key}", value) for key, value in options.items()]
    widths = ("MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS.WIDTHS", [8, 16, 16, 16])
    opts = [word for pair in (*named, widths) for word in pair]
    torch.manual_seed(0)
    return build_model(tiny_config("scenes/ldmseg_scenes64.yaml", *opts))
