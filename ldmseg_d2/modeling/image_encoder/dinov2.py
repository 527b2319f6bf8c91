"""DINOv2 (arXiv 2304.07193) through timm: patch features as the image condition."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .pretrained import HUB, create_timm_model
from .projection import PhotoStatistics, Projection, resize_photos
from .registry import IMAGE_ENCODER_REGISTRY, ImageEncoder


@IMAGE_ENCODER_REGISTRY.register()
class DINOv2ImageEncoder(ImageEncoder):
    """Patch tokens of one or several blocks, LayerNorm, and a linear projection.

    The projection comes before the model's bilinear resize to the latent grid: the linear map
    commutes with the resize (bilinear weights sum to 1), LayerNorm belongs to the tokens as it does
    in every ViT, and out_channels channels are resized instead of the backbone's hundreds.

    Class and register tokens are left out. Every block's tokens go through the backbone's own final
    norm, as in DINOv2's own dense evaluation. Blocks after the last chosen one are removed.
    """

    backbone_names = ("backbone",)
    needs_unit_range = True

    def __init__(
        self,
        *,
        out_channels: int,
        model_name: str = "vit_base_patch14_dinov2.lvd142m",
        blocks: Sequence[int] = (-1,),
        pretrained: bool | str = HUB,
        resolution: int = 0,
        model_kwargs: Mapping = {},  # noqa: B006 (never written)
    ) -> None:
        """
        Args:
            out_channels: channels of the condition.
            model_name: a ViT of timm; DINOv2's are vit_{small,base,large,giant}_patch14_dinov2 and,
                with registers (arXiv 2309.16588), vit_..._patch14_reg4_dinov2, tag ``.lvd142m``.
            blocks: whose outputs are taken, 0 the first, -1 the last; several are concatenated.
            pretrained: see :func:`create_timm_model`.
            resolution: side of the photo that the backbone sees, pixels, a multiple of its patch;
                0: the multiple nearest to the photo's side (512 -> 518, DINOv2's own; a tie goes
                up). The patch size times the latent's side gives the latent grid itself.
            model_kwargs: further arguments of ``timm.create_model``, e.g. {drop_path_rate: 0.1}.

        Raises:
            ValueError: no such model or block, or a resolution that is no multiple of the patch.
        """
        backbone = create_timm_model(
            model_name, pretrained, **{"num_classes": 0, "dynamic_img_size": True, **model_kwargs}
        )
        super().__init__(out_channels=out_channels, stride=backbone.patch_embed.patch_size[0])
        depth = len(backbone.blocks)
        if not blocks or any(not -depth <= index < depth for index in blocks):
            raise ValueError(
                f"DINOv2ImageEncoder: blocks needs indices of the {depth} blocks of {model_name}, "
                f"{-depth}..{depth - 1}; got {list(blocks)}"
            )
        if resolution < 0 or resolution % self.stride:
            raise ValueError(
                f"DINOv2ImageEncoder: resolution {resolution} is no multiple of the patch of "
                f"{model_name}, {self.stride} px; 0 takes the multiple nearest to the photo's side"
            )
        self.blocks = sorted({index % depth for index in blocks})
        self.resolution = resolution
        # DistributedDataParallel wants a gradient for all that is there.
        backbone.prune_intermediate_layers(self.blocks)
        self.backbone = backbone
        self.is_pretrained = bool(pretrained)
        self.num_layers = len(backbone.blocks) + 2
        cfg_of_timm = backbone.pretrained_cfg
        self.statistics = PhotoStatistics(cfg_of_timm["mean"], cfg_of_timm["std"])
        self.projection = Projection(backbone.embed_dim * len(self.blocks), out_channels)

    def input_side(self, side: int) -> int:
        """Side in pixels at which the backbone sees a photo of this side."""
        return (
            self.resolution or max(1, (2 * side + self.stride) // (2 * self.stride)) * self.stride
        )

    def forward(self, images: Tensor) -> Tensor:
        """Photos (B, 3, S, S) in [-1, 1] to (B, out_channels, n, n), n = input_side(S) / patch."""
        height, width = (self.input_side(side) for side in images.shape[-2:])
        features = self.backbone.forward_intermediates(
            self.statistics(resize_photos(images, height, width)),
            indices=self.blocks,
            norm=True,
            output_fmt="NCHW",
            intermediates_only=True,
        )
        return self.projection(torch.cat(features, dim=1))

    def layer_of(self, parameter_name: str) -> int:
        """Embeddings 0, block k in k + 1, final norm and projection at the top (BEiT's layers)."""
        part, _, rest = parameter_name.removeprefix("backbone.").partition(".")
        if part == "blocks":
            return int(rest.partition(".")[0]) + 1
        return self.num_layers - 1 if part in ("norm", "projection") else 0
