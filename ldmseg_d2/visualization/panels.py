"""What belongs to one photo, as panels: its annotations, or a model's outputs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ..modeling.depth_normalization import DepthNormalization
from .depth import depth_range, draw_depth
from .panoptic import draw_panoptic
from .semantic import IGNORE_LABEL, class_map, draw_semantic

# The panels, in the order in which they stand beside each other.
PANELS = ("panoptic", "semantic", "depth")
# Instances below it are not drawn where there is no panoptic map.
MIN_INSTANCE_SCORE = 0.5


class Style(NamedTuple):
    """How panels are drawn; the default draws segments without names."""

    # Of the contiguous classes, as in a data set's metadata; None: none are written.
    class_names: Sequence[str] | None = None
    class_colors: Sequence[Sequence[int]] | None = None
    # What a model's depth means; None: as it comes, each map in a range of its own.
    depth: DepthNormalization | None = None
    # Enlarges small pictures.
    scale: int = 1


DEFAULT_STYLE = Style()


def draw_annotations(
    photo: np.ndarray, annotations: Mapping[str, Any], style: Style = DEFAULT_STYLE
) -> dict[str, np.ndarray]:
    """Draw the annotations that a photo has.

    Args:
        photo: (H, W, 3) uint8 RGB.
        annotations: any of ``segment_ids`` (H, W), 0 void, ``segments_info`` for their names;
            ``sem_seg`` (H, W) classes, 255 void; ``depth`` (H, W) metres, 0 invalid.
        style: names, colours, size.

    Returns:
        Those of ``PANELS`` that there are, (H', W', 3) uint8 each.
    """
    panels = {}
    if annotations.get("segment_ids") is not None:
        panels["panoptic"] = draw_panoptic(
            photo,
            annotations["segment_ids"],
            annotations.get("segments_info"),
            class_names=style.class_names,
            scale=style.scale,
        )
    if annotations.get("sem_seg") is not None:
        panels["semantic"] = _draw_classes(photo, annotations["sem_seg"], style)
    if annotations.get("depth") is not None:
        depth, valid, shown = _true_depth(annotations["depth"])
        panels["depth"] = draw_depth(
            depth, valid, range=shown, unit="m", log=_is_log(style), scale=style.scale
        )
    return panels


def draw_outputs(
    photo: np.ndarray,
    output: Mapping[str, Any],
    style: Style = DEFAULT_STYLE,
    annotations: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """Draw what a model gave for a photo.

    Args:
        photo: (H, W, 3) uint8 RGB.
        output: of a Detectron2 model, any of ``panoptic_seg``, ``instances`` (drawn where there is
            no panoptic map), ``sem_seg`` and ``depth``.
        style: names, colours, meaning of depth, size.
        annotations: see :func:`draw_annotations`; segments have the colours, and depth the range,
            that they have there.

    Returns:
        Those of ``PANELS`` that there are, (H', W', 3) uint8 each.
    """
    annotations = annotations or {}
    panels = {}
    segments = output_segments(output)
    if segments is not None:
        panels["panoptic"] = draw_panoptic(
            photo,
            *segments,
            class_names=style.class_names,
            like=annotations.get("segment_ids"),
            scale=style.scale,
        )
    if "sem_seg" in output:
        panels["semantic"] = _draw_classes(photo, output["sem_seg"], style)
    if "depth" in output:
        shown, log = None, False
        unit = "m" if style.depth is not None and style.depth.kind == "metric" else None
        if unit is not None:
            log = _is_log(style)
            if annotations.get("depth") is not None:
                shown = _true_depth(annotations["depth"])[2]
        elif style.depth is not None:
            # The shares of each picture's range, which are logarithmic already if they are so.
            shown = (0.0, 1.0)
        panels["depth"] = draw_depth(
            output["depth"], range=shown, unit=unit, log=log, scale=style.scale
        )
    return panels


def output_segments(
    output: Mapping[str, Any],
) -> tuple[torch.Tensor, list[dict[str, Any]]] | None:
    """A model's panoptic map, or one that is painted from its instances, the best on top.

    Returns:
        (H, W) integer ids, 0 is void, and their segments_info; None if it gave neither.
    """
    if "panoptic_seg" in output:
        ids, segments_info = output["panoptic_seg"]
        return ids, segments_info or []
    instances = output.get("instances")
    if instances is None or not instances.has("pred_masks"):
        return None
    order = instances.scores.argsort().tolist()
    ids = torch.zeros(instances.image_size, dtype=torch.int64)
    segments_info = []
    for i in order:
        if float(instances.scores[i]) < MIN_INSTANCE_SCORE:
            continue
        ids[instances.pred_masks[i].cpu().bool()] = i + 1
        segments_info.append({"id": i + 1, "category_id": int(instances.pred_classes[i])})
    return ids, segments_info


def _draw_classes(photo: np.ndarray, sem_seg: Any, style: Style) -> np.ndarray:
    return draw_semantic(
        photo,
        _with_void(sem_seg),
        class_names=style.class_names,
        colors=style.class_colors,
        scale=style.scale,
    )


def _with_void(sem_seg: Any) -> Any:
    """Probabilities (C, H, W) as classes (H, W), void where no class is as probable as none.

    LDMSeg's sum to one less void's probability. Other scores and maps of classes stay as they are.
    """
    scores = torch.as_tensor(sem_seg)
    if scores.ndim != 3 or float(scores.min()) < 0:
        return sem_seg
    total = scores.sum(dim=0)
    if float(total.max()) > 1 + 1e-3:
        return sem_seg
    classes = torch.from_numpy(class_map(sem_seg))
    void = (1 - total > scores.amax(dim=0)).cpu()
    return classes.masked_fill(void, IGNORE_LABEL)


def _is_log(style: Style) -> bool:
    return style.depth is not None and style.depth.scale == "log"


def _true_depth(depth: Any) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Ground truth in metres, its valid pixels, and the range in which it is drawn."""
    depth = torch.as_tensor(depth).cpu().numpy()
    valid = np.isfinite(depth) & (depth > 0)
    return depth, valid, depth_range(depth, valid)
