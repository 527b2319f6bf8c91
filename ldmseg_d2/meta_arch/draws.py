"""Several draws of one photo: a consensus, and where the draws disagree."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..inpainting import consensus
from .tasks.outputs import with_instances


def repeat_draws(batched_inputs: Sequence[dict]) -> tuple[list[int], list[dict]]:
    """Repeat every input as often as its ``num_samples`` says; once without that key.

    Returns:
        For each draw the index of its input, and an input dict with its number as ``draw``.

    Raises:
        ValueError: ``num_samples`` is no whole number above 0.
    """
    pictures, entries = [], []
    for index, entry in enumerate(batched_inputs):
        count = entry.get("num_samples", 1)
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(
                f"{entry.get('file_name', 'image')}: its 'num_samples' is {count!r}; expected a "
                "whole number from 1 on"
            )
        pictures += [index] * count
        entries += [{**entry, "draw": draw} for draw in range(count)]
    return pictures, entries


def join_draws(
    batched_inputs: Sequence[dict],
    pictures: Sequence[int],
    outputs: Sequence[dict[str, Any]],
    *,
    min_area: int,
) -> list[dict[str, Any]]:
    """One output for each input: where it has several draws, what they have in common.

    Args:
        batched_inputs: the inputs.
        pictures: index of the input of each draw.
        outputs: of each draw.
        min_area: of a segment of the consensus, pixels.

    Returns:
        The outputs. Of several draws: ``panoptic_seg`` is their :func:`consensus`, ``uncertainty``
        (H, W) in [0, 1] its disagreement, ``samples`` the draws' own maps, ``sem_seg`` and
        ``depth`` their means; steps are those of the first draw.
    """
    joined = []
    for index, entry in enumerate(batched_inputs):
        draws = [output for i, output in zip(pictures, outputs, strict=True) if i == index]
        output = dict(draws[0])
        if len(draws) > 1:
            for key in ("sem_seg", "depth"):
                if key in output:
                    output[key] = torch.stack([one[key] for one in draws]).mean(dim=0)
            if "panoptic_seg" in output:
                samples = [one["panoptic_seg"] for one in draws]
                panoptic, segments_info, uncertainty = consensus(
                    samples, min_area=max(min_area, 1), fixed_ids=_given_ids(entry)
                )
                output.update(
                    panoptic_seg=(panoptic, segments_info), uncertainty=uncertainty, samples=samples
                )
                if "instances" in output:
                    output.update(with_instances((panoptic, segments_info)))
        joined.append(output)
    return joined


def _given_ids(entry: dict) -> list[int]:
    """Ids of the given segments; those outside of the known pixels are not given."""
    if entry.get("known_ids") is None:
        return []
    ids = torch.as_tensor(entry["known_ids"])
    if entry.get("known_mask") is not None:
        ids = ids[torch.as_tensor(entry["known_mask"], device=ids.device)]
    return [i for i in torch.unique(ids).tolist() if i > 0]


def majority_class(sem_seg: Tensor | None):
    """A function that gives a mask (H, W) bool the class (C, H, W) that scores highest in it."""
    if sem_seg is None:
        return None

    def classify(mask: Tensor) -> int:
        return int(sem_seg[:, mask].sum(dim=1).argmax())

    return classify
