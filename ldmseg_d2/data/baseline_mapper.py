"""What other models' training needs beside LDMSeg's annotations."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.projects.panoptic_deeplab.target_generator import PanopticDeepLabTargetGenerator
from detectron2.structures import BitMasks, Instances

from .dataset_mapper import DATASET_MAPPER_REGISTRY, IGNORE_LABEL, PanopticDatasetMapper

__all__ = ["InstancesDatasetMapper", "PanopticDeepLabDatasetMapper", "QueryDatasetMapper"]


@DATASET_MAPPER_REGISTRY.register()
class InstancesDatasetMapper(PanopticDatasetMapper):
    """Adds ``instances``: the things of a picture, for detectors such as Panoptic FPN.

    ``gt_masks`` (BitMasks), ``gt_boxes`` (exact boxes of the masks) and ``gt_classes`` (int64,
    contiguous over all classes, things and stuff), at the size of ``image``. Crowds and small
    segments are not among them.
    """

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        record = super().__call__(dataset_dict)
        if "segment_ids" in record:
            things = [s for s in record["segments_info"] if s["isthing"]]
            instances, masks = _instances(record["segment_ids"], things)
            instances.gt_masks = BitMasks(masks)
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
            record["instances"] = instances
        return record


@DATASET_MAPPER_REGISTRY.register()
class QueryDatasetMapper(PanopticDatasetMapper):
    """Adds ``instances``: all segments, as the original Mask2Former repository trains on them.

    ``gt_masks`` is a bool tensor (K, h, w) there, and ``gt_classes`` int64 (K,) contiguous.
    """

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        record = super().__call__(dataset_dict)
        if "segment_ids" in record:
            instances, masks = _instances(record["segment_ids"], record["segments_info"])
            instances.gt_masks = masks
            record["instances"] = instances
        return record


@DATASET_MAPPER_REGISTRY.register()
class PanopticDeepLabDatasetMapper(PanopticDatasetMapper):
    """Adds the targets of Panoptic-DeepLab, made by Detectron2's own generator.

    ``center`` (h, w), ``offset`` (2, h, w), ``sem_seg_weights`` (h, w), ``center_weights`` and
    ``offset_weights`` (1, h, w), all float32.
    """

    @configurable
    def __init__(self, *, target_options: dict[str, Any], **kwargs: Any):
        """
        Args:
            target_options: of ``PanopticDeepLabTargetGenerator``, but for classes.
            kwargs: of :class:`PanopticDatasetMapper`.
        """
        super().__init__(**kwargs)
        self.target_options = target_options

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool) -> dict[str, Any]:
        """Reads INPUT.GAUSSIAN_SIGMA, IGNORE_STUFF_IN_OFFSET and SMALL_INSTANCE_* as well."""
        return {
            **super().from_config(cfg, is_train),
            "target_options": {
                "sigma": cfg.INPUT.GAUSSIAN_SIGMA,
                "ignore_stuff_in_offset": cfg.INPUT.IGNORE_STUFF_IN_OFFSET,
                "small_instance_area": cfg.INPUT.SMALL_INSTANCE_AREA,
                "small_instance_weight": cfg.INPUT.SMALL_INSTANCE_WEIGHT,
            },
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        record = super().__call__(dataset_dict)
        if "segment_ids" in record:
            segments = record["segments_info"]
            generator = PanopticDeepLabTargetGenerator(
                IGNORE_LABEL,
                # The picture's things: the generator looks at no other classes.
                {s["category_id"] for s in segments if s["isthing"]},
                **self.target_options,
            )
            # Crowds are void already.
            targets = generator(
                record["segment_ids"].numpy(), [{**s, "iscrowd": False} for s in segments]
            )
            for key in ("center", "offset", "sem_seg_weights", "center_weights", "offset_weights"):
                record[key] = targets[key]
        return record


def _instances(
    segment_ids: torch.Tensor, segments: list[dict[str, Any]]
) -> tuple[Instances, torch.Tensor]:
    """Instances with ``gt_classes`` of some segments, and their masks (K, h, w) bool."""
    ids = torch.tensor([s["id"] for s in segments], dtype=torch.int64)
    instances = Instances(tuple(segment_ids.shape))
    instances.gt_classes = torch.tensor([s["category_id"] for s in segments], dtype=torch.int64)
    return instances, segment_ids.unsqueeze(0) == ids.view(-1, 1, 1)
