"""Detectron2's own Panoptic-DeepLab, one of its projects, with our inputs and outputs."""

from types import SimpleNamespace

import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.projects.panoptic_deeplab import PanopticDeepLab
from torch import Tensor

from ..meta_arch.segment_classes import IGNORE_LABEL, dataset_classes, thing_instances

LABEL_DIVISOR = 1000


@META_ARCH_REGISTRY.register()
class PanopticDeepLabBaseline(PanopticDeepLab):
    """Detectron2's :class:`PanopticDeepLab` (arXiv 1911.10194), one of its projects."""

    frozen_prefixes: tuple[str, ...] = ()

    def __init__(self, cfg: CfgNode) -> None:
        classes = dataset_classes(cfg)
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = classes.num_classes
        cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = IGNORE_LABEL
        # The base class looks up the metadata of a data set; ours follow.
        cfg.DATASETS.TRAIN = tuple(cfg.DATASETS.TRAIN) or tuple(cfg.DATASETS.TEST)
        super().__init__(cfg)
        self.classes = classes
        things = {c: c for c, thing in enumerate(classes.is_thing) if thing}
        self.meta = SimpleNamespace(thing_dataset_id_to_contiguous_id=things)
        self.meta.label_divisor = LABEL_DIVISOR

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: as PanopticDeepLabDatasetMapper makes them: ``image``, ``height``,
                ``width``; in training ``sem_seg``, ``center``, ``offset`` and their weights.

        Returns:
            Training: Detectron2's losses. Test: a list of dicts with ``panoptic_seg``,
            ``instances`` and ``sem_seg`` (C, H, W) logits.
        """
        if self.training:
            if "center" not in batched_inputs[0]:
                raise KeyError(
                    "Panoptic-DeepLab trains on 'center' and 'offset'; set "
                    "INPUT.DATASET_MAPPER_NAME to 'PanopticDeepLabDatasetMapper'"
                )
            return super().forward(batched_inputs)
        # Without annotations: the base class would make targets of them.
        entries = [{k: e[k] for k in ("image", "height", "width")} for e in batched_inputs]
        return [self._from_detectron2(output) for output in super().forward(entries)]

    def _from_detectron2(self, output: dict) -> dict:
        """Detectron2's map is class x LABEL_DIVISOR + number, -1 void."""
        labels = output["panoptic_seg"][0]
        probs = output["sem_seg"].softmax(dim=0)
        # Its instances, in the order of their labels: class probability times that of the center.
        scores = iter(output["instances"].scores.tolist() if "instances" in output else ())
        panoptic = torch.zeros_like(labels, dtype=torch.int32)
        segments = []
        for label in torch.unique(labels).tolist():
            if label < 0:
                continue
            mask, category = labels == label, label // LABEL_DIVISOR
            thing = self.classes.is_thing[category]
            panoptic[mask] = id_ = len(segments) + 1
            score = next(scores, None) if thing else None
            score = float(probs[category][mask].mean()) if score is None else score
            segments.append({"id": id_, "category_id": category, "isthing": thing})
            segments[-1].update(score=score, area=int(mask.sum()))
        instances = thing_instances(panoptic, segments)
        return {**output, "panoptic_seg": (panoptic, segments), "instances": instances}
