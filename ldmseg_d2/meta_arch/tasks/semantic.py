"""The task "semantic": a class for every pixel, as an id that is the same in all pictures."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor

from ...ids import semantic_codes
from ...modeling.mask_autoencoder import MaskAutoencoder
from ...panoptic import semantic_probabilities
from ..batching import SampleRandomness, pad_stack
from .base import TASK_REGISTRY, Predict, Target
from .classes import IGNORE_LABEL, dataset_classes
from .instance import IdTask, picture_logits


@TASK_REGISTRY.register()
class SemanticTask(IdTask):
    """Classes through the mask autoencoder; outputs their probabilities."""

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

    @torch.no_grad()
    def encode(
        self, entries: Sequence[dict], randomness: SampleRandomness, predict: Predict
    ) -> Target:
        for entry in entries:
            self._check_classes(entry)
        maps = [entry["sem_seg"].to(randomness.device) for entry in entries]
        classes = pad_stack(maps, self.train_size, IGNORE_LABEL)  # [N, S, S]
        table = torch.cat([self.class_ids, self.class_ids.new_zeros(1)]).to(classes.device)
        ids = table[classes.where(classes != IGNORE_LABEL, self.num_classes)]
        return self.encode_ids(ids)

    def decode(self, latents: Tensor, entries: Sequence[dict]) -> list[Tensor]:
        """(C + 1, H, W) probabilities of void and of every class, for each sample."""
        head_output = self.decode_latents(latents)
        return [
            semantic_probabilities(
                picture_logits(self.autoencoder, one, entry),
                class_ids=self.class_ids.to(one.device),
                size=(entry["height"], entry["width"]),
            )
            for one, entry in zip(head_output, entries, strict=True)
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
