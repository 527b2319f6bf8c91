"""The encoder of Stable Diffusion's VAE, through diffusers: the paper's image condition."""

from collections.abc import Sequence

from diffusers import AutoencoderKL
from torch import Tensor

from ..from_hub import load_pretrained
from .encoder_registry import IMAGE_ENCODER_REGISTRY, ImageEncoder

KEY = "MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS.PRETRAINED"


@IMAGE_ENCODER_REGISTRY.register()
class VAEImageEncoder(ImageEncoder):
    """AutoencoderKL's encoder: the posterior's mean, times the scaling factor.

    The sizes' defaults are Stable Diffusion 1.x's: 8x down, 34M parameters; it has 4 channels.
    """

    needs_unit_range = True

    def __init__(
        self,
        *,
        out_channels: int,
        pretrained: str = "",
        block_out_channels: Sequence[int] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        norm_num_groups: int = 32,
        scaling_factor: float = 0.18215,
    ) -> None:
        """
        Args:
            pretrained: a local folder, of the VAE or with a subfolder ``vae``, or the id of a
                repository on the hub, of the sizes that the other arguments (AutoencoderKL's)
                give; "": random weights. Errors: see :func:`load_pretrained`.
            scaling_factor: brings the latents to a standard deviation of about 1.
        """
        super().__init__(out_channels=out_channels, stride=2 ** (len(block_out_channels) - 1))
        sizes = {
            "latent_channels": out_channels,
            "block_out_channels": list(block_out_channels),
            "layers_per_block": layers_per_block,
            "norm_num_groups": norm_num_groups,
        }
        if pretrained:
            self.vae = _load_vae(pretrained, sizes)
        else:
            self.vae = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * len(block_out_channels),
                up_block_types=("UpDecoderBlock2D",) * len(block_out_channels),
                **sizes,
            )
        del self.vae.decoder, self.vae.post_quant_conv
        self.is_pretrained = bool(pretrained)
        self.scaling_factor = scaling_factor

    def forward(self, images: Tensor) -> Tensor:
        return self.vae.encode(images).latent_dist.mean * self.scaling_factor


def _load_vae(pretrained: str, sizes: dict) -> AutoencoderKL:
    """Load it and check its sizes: the config must tell them, for it builds without the file."""
    options = {"subfolder": "vae", "low_cpu_mem_usage": False}
    vae, missing = load_pretrained(AutoencoderKL, pretrained, key=KEY, **options)
    if missing:
        raise ValueError(
            f"{KEY} {pretrained!r} lacks {len(missing)} weights of AutoencoderKL, such as "
            f"{min(missing)}"
        )
    wrong = [f"{k} {v} (there: {vae.config[k]})" for k, v in sizes.items() if vae.config[k] != v]
    if wrong:
        raise ValueError(
            f"MODEL.LDMSEG.IMAGE_ENCODER: OUT_CHANNELS (latent_channels) and OPTIONS are not the "
            f"sizes of {pretrained!r}: {', '.join(wrong)}"
        )
    return vae.float()
