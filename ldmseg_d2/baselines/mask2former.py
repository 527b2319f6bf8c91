"""transformers' Mask2Former behind Detectron2's contract, without a compiled operator.

Mask2Former: Cheng et al., arXiv 2112.01527. Networks and losses are transformers' own; padding,
targets and merging are ours.
"""

from functools import partial

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import ImageList
from torch import Tensor, nn
from torch.nn import functional as F

from ..meta_arch.segment_classes import Classes, dataset_classes, thing_instances
from .mask2former_network import build_mask2former, load_mask2former
from .query_merging import queries_to_panoptic, queries_to_semantic


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
        postprocess: dict | None = None,
    ) -> None:
        """`postprocess`: keyword arguments of :func:`queries_to_panoptic`."""
        super().__init__()
        self.network = network
        self.classes = classes
        self.postprocess = postprocess or {}
        # Photos are padded to a multiple of it, pixels.
        self.size_divisibility = max(network.config.feature_strides)
        for name, value in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(value).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        m, classes = cfg.MODEL.MASK2FORMER, dataset_classes(cfg)
        arguments = {"num_classes": classes.num_classes, "options": _lower(m.OPTIONS)}
        load = partial(load_mask2former, m.PRETRAINED) if m.PRETRAINED else build_mask2former
        return {
            "network": load(**arguments),
            "classes": classes,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "postprocess": _lower(m.POSTPROCESS),
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: as PanopticDatasetMapper makes them: ``image``, ``height``, ``width``;
                in training ``segment_ids`` and ``segments_info``.

        Returns:
            Training: transformers' losses, weighted: ``loss_cross_entropy``, ``loss_mask``,
            ``loss_dice``, and the same with ``_0``, ``_1``, ... for the earlier layers. Test: a
            list of dicts with ``panoptic_seg``, ``sem_seg`` (C, H, W), see ``query_merging.py``,
            and ``instances``, the map's things.
        """
        if self.training:
            return self._training_losses(batched_inputs)
        # One by one: padded to the size of others, a photo's result would depend on them.
        return [self._infer(entry) for entry in batched_inputs]

    def _stack(self, entries: list[dict]) -> Tensor:
        """Normalised photos (B, 3, H, W), padded at the right and bottom with 0, the mean photo."""
        images = [(e["image"].to(self.device) - self.pixel_mean) / self.pixel_std for e in entries]
        return ImageList.from_tensors(images, self.size_divisibility).tensor

    def _training_losses(self, batched_inputs: list[dict]) -> dict[str, Tensor]:
        images = self._stack(batched_inputs)
        targets = [self._targets(entry, images.shape[-2:]) for entry in batched_inputs]
        result = self.network(pixel_values=images, output_auxiliary_logits=True)
        # Matching and point sampling in float32, as in the original.
        with torch.autocast(self.device.type, enabled=False):
            return self.network.get_loss_dict(
                masks_queries_logits=result.masks_queries_logits.float(),
                class_queries_logits=result.class_queries_logits.float(),
                mask_labels=[masks for masks, _ in targets],
                class_labels=[labels for _, labels in targets],
                auxiliary_predictions=[
                    {name: logits.float() for name, logits in layer.items()}
                    for layer in result.auxiliary_logits
                ],
            )

    def _targets(self, entry: dict, size: torch.Size) -> tuple[Tensor, Tensor]:
        """Masks (K, H, W) float, padded to ``size``, and classes (K,) of a picture's segments."""
        if "segments_info" not in entry:
            raise KeyError(
                f"{entry.get('file_name', 'image')}: HFMask2Former trains on 'segments_info': "
                "PanopticDatasetMapper gives it for data sets with panoptic annotations"
            )
        segments, segment_ids = entry["segments_info"], entry["segment_ids"].to(self.device)
        ids = segment_ids.new_tensor([s["id"] for s in segments])
        masks = segment_ids == ids.view(-1, 1, 1)
        height, width = segment_ids.shape
        masks = F.pad(masks, (0, size[1] - width, 0, size[0] - height)).float()
        return masks, segment_ids.new_tensor([s["category_id"] for s in segments])

    def _infer(self, entry: dict) -> dict:
        photo = self._stack([entry])
        result = self.network(pixel_values=photo)
        logits = result.masks_queries_logits.float()
        masks = F.interpolate(logits, photo.shape[-2:], mode="bilinear")[0]
        class_logits = result.class_queries_logits[0].float()
        height, width = entry["image"].shape[-2:]
        size = entry.get("height", height), entry.get("width", width)
        masks = sem_seg_postprocess(masks, (height, width), *size)
        panoptic_seg = queries_to_panoptic(
            class_logits, masks, is_thing=self.classes.is_thing, **self.postprocess
        )
        return {
            "panoptic_seg": panoptic_seg,
            "instances": thing_instances(*panoptic_seg),
            "sem_seg": queries_to_semantic(class_logits, masks),
        }


def _lower(node: CfgNode) -> dict:
    """The node as keyword arguments."""
    return {k.lower(): _lower(v) if isinstance(v, CfgNode) else v for k, v in node.items()}
