"""Several draws of one photo: each an input of its own, then a consensus and where they differ."""

from collections.abc import Sequence
from typing import Any

import torch

from .consensus import consensus


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
    pictures: Sequence[int],
    outputs: Sequence[dict[str, Any]],
    *,
    given_ids: Sequence[Sequence[int]],
    min_area: int,
) -> list[dict[str, Any]]:
    """One output for each input: where it has several draws, what they have in common.

    Args:
        pictures: index of the input of each draw, as :func:`repeat_draws` gives it.
        outputs: of each draw.
        given_ids: of each draw, the ids of given segments.
        min_area: of a segment of the consensus, pixels.

    Returns:
        The outputs. Of several draws: ``panoptic_seg`` is their :func:`consensus`, ``uncertainty``
        (H, W) in [0, 1] its disagreement, ``samples`` the draws' own maps, ``sem_seg`` and
        ``depth`` their means; steps are those of the first draw.
    """
    joined = []
    for index in dict.fromkeys(pictures):
        rows = [row for row, picture in enumerate(pictures) if picture == index]
        draws = [outputs[row] for row in rows]
        output = dict(draws[0])
        if len(draws) > 1:
            for key in ("sem_seg", "depth"):
                if key in output:
                    output[key] = torch.stack([one[key] for one in draws]).mean(dim=0)
            if "panoptic_seg" in output:
                samples = [one["panoptic_seg"] for one in draws]
                panoptic, segments_info, uncertainty = consensus(
                    samples, min_area=max(min_area, 1), fixed_ids=given_ids[rows[0]]
                )
                output |= {"panoptic_seg": (panoptic, segments_info), "samples": samples}
                output["uncertainty"] = uncertainty
        joined.append(output)
    return joined
