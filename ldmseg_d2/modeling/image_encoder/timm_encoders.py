"""timm's networks as image encoders: DINOv2's patch tokens, or feature maps of any network."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..latent_autoencoder import ChannelLayerNorm
from .encoder_registry import IMAGE_ENCODER_REGISTRY, ImageEncoder
from .timm_weights import HUB, create_timm_model


class _TimmBackbone(ImageEncoder):
    """A backbone, which FREEZE freezes, then LayerNorm and a linear map of each cell."""

    backbone_names = ("backbone",)
    needs_unit_range = True

    def __init__(
        self, backbone: nn.Module, channels: int, *, out_channels: int, stride: int, pretrained: str
    ) -> None:
        super().__init__(out_channels=out_channels, stride=stride)
        self.backbone = backbone
        self.is_pretrained = bool(pretrained)
        self.projection = nn.Sequential(
            ChannelLayerNorm(channels), nn.Conv2d(channels, out_channels, 1)
        )
        # What the backbone was trained with, of photos in [0, 1]; constants: not in the checkpoint.
        for name in ("mean", "std"):
            values = torch.tensor(backbone.pretrained_cfg[name]).view(-1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def normalize(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to the backbone's own statistics."""
        return ((images + 1) / 2 - self.mean) / self.std


@IMAGE_ENCODER_REGISTRY.register()
class DINOv2ImageEncoder(_TimmBackbone):
    """DINOv2 (arXiv 2304.07193): patch tokens of one or several blocks, projected.

    Without class and register tokens. Every block's tokens go through the backbone's own final
    norm, as in DINOv2's own dense evaluation. Blocks after the last chosen one are removed.
    """

    def __init__(
        self,
        *,
        out_channels: int,
        model_name: str = "vit_base_patch14_dinov2.lvd142m",
        blocks: Sequence[int] = (-1,),
        pretrained: str = HUB,
        resolution: int = 0,
        model_kwargs: Mapping = {},  # noqa: B006 (never written)
    ) -> None:
        """
        Args:
            model_name: a ViT of timm; DINOv2's are listed in docs/EXTENDING.md.
            blocks: whose outputs are taken, 0 the first, -1 the last; several are concatenated.
            pretrained: see :func:`create_timm_model`.
            resolution: side of the photo that the backbone sees, pixels, a multiple of its patch;
                0: the multiple nearest to the photo's side (512 -> 518, DINOv2's own).
            model_kwargs: further arguments of ``timm.create_model``, e.g. {drop_path_rate: 0.1}.
        """
        backbone = create_timm_model(
            model_name, pretrained, **{"num_classes": 0, "dynamic_img_size": True, **model_kwargs}
        )
        depth, patch = len(backbone.blocks), backbone.patch_embed.patch_size[0]
        if not blocks or any(not -depth <= index < depth for index in blocks):
            raise ValueError(
                f"DINOv2ImageEncoder: BLOCKS needs indices of the {depth} blocks of {model_name}, "
                f"{-depth}..{depth - 1}; got {list(blocks)}"
            )
        if resolution % patch:
            raise ValueError(
                f"DINOv2ImageEncoder: RESOLUTION {resolution} is no multiple of the patch of "
                f"{model_name}, {patch} px; 0 takes the multiple nearest to the photo's side"
            )
        indices = sorted({index % depth for index in blocks})
        # DistributedDataParallel wants a gradient for all that is there.
        backbone.prune_intermediate_layers(indices)
        channels = backbone.embed_dim * len(indices)
        super().__init__(
            backbone, channels, out_channels=out_channels, stride=patch, pretrained=pretrained
        )
        self.blocks = indices
        self.resolution = resolution
        self.num_layers = len(backbone.blocks) + 2

    def input_side(self, side: int) -> int:
        """Side in pixels at which the backbone sees a photo of this side."""
        patch = self.stride
        return self.resolution or max(1, (2 * side + patch) // (2 * patch)) * patch

    def forward(self, images: Tensor) -> Tensor:
        size = tuple(self.input_side(side) for side in images.shape[-2:])
        if images.shape[-2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
        features = self.backbone.forward_intermediates(
            self.normalize(images),
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


@IMAGE_ENCODER_REGISTRY.register()
class TimmImageEncoder(_TimmBackbone):
    """Feature maps of stages of a timm model, at the finest one's grid, projected."""

    def __init__(
        self,
        *,
        out_channels: int,
        model_name: str = "resnet50.a1_in1k",
        stages: Sequence[int] = (2,),
        pretrained: str = HUB,
        model_kwargs: Mapping = {},  # noqa: B006 (never written)
    ) -> None:
        """
        Args:
            stages: timm's ``out_indices``; for most networks stage i has a stride of 2^(i + 1), for
                ConvNeXt and Swin 2^(i + 2).
            model_name, pretrained, model_kwargs: as for DINOv2; e.g. {img_size: 512} for Swin.
        """
        stages = sorted(set(stages))
        try:
            backbone = create_timm_model(
                model_name, pretrained, features_only=True, out_indices=stages, **model_kwargs
            )
        except (AssertionError, IndexError) as error:
            raise ValueError(
                f"TimmImageEncoder: {model_name} does not have the STAGES {stages}: {error}"
            ) from error
        info = backbone.feature_info
        channels, stride = sum(info.channels()), min(info.reduction())
        super().__init__(
            backbone, channels, out_channels=out_channels, stride=stride, pretrained=pretrained
        )
        self.finest = info.reduction().index(stride)
        self.channels_last = str(getattr(backbone, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(self.normalize(images))
        if self.channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        size = features[self.finest].shape[-2:]
        # To the size that it has already, the resize is the identity.
        features = [F.interpolate(feature, size=size, mode="bilinear") for feature in features]
        return self.projection(torch.cat(features, dim=1))
