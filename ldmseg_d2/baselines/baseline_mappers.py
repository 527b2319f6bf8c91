"""Dataset mappers: what the baselines' training needs beside LDMSeg's annotations."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.projects.panoptic_deeplab.target_generator import PanopticDeepLabTargetGenerator
from detectron2.structures import BitMasks, Instances

from ..data import DATASET_MAPPER_REGISTRY, PanopticDatasetMapper
from ..meta_arch.segment_classes import IGNORE_LABEL


@DATASET_MAPPER_REGISTRY.register()
class QueryDatasetMapper(PanopticDatasetMapper):
    """Adds ``instances``: all segments, as the original Mask2Former repository trains on them.

    ``gt_masks`` is a bool tensor (K, h, w) at the size of ``image``, and ``gt_classes`` int64 (K,),
    contiguous over all classes, things and stuff. Crowds and small segments are not among them.
    """

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        record = super().__call__(dataset_dict)
        if "segment_ids" in record:
            segments = [s for s in record["segments_info"] if self.is_wanted(s)]
            ids = torch.tensor([s["id"] for s in segments], dtype=torch.int64)
            record["instances"] = instances = Instances(tuple(record["segment_ids"].shape))
            instances.gt_classes = torch.tensor([s["category_id"] for s in segments]).long()
            instances.gt_masks = record["segment_ids"] == ids.view(-1, 1, 1)
        return record

    def is_wanted(self, segment: dict[str, Any]) -> bool:
        return True


@DATASET_MAPPER_REGISTRY.register()
class InstancesDatasetMapper(QueryDatasetMapper):
    """Adds ``instances``: the things alone, for detectors such as Panoptic FPN.

    ``gt_masks`` are BitMasks, and there are ``gt_boxes``, the exact boxes of the masks.
    """

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        record = super().__call__(dataset_dict)
        if "instances" in record:
            instances = record["instances"]
            instances.gt_masks = BitMasks(instances.gt_masks)
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return record

    def is_wanted(self, segment: dict[str, Any]) -> bool:
        return segment["isthing"]


@DATASET_MAPPER_REGISTRY.register()
class PanopticDeepLabDatasetMapper(PanopticDatasetMapper):
    """Adds the targets of Panoptic-DeepLab, made by Detectron2's own generator.

    ``center`` (h, w), ``offset`` (2, h, w), ``sem_seg_weights`` (h, w), ``center_weights`` and
    ``offset_weights`` (1, h, w), all float32.
    """

    @configurable
    def __init__(self, *, target_options: dict[str, Any], **kwargs: Any):
        """`target_options`: of ``PanopticDeepLabTargetGenerator``, but for classes."""
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
            # Crowds are void already.
            segments = [{**s, "iscrowd": False} for s in record["segments_info"]]
            # The picture's things: the generator looks at no other classes.
            things = {s["category_id"] for s in segments if s["isthing"]}
            generator = PanopticDeepLabTargetGenerator(IGNORE_LABEL, things, **self.target_options)
            targets = generator(record["segment_ids"].numpy(), segments)
            for key in ("center", "offset", "sem_seg_weights", "center_weights", "offset_weights"):
                record[key] = targets[key]
        return record
