"""What belongs to one photo, as panels: its annotations, or a model's outputs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from .depth_picture import depth_range, draw_depth
from .panoptic_picture import draw_panoptic
from .semantic_picture import draw_semantic

# The panels, in the order in which they stand beside each other.
PANELS = ("panoptic", "semantic", "depth")
# Instances below it are not drawn where there is no panoptic map.
MIN_INSTANCE_SCORE = 0.5


class Style(NamedTuple):
    """How panels are drawn; the default draws segments without names."""

    class_names: Sequence[str] | None = None  # of the contiguous classes, as in the metadata
    class_colors: Sequence[Sequence[int]] | None = None
    # Ends of the colours of relative depth, (0, 1); None: of metres, the ground truth's range.
    depth_range: tuple[float, float] | None = None
    log_depth: bool = False  # equal ratios of metres are equal steps of colour
    scale: int = 1  # enlarges small pictures


DEFAULT_STYLE = Style()


def draw_annotations(
    photo: np.ndarray, annotations: Mapping[str, Any], style: Style = DEFAULT_STYLE
) -> dict[str, np.ndarray]:
    """Draw the annotations of a photo, as :func:`draw_outputs` does outputs.

    They are any of ``segment_ids`` (H, W), 0 void, with ``segments_info`` for their names;
    ``sem_seg`` (H, W) classes, 255 void; ``depth`` (H, W) metres, 0 invalid.
    """
    output = {"sem_seg": annotations.get("sem_seg")}
    if annotations.get("segment_ids") is not None:
        output["panoptic_seg"] = annotations["segment_ids"], annotations.get("segments_info")
    if annotations.get("depth") is not None:
        depth = torch.as_tensor(annotations["depth"])
        output["depth"] = depth.masked_fill(depth <= 0, float("nan"))
    return draw_outputs(photo, output, style._replace(depth_range=None), annotations)


def draw_outputs(
    photo: np.ndarray,
    output: Mapping[str, Any],
    style: Style = DEFAULT_STYLE,
    annotations: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """Draw what a model gave for a photo (H, W, 3) uint8 RGB.

    Any of ``panoptic_seg``, ``instances`` (drawn where there is no panoptic map), ``sem_seg`` and
    ``depth``; colours and range of depth are as in the annotations, see :func:`draw_annotations`.

    Returns:
        Those of ``PANELS`` that there are, (H', W', 3) uint8 each.
    """
    annotations = annotations or {}
    panels = {}
    named = {"class_names": style.class_names, "scale": style.scale}
    segments = output_segments(output)
    if segments is not None:
        like = annotations.get("segment_ids")
        panels["panoptic"] = draw_panoptic(photo, *segments, like=like, **named)
    if output.get("sem_seg") is not None:
        classes = output["sem_seg"]
        panels["semantic"] = draw_semantic(photo, classes, colors=style.class_colors, **named)
    if output.get("depth") is not None:
        near_far, log = style.depth_range, False
        if near_far is None:
            true = annotations.get("depth")
            near_far, log = depth_range(output["depth"] if true is None else true), style.log_depth
        panels["depth"] = draw_depth(output["depth"], *near_far, log=log, scale=style.scale)
    return panels


def output_segments(
    output: Mapping[str, Any],
) -> tuple[torch.Tensor, list[dict[str, Any]]] | None:
    """A model's panoptic map, or one of its instances, the best on top; None if it gave neither."""
    if "panoptic_seg" in output:
        ids, segments_info = output["panoptic_seg"]
        return ids, segments_info or []
    instances = output.get("instances")
    if instances is None or not instances.has("pred_masks"):
        return None
    ids = torch.zeros(instances.image_size, dtype=torch.int64)
    segments_info = []
    for i in instances.scores.argsort().tolist():
        if float(instances.scores[i]) >= MIN_INSTANCE_SCORE:
            ids[instances.pred_masks[i].cpu().bool()] = i + 1
            segments_info.append({"id": i + 1, "category_id": int(instances.pred_classes[i])})
    return ids, segments_info
