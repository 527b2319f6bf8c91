"""Any timm model that offers `features_only`."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .pretrained import HUB, create_timm_model
from .projection import PhotoStatistics, Projection
from .registry import IMAGE_ENCODER_REGISTRY, ImageEncoder


@IMAGE_ENCODER_REGISTRY.register()
class TimmImageEncoder(ImageEncoder):
    """Feature maps of one or several stages, at the finest one's grid, and a linear projection."""

    backbone_names = ("backbone",)
    needs_unit_range = True

    def __init__(
        self,
        *,
        out_channels: int,
        model_name: str = "resnet50.a1_in1k",
        stages: Sequence[int] = (2,),
        pretrained: bool | str = HUB,
        model_kwargs: Mapping = {},  # noqa: B006 (never written)
    ) -> None:
        """
        Args:
            out_channels: channels of the condition.
            model_name: in timm, with ``features_only``.
            stages: timm's ``out_indices``; for most networks stage i has a stride of 2^(i + 1), for
                ConvNeXt and Swin 2^(i + 2).
            pretrained: see :func:`create_timm_model`.
            model_kwargs: further arguments of ``timm.create_model``, e.g. {img_size: 512} for Swin.

        Raises:
            ValueError: no such model or stage.
        """
        if not stages:
            raise ValueError("TimmImageEncoder: stages needs at least one index")
        try:
            backbone = create_timm_model(
                model_name,
                pretrained,
                features_only=True,
                out_indices=tuple(sorted(set(stages))),
                **model_kwargs,
            )
        except (AssertionError, IndexError) as error:
            raise ValueError(
                f"TimmImageEncoder: {model_name} does not have the stages {list(stages)}: {error}"
            ) from error
        reductions = backbone.feature_info.reduction()
        super().__init__(out_channels=out_channels, stride=min(reductions))
        self.backbone = backbone
        self.is_pretrained = bool(pretrained)
        self.finest = reductions.index(min(reductions))
        self.channels_last = str(getattr(backbone, "output_fmt", "NCHW")).endswith("NHWC")
        cfg_of_timm = backbone.pretrained_cfg
        self.statistics = PhotoStatistics(cfg_of_timm["mean"], cfg_of_timm["std"])
        self.projection = Projection(sum(backbone.feature_info.channels()), out_channels)

    def forward(self, images: Tensor) -> Tensor:
        """Photos (B, 3, S, S) in [-1, 1] to (B, out_channels, S / stride, S / stride)."""
        features = self.backbone(self.statistics(images))
        if self.channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        size = features[self.finest].shape[-2:]
        features = [
            F.interpolate(feature, size=size, mode="bilinear", align_corners=False)
            if feature.shape[-2:] != size
            else feature
            for feature in features
        ]
        return self.projection(torch.cat(features, dim=1))
