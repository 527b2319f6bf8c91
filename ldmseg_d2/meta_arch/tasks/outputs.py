"""From what the tasks give to the outputs that Detectron2's consumers expect."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.structures import BitMasks, Instances
from torch import Tensor

from ...panoptic import fuse_regions, merge_classes, panoptic_to_semantic, split_segments
from .base import Task
from .classes import Classes
from .layout import Batch


@dataclass(frozen=True)
class Fusion:
    """How segments and classes make a panoptic map: keys of ``MODEL.LDMSEG.POSTPROCESS``."""

    fill_stuff_area: int = -1
    split_area: int = -1
    region_area: int = -1
    part_area: int = 1
    part_share: float = 0.1
    keep_void: bool = False


def check_parts(post: CfgNode, key: str) -> None:
    """Raise ValueError where a model's ``PART_AREA`` or ``PART_SHARE`` make no sense.

    Args:
        post: has both.
        key: where it stands in the config.
    """
    if post.PART_AREA < 1 or not 0 <= post.PART_SHARE <= 1:
        raise ValueError(
            f"{key}: PART_AREA must be at least 1 pixel and PART_SHARE in [0, 1], got "
            f"{post.PART_AREA} and {post.PART_SHARE}"
        )


def assemble_output(
    decoded: dict[str, Any],
    *,
    classes: Classes | None = None,
    class_probs: Tensor | None = None,
    fusion: Fusion | None = None,
    given: Tensor | None = None,
) -> dict[str, Any]:
    """One picture's output dict.

    Args:
        decoded: by output key what the tasks gave: ``panoptic_seg`` without classes, ``sem_seg``
            (C + 1, H, W) with void as the first channel, and others, which stay as they are.
        classes: of the model; None: segments have none.
        class_probs: (C + 1, H, W) that vote for the segments' classes.
        fusion: of both; None: as the paper.
        given: (H, W) ids of given pixels, see :func:`split_segments`; None: nothing is given.

    Returns:
        ``decoded``, in which ``panoptic_seg`` has categories where ``class_probs`` is given, and
        then also ``instances`` (its things) and, where no task made one, ``sem_seg``;
        ``sem_seg`` (C, H, W) lost the channel of void.
    """
    output = dict(decoded)
    if "sem_seg" in decoded:
        output["sem_seg"] = decoded["sem_seg"][1:]
    if "panoptic_seg" in decoded and classes is not None and class_probs is not None:
        panoptic, segments_info = _fuse(
            decoded["panoptic_seg"],
            class_probs,
            is_thing=classes.is_thing,
            fusion=fusion or Fusion(),
            given=given,
        )
        output.update(with_instances((panoptic, segments_info)))
        if "sem_seg" not in decoded:
            output["sem_seg"] = panoptic_to_semantic(panoptic, segments_info, classes.num_classes)
    return output


def _fuse(
    panoptic_seg: tuple[Tensor, list[dict]],
    class_probs: Tensor,
    *,
    is_thing: Sequence[bool],
    fusion: Fusion,
    given: Tensor | None,
) -> tuple[Tensor, list[dict]]:
    """The panoptic map with classes, see :func:`assemble_output`."""
    panoptic, segments_info = panoptic_seg
    # Given segments are what the user says, whatever the semantic map shows there.
    if fusion.region_area > 0 and given is None:
        return fuse_regions(
            panoptic,
            segments_info,
            class_probs,
            is_thing=is_thing,
            region_area=fusion.region_area,
            part_area=fusion.part_area,
            part_share=fusion.part_share,
            split_area=fusion.split_area,
            keep_void=fusion.keep_void,
        )
    if fusion.split_area > 0:
        panoptic, segments_info = split_segments(
            panoptic,
            segments_info,
            class_probs,
            is_thing=is_thing,
            min_area=fusion.split_area,
            given=given,
        )
    return merge_classes(
        panoptic,
        segments_info,
        class_probs,
        is_thing=is_thing,
        fill_void=fusion.fill_stuff_area >= 0,
        min_stuff_area=max(fusion.fill_stuff_area, 0),
        given_ids=() if given is None else set(given.unique().tolist()) - {0},
    )


def with_instances(panoptic_seg: tuple[Tensor, list[dict]]) -> dict[str, Any]:
    """A panoptic map with classes and its things, as the keys of an output."""
    return {"panoptic_seg": panoptic_seg, "instances": thing_instances(*panoptic_seg)}


def thing_instances(panoptic: Tensor, segments_info: Sequence[dict[str, Any]]) -> Instances:
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


def decode_tasks(
    tasks: Sequence[Task], batch: Batch, latents: Tensor, entries: Sequence[dict]
) -> list[dict[str, Any]]:
    """By output key what each picture's tasks give.

    Args:
        tasks: of the model.
        batch: its rows and blocks.
        latents: (R, C', h, w) sampled.
        entries: the input dicts of the pictures.
    """
    outputs: list[dict[str, Any]] = [{} for _ in entries]
    for block in batch.blocks:
        task = tasks[block.task]
        images = [batch.images[row] for row in block.rows]
        decoded = task.decode(block.of(latents), [entries[i] for i in images])
        for i, one in zip(images, decoded, strict=True):
            outputs[i][task.output_key] = one
    return outputs
