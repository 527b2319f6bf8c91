"""Detectron2's own Panoptic FPN with our inputs and outputs.

Networks, losses and merging are Detectron2's. Only the numbering of classes is ours: contiguous
over all classes of the data set, things and stuff, in and out.
"""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch import PanopticFPN
from detectron2.structures import Instances
from torch import Tensor

from ..meta_arch.segment_classes import IGNORE_LABEL, Classes, dataset_classes


@META_ARCH_REGISTRY.register()
class PanopticFPNBaseline(PanopticFPN):
    """Detectron2's :class:`PanopticFPN` (arXiv 1901.02446)."""

    # Nothing is frozen, and every key of a checkpoint must fit.
    frozen_prefixes: tuple[str, ...] = ()

    @configurable
    def __init__(self, *, classes: Classes, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.classes = classes
        is_thing = torch.tensor(classes.is_thing)
        # Of its detector: 0..T - 1. Of its semantic head: 0 is any thing, then the stuff.
        to_semantic = torch.full((IGNORE_LABEL + 1,), IGNORE_LABEL)
        to_semantic[: len(is_thing)] = torch.where(is_thing, 0, (~is_thing).cumsum(0))
        for name, table in {
            "things": torch.tensor([c for c, thing in enumerate(classes.is_thing) if thing]),
            "stuff": torch.tensor([c for c, thing in enumerate(classes.is_thing) if not thing]),
            "to_semantic": to_semantic,
            "to_thing": is_thing.cumsum(0) - 1,
        }.items():
            self.register_buffer(name, table.long(), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        classes = dataset_classes(cfg)
        if not any(classes.is_thing):
            raise ValueError(
                "PanopticFPNBaseline detects things, but none of the classes is one; see "
                "MODEL.LDMSEG.THING_CLASSES and the metadata of DATASETS.TRAIN"
            )
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = sum(classes.is_thing)
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = classes.num_classes - sum(classes.is_thing) + 1
        cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = IGNORE_LABEL
        return {**super().from_config(cfg), "classes": classes}

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: as InstancesDatasetMapper makes them: ``image``, ``height``, ``width``;
                in training ``instances`` and ``sem_seg``.

        Returns:
            Training: Detectron2's losses. Test: a list of dicts with ``panoptic_seg``, whose
            segments have ``score`` and ``area`` as well; ``instances``, all detections; ``sem_seg``
            (C, H, W): probabilities of stuff, and where the map has a thing 1 for its class.
        """
        if self.training:
            return super().forward([self._to_detectron2(entry) for entry in batched_inputs])
        return [self._from_detectron2(output) for output in self.inference(batched_inputs)]

    def _to_detectron2(self, entry: dict) -> dict:
        for key in ("instances", "sem_seg"):
            if key not in entry:
                raise KeyError(
                    f"{entry.get('file_name', 'image')}: Panoptic FPN trains on {key!r}; set "
                    "INPUT.DATASET_MAPPER_NAME to 'InstancesDatasetMapper'"
                )
        instances = Instances(entry["instances"].image_size, **entry["instances"].get_fields())
        instances.gt_classes = self.to_thing[instances.gt_classes.to(self.device)]
        semantic = self.to_semantic[entry["sem_seg"].to(self.device)]
        return {**entry, "instances": instances.to(self.device), "sem_seg": semantic}

    def _from_detectron2(self, output: dict) -> dict:
        panoptic, segments = output["panoptic_seg"]
        probs = output["sem_seg"].softmax(dim=0)  # [1 + S, H, W]
        semantic = probs.new_zeros(self.classes.num_classes, *panoptic.shape)
        semantic[self.stuff] = probs[1:]
        ours = []
        for segment in segments:
            mask, thing, own = panoptic == segment["id"], segment["isthing"], segment["category_id"]
            area = int(mask.sum())
            if not area:  # a better detection hides it
                continue
            category = int(self.things[own] if thing else self.stuff[own - 1])
            score = segment["score"] if thing else float(probs[own][mask].mean())
            ours.append({"id": segment["id"], "category_id": category, "isthing": thing})
            ours[-1].update(score=score, area=area)
            if thing:
                semantic[:, mask] = 0.0
                semantic[category, mask] = 1.0
        instances = output["instances"]
        instances.pred_classes = self.things[instances.pred_classes]
        return {"panoptic_seg": (panoptic, ours), "sem_seg": semantic, "instances": instances}
