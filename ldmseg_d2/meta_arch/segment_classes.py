"""How segments get classes: by the semantic task's vote, or by a head on pooled features."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.structures import BitMasks, Instances
from torch import Tensor, nn
from torch.nn import functional as F

from ..modeling.class_head import MaskPoolingHead
from ..panoptic import SegmentsInfo, merge_classes, panoptic_to_semantic, split_segments
from .batching import shown_size, stack_segment_ids

IGNORE_LABEL = 255  # void in semantic maps


class Classes(NamedTuple):
    """How many classes there are, and which are things."""

    num_classes: int
    is_thing: tuple[bool, ...]


def dataset_classes(cfg: CfgNode) -> Classes:
    """The classes of ``MODEL.LDMSEG.NUM_CLASSES`` and ``THING_CLASSES``, or of the data set.

    Args:
        cfg: where NUM_CLASSES is 0, the metadata of the first of ``DATASETS.TRAIN`` (else of
            ``DATASETS.TEST``) tell: ``stuff_classes`` lists all classes, things included, as in
            Detectron2's panoptic data sets.

    Raises:
        ValueError: neither tells any classes.
    """
    ldmseg = cfg.MODEL.LDMSEG
    if ldmseg.NUM_CLASSES > 0:
        wrong = [c for c in ldmseg.THING_CLASSES if not 0 <= c < ldmseg.NUM_CLASSES]
        if wrong:
            raise ValueError(
                f"MODEL.LDMSEG.THING_CLASSES holds {wrong[0]}; it lists contiguous classes "
                f"0..{ldmseg.NUM_CLASSES - 1}"
            )
        things = set(ldmseg.THING_CLASSES)
        return Classes(ldmseg.NUM_CLASSES, tuple(c in things for c in range(ldmseg.NUM_CLASSES)))
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        metadata = MetadataCatalog.get(name)
        names = metadata.get("stuff_classes", None)
        if names:
            things = set((metadata.get("thing_dataset_id_to_contiguous_id", None) or {}).values())
            return Classes(len(names), tuple(c in things for c in range(len(names))))
    raise ValueError(
        "the model needs classes, but MODEL.LDMSEG.NUM_CLASSES is 0 and no data set of "
        f"DATASETS.TRAIN {tuple(cfg.DATASETS.TRAIN)} or DATASETS.TEST "
        f"{tuple(cfg.DATASETS.TEST)} names any (metadata 'stuff_classes')"
    )


class SegmentClassifier(nn.Module):
    """Gives no classes: base of those that do."""

    def __init__(self, classes: Classes | None = None, *, split_area: int = -1) -> None:
        """
        Args:
            classes: of the model; None: segments have none.
            split_area: pixels of a region that leaves its segment, see :func:`split_segments`;
                below 1: what has one id is one segment (the paper).
        """
        super().__init__()
        self.classes = classes
        self.split_area = split_area

    def losses(self, condition: Tensor, entries: Sequence[dict]) -> dict[str, Tensor]:
        """Losses of a batch: the image condition (B, C', h, w) and the input dicts."""
        return {}

    def class_probs(self, decoded: dict[str, Any], entry: dict, condition: Tensor) -> Tensor | None:
        """(C + 1, H, W) votes of the pixels, void first; None: segments get no classes."""
        return None

    def forward(
        self,
        decoded: dict[str, Any],
        entry: dict,
        condition: Tensor,
        *,
        given_ids: Tensor | None = None,
        given_classes: Mapping[int, int | None] | None = None,
    ) -> dict[str, Any]:
        """One picture's output.

        Args:
            decoded: by output key what the tasks gave: ``panoptic_seg`` without classes,
                ``sem_seg`` (C + 1, H, W) with void as the first channel, and others.
            entry: the input dict.
            condition: (C', h, w) of the photo.
            given_ids, given_classes: what a user has given (inpainting): (H, W) ids of pixels, 0
                elsewhere, and by id the class or None.

        Returns:
            ``decoded``, in which ``panoptic_seg`` has categories where the model has classes, and
            then also ``sem_seg`` where no task made one; ``sem_seg`` (C, H, W) lost void's channel.
        """
        votes = self.class_probs(decoded, entry, condition)
        output = dict(decoded)
        if "sem_seg" in decoded:
            output["sem_seg"] = decoded["sem_seg"][1:]
        if "panoptic_seg" not in decoded or votes is None:
            return output
        panoptic_seg, is_thing = decoded["panoptic_seg"], self.classes.is_thing
        if self.split_area > 0:
            panoptic_seg = split_segments(
                *panoptic_seg, votes, is_thing=is_thing, min_area=self.split_area, given=given_ids
            )
        output["panoptic_seg"] = merge_classes(
            *panoptic_seg, votes, is_thing=is_thing, given_classes=given_classes
        )
        if "sem_seg" not in decoded:
            output["sem_seg"] = panoptic_to_semantic(*output["panoptic_seg"], len(is_thing))
        return output


class SemanticVote(SegmentClassifier):
    """A segment takes the class that the semantic task's map votes inside it (the paper)."""

    def class_probs(self, decoded: dict[str, Any], entry: dict, condition: Tensor) -> Tensor | None:
        return decoded.get("sem_seg")


class MaskPooling(SegmentClassifier):
    """A segment takes the class that a linear layer gives its pooled image features."""

    def __init__(
        self,
        classes: Classes,
        *,
        head: MaskPoolingHead,
        image_size: int,
        train_size: int = 0,
        loss_weight: float = 0.1,
        split_area: int = -1,
    ) -> None:
        """
        Args:
            classes: of the model.
            head: is trained on ground-truth segments.
            image_size: side S of the square that the features cover, pixels.
            train_size: the square's side in training; 0: ``image_size``.
            loss_weight: of its cross-entropy.
            split_area: see :class:`SegmentClassifier`.
        """
        super().__init__(classes, split_area=split_area)
        self.head = head
        self.image_size = image_size
        self.train_size = train_size or image_size
        self.loss_weight = loss_weight

    def losses(self, condition: Tensor, entries: Sequence[dict]) -> dict[str, Tensor]:
        """``loss_class``: cross-entropy over all ground-truth segments; 0 where there are none.

        Raises:
            ValueError: a class that the model does not have.
        """
        logits, classes = [], []
        for entry, one in zip(entries, condition, strict=True):
            if "segment_ids" not in entry:
                continue
            # Ids are only names here: whatever number of them there is.
            ids = stack_segment_ids([entry], self.train_size, self.train_size**2)[0].to(one.device)
            labels = _segment_classes(entry, ids)
            wrong = labels[labels >= self.head.num_classes]
            if len(wrong):
                raise ValueError(
                    f"{entry.get('file_name', 'image')}: segments_info holds class "
                    f"{int(wrong[0])}, but the model has {self.head.num_classes} classes "
                    f"(0..{self.head.num_classes - 1}): DATASETS.TRAIN and "
                    "MODEL.LDMSEG.NUM_CLASSES must agree"
                )
            logits.append(self.head(one, ids, len(labels))[labels >= 0])
            classes.append(labels[labels >= 0])
        if sum(map(len, classes)):
            loss = F.cross_entropy(torch.cat(logits).float(), torch.cat(classes))
        else:  # gradients of 0 for every parameter: processes exchange them all
            loss = 0.0 * sum(p.sum() for p in self.head.parameters())
        return {"loss_class": self.loss_weight * loss}

    def class_probs(self, decoded: dict[str, Any], entry: dict, condition: Tensor) -> Tensor | None:
        if "panoptic_seg" not in decoded:
            return None
        panoptic, segments_info = decoded["panoptic_seg"]
        known = torch.tensor(
            [0, *(s["id"] for s in segments_info)], dtype=panoptic.dtype, device=panoptic.device
        )
        order = known.argsort()
        index = order[torch.searchsorted(known[order], panoptic.flatten())].view_as(panoptic)
        size = shown_size(entry)
        small = F.interpolate(index[None, None].float(), size=size, mode="nearest-exact")[0, 0]
        ids = index.new_zeros(self.image_size, self.image_size)
        ids[: size[0], : size[1]] = small.long()
        logits = self.head(condition, ids, len(segments_info))  # [K, C]
        probs = torch.zeros(len(known), self.head.num_classes + 1, device=panoptic.device)
        probs[0, 0] = 1  # outside of segments there is void
        probs[1:, 1:] = logits.float().softmax(dim=1)
        return probs[index].permute(2, 0, 1)


def thing_instances(panoptic: Tensor, segments_info: SegmentsInfo) -> Instances:
    """The things of a panoptic map as Detectron2's Instances, best first.

    Args:
        panoptic: (H, W) integer segment ids.
        segments_info: dicts with ``id``, ``category_id``, ``isthing`` and ``score``.

    Returns:
        Instances with ``pred_masks`` (N, H, W) bool, ``pred_classes`` (N,) int64, ``scores`` (N,)
        and ``pred_boxes``, on the map's device.
    """
    things = sorted((s for s in segments_info if s["isthing"]), key=lambda s: -s["score"])
    device = panoptic.device
    ids = torch.tensor([s["id"] for s in things], dtype=panoptic.dtype, device=device)
    masks = panoptic.unsqueeze(0) == ids.view(-1, 1, 1)  # [N, H, W]
    instances = Instances(tuple(panoptic.shape))
    instances.pred_masks = masks
    instances.pred_classes = torch.tensor(
        [s["category_id"] for s in things], dtype=torch.int64, device=device
    )
    instances.scores = torch.tensor([float(s["score"]) for s in things], device=device)
    instances.pred_boxes = BitMasks(masks).get_bounding_boxes().to(device)
    return instances


def _segment_classes(entry: dict, ids: Tensor) -> Tensor:
    """Classes (K,) of a picture's segments as they are numbered after padding and reduction.

    Args:
        entry: with ``segment_ids`` (h, w) and ``segments_info`` (``id``, ``category_id``).
        ids: (S, S) int64, 0..K: the same segments, renumbered, perhaps fewer.

    Returns:
        int64; -1 where ``segments_info`` does not tell.
    """
    height, width = entry["segment_ids"].shape
    old = entry["segment_ids"].to(ids.device).flatten()
    new = ids[:height, :width].flatten()
    known = {int(s["id"]): int(s["category_id"]) for s in entry.get("segments_info", ())}
    table = [known.get(i, -1) for i in range(int(old.max()) + 1 if old.numel() else 1)]
    result = ids.new_full((int(ids.max()) + 1,), -1)
    result[new] = torch.tensor(table, device=ids.device)[old]
    return result[1:]
