"""A model from a config, and pictures of what it makes of photos."""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from ldmseg_d2.data import build_dataset_mapper
from ldmseg_d2.data.annotations import read_id_png, read_photo
from ldmseg_d2.evaluation import WITHOUT_SEGMENTS, predicts_classes
from ldmseg_d2.evaluation.depth_evaluator import load_depth
from ldmseg_d2.evaluation.semantic_evaluator import has_semantic_truth, load_semantic_truth
from ldmseg_d2.meta_arch.tasks import build_depth_normalization
from ldmseg_d2.visualization import (
    Style,
    draw_annotations,
    draw_outputs,
    draw_panoptic,
    enlarge,
    fit,
    grid,
)

from .checkpointer import LDMSegCheckpointer

logger = logging.getLogger(__name__)

NUM_STEPS = 6
# Small pictures are enlarged to about this side, in pixels; steps are drawn at most that large.
MIN_SIDE = 256


class Sheet(NamedTuple):
    """The pictures of one photo, in rows, with a title above each."""

    rows: list[list[np.ndarray]]
    titles: list[list[str]]
    strip: np.ndarray | None = None  # of the steps

    def picture(self) -> np.ndarray:
        """All of it as one (H, W, 3) uint8 picture."""
        parts = [grid(self.rows, self.titles), *([] if self.strip is None else [self.strip])]
        width = max(part.shape[1] for part in parts)
        margins = [((0, 0), (0, width - part.shape[1]), (0, 0)) for part in parts]
        return np.concatenate([np.pad(p, m, constant_values=255) for p, m in zip(parts, margins)])


class Demo:
    """Segments photos one by one and draws: photo | panoptic | semantic | depth."""

    def __init__(self, cfg: CfgNode, *, dataset: str | None = None, steps: bool = False) -> None:
        """
        Args:
            cfg: of a model that takes photos; ValueError where it makes no segments of them.
            dataset: a registered data set whose metadata names and colours the classes.
            steps: ask the model for its intermediate predictions.
        """
        name = cfg.MODEL.META_ARCHITECTURE
        if name in WITHOUT_SEGMENTS:
            raise ValueError(
                f"the demo needs a diffusion model (MODEL.META_ARCHITECTURE LDMSeg), not {name}, "
                "which is trained before it and makes no segments of a photo"
            )
        self.mapper = build_dataset_mapper(cfg, is_train=False)
        self.model = build_model(cfg).eval()
        if not cfg.MODEL.WEIGHTS:
            logger.warning("MODEL.WEIGHTS is empty: the model has random weights")
        LDMSegCheckpointer(self.model).load(cfg.MODEL.WEIGHTS)
        self.segments_have_classes = predicts_classes(cfg)
        self.steps = steps
        self.style = Style()
        if name == "LDMSeg":
            depth = build_depth_normalization(cfg)
            relative = (0.0, 1.0) if depth.kind == "relative" else None
            self.style = Style(depth_range=relative, log_depth=depth.scale == "log")
        if dataset is not None:
            metadata = MetadataCatalog.get(dataset)
            # Detectors' data sets have no stuff.
            kind = "stuff" if "stuff_classes" in metadata.as_dict() else "thing"
            self.style = self.style._replace(
                class_names=metadata.get(f"{kind}_classes", None),
                class_colors=metadata.get(f"{kind}_colors", None),
            )

    def load(self, record: dict[str, Any]) -> dict[str, Any]:
        """Read what belongs to one photo: ``file_name``, ``image_id`` and, maybe, annotations.

        Returns:
            ``inputs`` of the model, ``photo`` (H, W, 3) uint8 and ``truth``, the annotations at the
            photo's own size as :func:`draw_annotations` takes them.
        """
        truth: dict[str, Any] = {}
        if "pan_seg_file_name" in record:
            truth["segment_ids"] = read_id_png(record["pan_seg_file_name"])
            truth["segments_info"] = record.get("segments_info")
        if has_semantic_truth(record):
            truth["sem_seg"] = load_semantic_truth(record, 255)
        if "depth_file_name" in record:
            truth["depth"] = load_depth(record)
        inputs = self.mapper(record)
        if self.steps:
            inputs["return_steps"] = NUM_STEPS
        return {"inputs": inputs, "photo": read_photo(record["file_name"]), "truth": truth}

    @torch.no_grad()
    def segment(self, inputs: dict[str, Any], photo: np.ndarray, truth: Mapping[str, Any]) -> Sheet:
        """Run the model on one photo; see :meth:`load` for the arguments.

        Returns:
            Photo and results in one row, their ground truth, where there is any, below.

        Raises:
            ValueError: the model gives no steps.
        """
        output = self.model([inputs])[0]
        style = self.style._replace(scale=max(1, MIN_SIDE // max(photo.shape[:2])))
        if not self.segments_have_classes and "panoptic_seg" in output:
            # Neither the result nor, for comparison, the truth shall name its segments.
            output = {**output, "panoptic_seg": (output["panoptic_seg"][0], [])}
            truth = {**truth, "segments_info": None}
        results = draw_outputs(photo, output, style, truth)
        truths = draw_annotations(photo, truth, style)
        picture = enlarge(photo, style.scale)
        rows, titles = [[picture, *results.values()]], [["photo", *results]]
        if any(kind in truths for kind in results):
            blank = np.full_like(picture, 255)
            rows.append([blank, *(truths.get(kind, blank) for kind in results)])
            titles.append(["", *(f"true {kind}" if kind in truths else "" for kind in results)])
        strip = self._strip(photo, output, truth, style.scale) if self.steps else None
        return Sheet(rows, titles, strip)

    def _strip(self, photo: np.ndarray, output: dict, truth: Mapping, scale: int) -> np.ndarray:
        if "steps" not in output:
            name = type(self.model).__name__
            raise ValueError(f"{name} has no denoising steps of segments: leave out --steps")
        # Every step in the colours of the result, which are the truth's where there is one.
        like = truth.get("segment_ids", output["panoptic_seg"][0])
        maps = [step["panoptic_seg"][0] for step in output["steps"]]
        frames = [draw_panoptic(photo, one, scale=scale, like=like) for one in maps]
        titles = [f"t = {step['timestep']}" for step in output["steps"]]
        return grid([[fit(frame, MIN_SIDE) for frame in frames]], [titles])
