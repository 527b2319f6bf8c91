"""A baseline: transformers' Mask2Former behind Detectron2's contract, without a compiled operator.

Mask2Former: Cheng et al., arXiv 2112.01527. Losses and networks are transformers' own; padding,
targets and merging are ours.
"""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from ..modeling.hf_mask2former import build_mask2former, load_mask2former, loss_arguments
from ..panoptic import fuse_regions, queries_to_panoptic, queries_to_semantic
from .build import pixel_statistics
from .tasks.classes import Classes, dataset_classes
from .tasks.outputs import check_parts, with_instances


@META_ARCH_REGISTRY.register()
class HFMask2Former(nn.Module):
    """transformers' ``Mask2FormerForUniversalSegmentation``."""

    # Nothing is frozen, and every key of a checkpoint must fit.
    frozen_prefixes: tuple[str, ...] = ()

    @configurable
    def __init__(
        self,
        *,
        network: nn.Module,
        classes: Classes,
        pixel_mean: list[float],
        pixel_std: list[float],
        size_divisibility: int = 32,
        postprocess: dict | None = None,
        region_fusion: dict | None = None,
    ) -> None:
        """
        Args:
            network: transformers' model, for the classes.
            classes: how many there are, and which are things.
            pixel_mean, pixel_std: of the photo's R, G, B.
            size_divisibility: photos are padded to a multiple of it, pixels.
            postprocess: keyword arguments of :func:`queries_to_panoptic`.
            region_fusion: keyword arguments of :func:`fuse_regions`, which then makes the panoptic
                map of the queries' semantic map and their segments (ours); None: they alone do.
        """
        super().__init__()
        self.network = network
        self.classes = classes
        self.size_divisibility = size_divisibility
        self.postprocess = postprocess or {}
        self.region_fusion = region_fusion
        mean, std = pixel_statistics(pixel_mean, pixel_std)
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        m = cfg.MODEL.MASK2FORMER
        classes = dataset_classes(cfg)
        losses = loss_arguments(**{key.lower(): value for key, value in m.LOSS.items()})
        if m.PRETRAINED:
            network = load_mask2former(m.PRETRAINED, num_classes=classes.num_classes, losses=losses)
        else:
            network = build_mask2former(
                num_classes=classes.num_classes,
                backbone=m.BACKBONE,
                backbone_options={k.lower(): v for k, v in m.BACKBONE_OPTIONS.items()},
                feature_strides=m.FEATURE_STRIDES,
                hidden_dim=m.HIDDEN_DIM,
                losses=losses,
                common_stride=m.COMMON_STRIDE,
                num_attention_heads=m.NUM_HEADS,
                encoder_layers=m.ENCODER_LAYERS,
                encoder_feedforward_dim=m.ENCODER_FEEDFORWARD_DIM,
                # transformers counts the prediction before the first layer as one.
                decoder_layers=m.DECODER_LAYERS + 1,
                dim_feedforward=m.DECODER_FEEDFORWARD_DIM,
                dropout=m.DROPOUT,
                num_queries=m.NUM_QUERIES,
            )
        check_parts(m.POSTPROCESS, "MODEL.MASK2FORMER.POSTPROCESS")
        post = {key.lower(): value for key, value in m.POSTPROCESS.items()}
        regions = {key: post.pop(key) for key in ("region_area", "part_area", "part_share")}
        return {
            "network": network,
            "classes": classes,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "size_divisibility": m.SIZE_DIVISIBILITY,
            "postprocess": post,
            "region_fusion": regions if regions["region_area"] > 0 else None,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: a list of dicts, one per picture, with

                * ``image``: uint8 (3, h, w) RGB;
                * ``height``, ``width``: size of the result (at test);
                * ``segment_ids``: int64 (h, w), 0 is void; ``segments_info``: dicts with ``id`` and
                  contiguous ``category_id`` (in training).

        Returns:
            Training: transformers' losses, weighted: ``loss_cross_entropy``, ``loss_mask``,
            ``loss_dice``, and the same with ``_0``, ``_1``, ... for the earlier layers. Test: a
            list of dicts with ``panoptic_seg`` (:func:`queries_to_panoptic`), ``sem_seg`` (C, H, W)
            (:func:`queries_to_semantic`) and ``instances``, the map's things.
        """
        if self.training:
            return self._training_losses(batched_inputs)
        # Pictures of one padded size share a pass: a result does not depend on the others.
        groups: dict[tuple[int, int], list[int]] = {}
        for i, entry in enumerate(batched_inputs):
            groups.setdefault(self._padded_size([entry]), []).append(i)
        outputs: list[dict] = [{} for _ in batched_inputs]
        for indices in groups.values():
            entries = [batched_inputs[i] for i in indices]
            images = self._stack(entries)
            result = self.network(pixel_values=images)
            for i, entry, class_logits, mask_logits in zip(
                indices,
                entries,
                result.class_queries_logits.float(),
                result.masks_queries_logits.float(),
                strict=True,
            ):
                outputs[i] = self._output(entry, class_logits, mask_logits, images.shape[-2:])
        return outputs

    def _padded_size(self, entries: Sequence[dict]) -> tuple[int, int]:
        """(H, W) that all photos of a batch are padded to."""
        step = self.size_divisibility
        height, width = (max(e["image"].shape[axis] for e in entries) for axis in (-2, -1))
        return -(-height // step) * step, -(-width // step) * step

    def _stack(self, entries: Sequence[dict]) -> Tensor:
        """Normalised photos (B, 3, H, W), padded with 0, the mean photo."""
        size = self._padded_size(entries)
        images = [(e["image"].to(self.device) - self.pixel_mean) / self.pixel_std for e in entries]
        return torch.stack([_pad(image, size) for image in images])

    def _training_losses(self, batched_inputs: list[dict]) -> dict[str, Tensor]:
        images = self._stack(batched_inputs)
        size = images.shape[-2:]
        targets = [self._targets(entry) for entry in batched_inputs]
        result = self.network(pixel_values=images, output_auxiliary_logits=True)
        # Matching and point sampling in float32, as in the original.
        with torch.autocast(self.device.type, enabled=False):
            return self.network.get_loss_dict(
                masks_queries_logits=result.masks_queries_logits.float(),
                class_queries_logits=result.class_queries_logits.float(),
                mask_labels=[_pad(masks, size).float() for masks, _ in targets],
                class_labels=[labels for _, labels in targets],
                auxiliary_predictions=[
                    {name: logits.float() for name, logits in layer.items()}
                    for layer in result.auxiliary_logits
                ],
            )

    def _targets(self, entry: dict) -> tuple[Tensor, Tensor]:
        """Masks (K, h, w) bool and classes (K,) int64 of a picture's segments."""
        for key in ("segment_ids", "segments_info"):
            if key not in entry:
                raise KeyError(
                    f"{entry.get('file_name', 'image')}: HFMask2Former trains on {key!r}, which "
                    "PanopticDatasetMapper gives for data sets with panoptic annotations"
                )
        segments = entry["segments_info"]
        ids = torch.tensor([s["id"] for s in segments], dtype=torch.int64, device=self.device)
        masks = entry["segment_ids"].to(self.device).unsqueeze(0) == ids.view(-1, 1, 1)
        labels = torch.tensor([s["category_id"] for s in segments], dtype=torch.int64)
        return masks, labels.to(self.device)

    def _output(
        self, entry: dict, class_logits: Tensor, mask_logits: Tensor, padded: Sequence[int]
    ) -> dict:
        """One picture's output from class_logits (Q, C + 1) and mask_logits (Q, h', w')."""
        # 1. To the padded photo's size, then without padding, then to the wanted size.
        masks = _resize(mask_logits, padded)
        height, width = entry["image"].shape[-2:]
        masks = masks[:, :height, :width]
        masks = _resize(masks, (entry.get("height", height), entry.get("width", width)))
        # 2. Queries to segments and classes.
        panoptic_seg = queries_to_panoptic(
            class_logits, masks, is_thing=self.classes.is_thing, **self.postprocess
        )
        semantic = queries_to_semantic(class_logits, masks)
        if self.region_fusion:
            void = torch.zeros_like(semantic[:1])
            panoptic_seg = fuse_regions(
                *panoptic_seg,
                torch.cat([void, semantic]),
                is_thing=self.classes.is_thing,
                **self.region_fusion,
            )
        return {**with_instances(panoptic_seg), "sem_seg": semantic}


def _pad(x: Tensor, size: Sequence[int]) -> Tensor:
    """Pad (..., h, w) with zeros at the right and bottom to ``size``."""
    return F.pad(x, (0, size[1] - x.shape[-1], 0, size[0] - x.shape[-2]))


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (Q, h, w) bilinearly."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x.unsqueeze(0), size=tuple(size), mode="bilinear", align_corners=False)[0]
