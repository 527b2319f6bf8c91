"""Baselines: Detectron2's own Panoptic FPN and Panoptic-DeepLab with our inputs and outputs.

The networks, losses and merging are Detectron2's. Only the numbering of classes is ours: contiguous
over all classes of the data set, things and stuff, in and out.
"""

from types import SimpleNamespace
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY
from detectron2.modeling.backbone import FPN, Backbone
from detectron2.modeling.meta_arch import PanopticFPN
from detectron2.projects.panoptic_deeplab import PanopticDeepLab
from detectron2.structures import Instances
from torch import Tensor

from ..modeling.small_resnet import build_small_resnet
from .tasks.classes import Classes, dataset_classes
from .tasks.outputs import thing_instances

IGNORE_LABEL = 255
LABEL_DIVISOR = 1000


@BACKBONE_REGISTRY.register()
def build_small_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """The ResNet of ``MODEL.SMALL_RESNET`` that gives ``MODEL.RESNETS.OUT_FEATURES``."""
    r = cfg.MODEL.SMALL_RESNET
    return build_small_resnet(
        in_channels=input_shape.channels,
        stem_channels=r.STEM_CHANNELS,
        stem_stride=r.STEM_STRIDE,
        channels=r.CHANNELS,
        num_blocks=r.NUM_BLOCKS,
        strides=r.STRIDES,
        out_features=cfg.MODEL.RESNETS.OUT_FEATURES,
    )


@BACKBONE_REGISTRY.register()
def build_small_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """FPN on it, by ``MODEL.FPN``: "p1" is the level of stride 2, "p2" of stride 4, ..."""
    return FPN(
        bottom_up=build_small_resnet_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


@META_ARCH_REGISTRY.register()
class PanopticFPNBaseline(PanopticFPN):
    """Detectron2's :class:`PanopticFPN` (arXiv 1901.02446)."""

    # Nothing is frozen, and every key of a checkpoint must fit.
    frozen_prefixes: tuple[str, ...] = ()

    @configurable
    def __init__(self, *, classes: Classes, **kwargs: Any) -> None:
        """
        Args:
            classes: how many there are, and which are things.
            kwargs: of :class:`PanopticFPN`.
        """
        super().__init__(**kwargs)
        self.classes = classes
        things = [c for c, thing in enumerate(classes.is_thing) if thing]
        stuff = [c for c, thing in enumerate(classes.is_thing) if not thing]
        # Of its detector: 0..T - 1. Of its semantic head: 0 is any thing, then the stuff.
        to_semantic = torch.zeros(IGNORE_LABEL + 1, dtype=torch.int64)
        to_semantic[stuff] = torch.arange(1, len(stuff) + 1)
        to_semantic[classes.num_classes :] = IGNORE_LABEL
        to_thing = torch.zeros(classes.num_classes, dtype=torch.int64)
        to_thing[things] = torch.arange(len(things))
        for name, table in (
            ("things", torch.tensor(things, dtype=torch.int64)),
            ("stuff", torch.tensor(stuff, dtype=torch.int64)),
            ("to_semantic", to_semantic),
            ("to_thing", to_thing),
        ):
            self.register_buffer(name, table, persistent=False)

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
                in training ``instances`` with contiguous ``gt_classes``, and ``sem_seg`` int64
                (h, w), contiguous, 255 ignored.

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
        return {
            **entry,
            "instances": instances.to(self.device),
            "sem_seg": self.to_semantic[entry["sem_seg"].to(self.device)],
        }

    def _from_detectron2(self, output: dict) -> dict:
        panoptic, segments = output["panoptic_seg"]
        probs = output["sem_seg"].softmax(dim=0)  # [1 + S, H, W]
        semantic = probs.new_zeros(self.classes.num_classes, *panoptic.shape)
        semantic[self.stuff] = probs[1:]
        areas = torch.bincount(panoptic.flatten().long(), minlength=len(segments) + 1).tolist()
        ours = []
        for segment in segments:
            mask = panoptic == segment["id"]
            own = segment["category_id"]
            category = int(self.things[own] if segment["isthing"] else self.stuff[own - 1])
            score = segment["score"] if segment["isthing"] else float(probs[own][mask].mean())
            ours.append(
                {
                    "id": segment["id"],
                    "category_id": category,
                    "isthing": segment["isthing"],
                    "score": score,
                    "area": areas[segment["id"]],
                }
            )
            if segment["isthing"]:
                semantic[:, mask] = 0.0
                semantic[category, mask] = 1.0
        instances = output["instances"]
        instances.pred_classes = self.things[instances.pred_classes]
        # A detection may be hidden by a better one: no pixel, no segment.
        ours = [segment for segment in ours if segment["area"]]
        return {"panoptic_seg": (panoptic, ours), "sem_seg": semantic, "instances": instances}


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
        self.meta = SimpleNamespace(
            thing_dataset_id_to_contiguous_id=things, label_divisor=LABEL_DIVISOR
        )

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
            segments.append(
                {
                    "id": id_,
                    "category_id": category,
                    "isthing": thing,
                    "score": float(probs[category][mask].mean()) if score is None else score,
                    "area": int(mask.sum()),
                }
            )
        return {
            "panoptic_seg": (panoptic, segments),
            "sem_seg": output["sem_seg"],
            "instances": thing_instances(panoptic, segments),
        }
