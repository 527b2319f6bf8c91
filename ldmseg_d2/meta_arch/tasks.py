"""The tasks: what of a photo the diffusion model generates.

"instance" is the paper's name for class-agnostic panoptic segmentation: every segment, thing or
stuff, under an id of its own. Its output is ``panoptic_seg``, which gets classes by the classifier.
"semantic" gives ``sem_seg``, a class for every pixel; "depth" gives ``depth``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor

from ..diffusion import SampleRandomness
from ..ids import matched_id_table, random_ids, relabel, semantic_codes
from ..modeling.depth_autoencoder import DepthAutoencoder, DepthNormalization
from ..modeling.mask_autoencoder import MaskAutoencoder
from ..panoptic import SegmentsInfo, logits_to_panoptic, semantic_probabilities
from .batching import (
    balanced_cells,
    pad_stack,
    pool_valid,
    resize_shown,
    shown_size,
    stack_depth,
    stack_segment_ids,
)
from .segment_classes import IGNORE_LABEL, dataset_classes
from .task_base import TASK_REGISTRY, Target, Task


class IdTask(Task):
    """Base of the tasks whose map holds ids, encoded as bits by the mask autoencoder."""

    autoencoder: MaskAutoencoder

    def __init__(
        self,
        autoencoder: MaskAutoencoder,
        *,
        masked_loss: bool = True,
        segment_balance: float = 0.0,
        **sizes: int,
    ) -> None:
        """
        Args:
            autoencoder: of masks.
            masked_loss: leave cells that are mostly void out of the loss.
            segment_balance: b of the squared error of latents, see :func:`balanced_cells`.
            sizes: see :class:`Task`.

        Raises:
            ValueError: a balance outside [0, 1].
        """
        super().__init__(autoencoder, **sizes)
        if not 0 <= segment_balance <= 1:
            raise ValueError(
                "MODEL.LDMSEG.DIFFUSION.SEGMENT_BALANCE must be from 0 (pixels weigh the same) to "
                f"1 (segments do), got {segment_balance}"
            )
        self.masked_loss = masked_loss
        self.segment_balance = segment_balance

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        diffusion = cfg.MODEL.LDMSEG.DIFFUSION
        return {
            **super().from_config(cfg),
            "masked_loss": diffusion.MASKED_LOSS,
            "segment_balance": diffusion.SEGMENT_BALANCE,
        }

    def encode_ids(self, ids: Tensor) -> Target:
        """The target of id maps (N, S, S) int64, 0 is void."""
        latents = self.autoencoder.normalize(self.autoencoder.encode(ids).mean)
        size, balance = latents.shape[-1], self.segment_balance
        return Target(
            latents,
            valid=pool_valid(ids != 0, size) if self.masked_loss else None,
            weights=balanced_cells(ids, size, balance) if balance else None,
        )

    def picture_logits(self, head_output: Tensor, entry: dict) -> Tensor:
        """Logits (2^num_bits, h, w) of one picture's ids, from (*, S, S), without its padding."""
        height, width = shown_size(entry)
        head_output = head_output[None, :, :height, :width].float()
        return self.autoencoder.id_logits(head_output)[0]


@TASK_REGISTRY.register()
class InstanceTask(IdTask):
    """Segments without classes: their ids are assigned anew in every training step."""

    name = "instance"
    annotation = "segment_ids"
    output_key = "panoptic_seg"

    def __init__(
        self,
        autoencoder: MaskAutoencoder,
        *,
        id_assignment: str = "random",
        postprocess: dict | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            autoencoder: of masks.
            id_assignment: "random" or "matched", see ``MODEL.LDMSEG.ID_ASSIGNMENT``.
            postprocess: keyword arguments of ``logits_to_panoptic``.
            kwargs: see :class:`IdTask`.

        Raises:
            ValueError: unknown id assignment.
        """
        super().__init__(autoencoder, **kwargs)
        if id_assignment not in ("random", "matched"):
            raise ValueError(
                f"MODEL.LDMSEG.ID_ASSIGNMENT is {id_assignment!r}; allowed: random, matched"
            )
        self.needs_prediction = id_assignment == "matched"
        self.postprocess = postprocess or {}

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            **super().from_config(cfg),
            "id_assignment": cfg.MODEL.LDMSEG.ID_ASSIGNMENT,
            "postprocess": postprocess_arguments(cfg),
        }

    def encode(
        self, entries: Sequence[dict], randomness: SampleRandomness, predicted: Tensor | None
    ) -> Target:
        max_segments = self.autoencoder.num_ids - 1
        ids = stack_segment_ids(entries, self.train_size, max_segments).to(randomness.device)
        if not self.needs_prediction:
            ids = random_ids(ids, self.autoencoder.num_bits, randomness.generators)
        else:
            decoded = self.autoencoder.decode_normalized(predicted)
            expand = self.autoencoder.id_logits
            tables = [
                matched_id_table(one, int(one.max()), own, expand)
                for one, own in zip(ids, decoded, strict=True)
            ]
            ids = torch.stack([relabel(*pair) for pair in zip(ids, tables, strict=True)])
        return self.encode_ids(ids)._replace(segment_ids=ids)

    def decode(self, latents: Tensor, entries: Sequence[dict]) -> list[tuple[Tensor, SegmentsInfo]]:
        """``panoptic_seg`` of every sample, see :func:`logits_to_panoptic`.

        An entry's ``keep_ids`` are channels that no threshold deletes: given segments.
        """
        return [
            logits_to_panoptic(
                self.picture_logits(one, entry),
                (entry["height"], entry["width"]),
                keep_ids=entry.get("keep_ids", ()),
                **self.postprocess,
            )
            for one, entry in zip(self.autoencoder.decode_normalized(latents), entries, strict=True)
        ]


@TASK_REGISTRY.register()
class SemanticTask(IdTask):
    """Classes through the mask autoencoder, as ids that are the same in all pictures."""

    name = "semantic"
    annotation = "sem_seg"
    output_key = "sem_seg"

    def __init__(
        self,
        autoencoder: MaskAutoencoder,
        *,
        num_classes: int,
        codes: str = "consecutive",
        **kwargs: Any,
    ) -> None:
        """
        Args:
            autoencoder: of masks.
            num_classes: C.
            codes: "consecutive" or "spread", see :func:`semantic_codes`.
            kwargs: see :class:`IdTask`.

        Raises:
            ValueError: more classes than ids or than a map can hold, or unknown codes.
        """
        super().__init__(autoencoder, **kwargs)
        if num_classes > IGNORE_LABEL:
            raise ValueError(
                f"the task 'semantic' takes at most {IGNORE_LABEL} classes, got {num_classes}: in "
                f"semantic maps {IGNORE_LABEL} is void"
            )
        self.num_classes = num_classes
        self.class_ids = semantic_codes(num_classes, autoencoder.num_bits, codes)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {
            **super().from_config(cfg),
            "num_classes": dataset_classes(cfg).num_classes,
            "codes": cfg.MODEL.LDMSEG.SEMANTIC.CODES,
        }

    def encode(
        self, entries: Sequence[dict], randomness: SampleRandomness, predicted: Tensor | None
    ) -> Target:
        for entry in entries:
            self._check_classes(entry)
        maps = [entry["sem_seg"].to(randomness.device) for entry in entries]
        classes = pad_stack(maps, self.train_size, IGNORE_LABEL)  # [N, S, S]
        table = torch.cat([self.class_ids, self.class_ids.new_zeros(1)]).to(classes.device)
        return self.encode_ids(table[classes.where(classes != IGNORE_LABEL, self.num_classes)])

    def decode(self, latents: Tensor, entries: Sequence[dict]) -> list[Tensor]:
        """(C + 1, H, W) probabilities of void and of every class, for each sample."""
        return [
            semantic_probabilities(
                self.picture_logits(one, entry),
                class_ids=self.class_ids,
                size=(entry["height"], entry["width"]),
            )
            for one, entry in zip(self.autoencoder.decode_normalized(latents), entries, strict=True)
        ]

    def _check_classes(self, entry: dict) -> None:
        classes = torch.unique(entry["sem_seg"])
        wrong = classes[(classes != IGNORE_LABEL) & ((classes < 0) | (classes >= self.num_classes))]
        if len(wrong):
            raise ValueError(
                f"{entry.get('file_name', 'image')}: sem_seg holds class {int(wrong[0])}, but the "
                f"model has {self.num_classes} classes (0..{self.num_classes - 1}, and "
                f"{IGNORE_LABEL} for void): DATASETS.TRAIN and MODEL.LDMSEG.NUM_CLASSES must agree"
            )


@TASK_REGISTRY.register()
class DepthTask(Task):
    """Relative or metric depth; invalid pixels are left out of the loss."""

    name = "depth"
    annotation = "depth"
    autoencoder_name = "depth_autoencoder"
    output_key = "depth"
    autoencoder: DepthAutoencoder

    def __init__(
        self, autoencoder: DepthAutoencoder, *, normalization: DepthNormalization, **sizes: int
    ) -> None:
        """
        Args:
            autoencoder: of depth.
            normalization: metres to [-1, 1] and back.
            sizes: see :class:`Task`.
        """
        super().__init__(autoencoder, **sizes)
        self.normalization = normalization

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {**super().from_config(cfg), "normalization": build_depth_normalization(cfg)}

    def has_target(self, entry: dict) -> bool:
        return super().has_target(entry) and bool((entry["depth"] > 0).any())

    def encode(
        self, entries: Sequence[dict], randomness: SampleRandomness, predicted: Tensor | None
    ) -> Target:
        depth, valid = stack_depth(entries, self.train_size, self.normalization, randomness.device)
        latents = self.autoencoder.normalize(self.autoencoder.encode(depth, valid))
        return Target(latents, valid=pool_valid(valid, latents.shape[-1]))

    def decode(self, latents: Tensor, entries: Sequence[dict]) -> list[Tensor]:
        """(H, W) float32 for each sample: metres, or relative depth in [0, 1]."""
        decoded = self.autoencoder.decode_normalized(latents).float()
        return [
            resize_shown(self.normalization.denormalize(one), entry)
            for one, entry in zip(decoded, entries, strict=True)
        ]


def postprocess_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Keyword arguments of ``logits_to_panoptic`` from ``cfg.MODEL.LDMSEG.POSTPROCESS``."""
    post = cfg.MODEL.LDMSEG.POSTPROCESS
    return {key.lower(): value for key, value in post.items() if key != "SPLIT_AREA"}


def build_depth_normalization(cfg: CfgNode) -> DepthNormalization:
    """The normalisation of ``MODEL.LDMSEG.DEPTH``; ValueError for values that make no sense."""
    depth = cfg.MODEL.LDMSEG.DEPTH
    normalization = DepthNormalization(depth.NORMALIZATION, tuple(depth.RANGE), depth.SCALE)
    normalization.check()
    return normalization
