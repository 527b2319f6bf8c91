"""How segments get classes: by the semantic task's vote, or by a head on pooled features."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...modeling.class_head import MaskPoolingHead
from ..batching import shown_size, stack_segment_ids
from .classes import Classes
from .outputs import Fusion, assemble_output


class SegmentClassifier(nn.Module):
    """Gives no classes: base of those that do."""

    classes: Classes | None = None
    fusion: Fusion | None = None

    def losses(self, features: Tensor, entries: Sequence[dict]) -> dict[str, Tensor]:
        """Losses of a batch: image features (B, C', h, w) and their input dicts."""
        return {}

    def class_probs(self, decoded: dict[str, Any], entry: dict, features: Tensor) -> Tensor | None:
        """(C + 1, H, W) votes of the pixels, void first; None: segments get no classes."""
        return None

    def forward(self, decoded: dict[str, Any], entry: dict, features: Tensor) -> dict[str, Any]:
        """One picture's output.

        Args:
            decoded: by output key what the tasks gave.
            entry: the input dict; where segments are given, with their pixels as ``given``, (H, W)
                ids and 0 elsewhere.
            features: (C', h, w), image condition.

        Returns:
            See :func:`assemble_output`.
        """
        return assemble_output(
            decoded,
            classes=self.classes,
            class_probs=self.class_probs(decoded, entry, features),
            fusion=self.fusion,
            given=entry.get("given"),
        )


class SemanticVote(SegmentClassifier):
    """A segment takes the class that the semantic task's map votes inside it (the paper)."""

    def __init__(self, classes: Classes, *, fusion: Fusion | None = None) -> None:
        """
        Args:
            classes: of the model.
            fusion: of segments and classes; None: as the paper.
        """
        super().__init__()
        self.classes = classes
        self.fusion = fusion

    def class_probs(self, decoded: dict[str, Any], entry: dict, features: Tensor) -> Tensor | None:
        return decoded.get("sem_seg")


class MaskPooling(SegmentClassifier):
    """A segment takes the class that a linear layer gives its pooled image features."""

    def __init__(
        self,
        classes: Classes,
        *,
        head: MaskPoolingHead,
        image_size: int,
        loss_weight: float,
        train_size: int = 0,
        fusion: Fusion | None = None,
    ) -> None:
        """
        Args:
            classes: of the model.
            head: is trained on ground-truth segments.
            image_size: side S of the square that the features cover, pixels.
            loss_weight: of its cross-entropy.
            train_size: the square's side in training; 0: ``image_size``.
            fusion: of segments and classes; without regions, since these classes are of segments.
        """
        super().__init__()
        self.classes = classes
        self.head = head
        self.image_size = image_size
        self.train_size = train_size or image_size
        self.loss_weight = loss_weight
        self.fusion = fusion

    def losses(self, features: Tensor, entries: Sequence[dict]) -> dict[str, Tensor]:
        loss = class_head_loss(self.head, features, entries, self.train_size)
        return {"loss_class": self.loss_weight * loss}

    def class_probs(self, decoded: dict[str, Any], entry: dict, features: Tensor) -> Tensor | None:
        if "panoptic_seg" not in decoded:
            return None
        return pooled_class_probs(
            self.head,
            features,
            decoded["panoptic_seg"],
            size=shown_size(entry),
            side=self.image_size,
        )


def class_head_loss(
    head: MaskPoolingHead, features: Tensor, entries: Sequence[dict], size: int
) -> Tensor:
    """Cross-entropy (scalar) over all ground-truth segments of a batch; 0 where there are none.

    Args:
        head: classifies segments.
        features: (B, C', h, w).
        entries: B input dicts; those without ``segment_ids`` or classes teach nothing.
        size: side S of the square, pixels.

    Raises:
        ValueError: a class that the model does not have.
    """
    logits, classes = [], []
    for entry, one in zip(entries, features, strict=True):
        if "segment_ids" not in entry:
            continue
        # Ids are only names here: whatever number of them there is.
        ids = stack_segment_ids([entry], size, size * size)[0].to(one.device)
        labels = segment_classes(entry, ids)
        wrong = labels[labels >= head.num_classes]
        if len(wrong):
            raise ValueError(
                f"{entry.get('file_name', 'image')}: segments_info holds class {int(wrong[0])}, "
                f"but the model has {head.num_classes} classes (0..{head.num_classes - 1}): "
                "DATASETS.TRAIN and MODEL.LDMSEG.NUM_CLASSES must agree"
            )
        logits.append(head(one, ids, len(labels))[labels >= 0])
        classes.append(labels[labels >= 0])
    if not sum(len(labels) for labels in classes):
        # Gradients of 0 for every parameter: processes exchange them all.
        return 0.0 * sum(p.sum() for p in head.parameters())
    return F.cross_entropy(torch.cat(logits).float(), torch.cat(classes))


def pooled_class_probs(
    head: MaskPoolingHead,
    features: Tensor,
    panoptic_seg: tuple[Tensor, list[dict]],
    size: tuple[int, int],
    side: int,
) -> Tensor:
    """Per-pixel class probabilities that give every segment the head's opinion of it.

    Args:
        head: classifies segments.
        features: (C', h, w) of the picture's square.
        panoptic_seg: the map (H, W) and its segments.
        size: (h', w') of the picture in the square; the rest is padding.
        side: S of the square, pixels.

    Returns:
        (C + 1, H, W) float32; void (channel 0) has 0 inside segments and 1 outside.
    """
    panoptic, segments_info = panoptic_seg
    table = torch.zeros(
        max((s["id"] for s in segments_info), default=0) + 1,
        dtype=torch.int64,
        device=panoptic.device,
    )
    for index, segment in enumerate(segments_info, start=1):
        table[segment["id"]] = index
    index = table[panoptic.long()]  # [H, W] 0..K
    resized = F.interpolate(index[None, None].float(), size=size, mode="nearest-exact")[0, 0].long()
    ids = index.new_zeros(side, side)
    ids[: size[0], : size[1]] = resized
    logits = head(features, ids, len(segments_info))  # [K, C]
    probs = torch.zeros(len(segments_info) + 1, head.num_classes + 1, device=panoptic.device)
    probs[0, 0] = 1
    probs[1:, 1:] = logits.float().softmax(dim=1)
    return probs[index].permute(2, 0, 1)


def segment_classes(entry: dict, ids: Tensor) -> Tensor:
    """Classes of a picture's segments as they are numbered after padding and reduction.

    Args:
        entry: with ``segment_ids`` (h, w) and ``segments_info`` (``id``, ``category_id``).
        ids: (S, S) int64, 0..K: the same segments, renumbered, perhaps fewer.

    Returns:
        (K,) int64; -1 where ``segments_info`` does not tell.
    """
    height, width = entry["segment_ids"].shape
    old = entry["segment_ids"].to(ids.device).flatten()
    new = ids[:height, :width].flatten()
    known = {int(s["id"]): int(s["category_id"]) for s in entry.get("segments_info", ())}
    table = [known.get(i, -1) for i in range(int(old.max()) + 1 if old.numel() else 1)]
    result = ids.new_full((int(ids.max()) + 1,), -1)
    result[new] = torch.tensor(table, device=ids.device)[old]
    return result[1:]
