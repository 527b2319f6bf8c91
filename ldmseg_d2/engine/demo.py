"""A model from a config, and pictures of what it makes of photos."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from ldmseg_d2.data import build_dataset_mapper
from ldmseg_d2.data.annotations import read_id_png, read_photo
from ldmseg_d2.evaluation import WITHOUT_SEGMENTS, predicts_classes
from ldmseg_d2.evaluation.depth import load_depth
from ldmseg_d2.evaluation.semantic import has_semantic_truth, load_semantic_truth
from ldmseg_d2.meta_arch.tasks.depth import build_depth_normalization
from ldmseg_d2.visualization import (
    Style,
    class_colors,
    class_map,
    denoising_strip,
    draw_annotations,
    draw_legend,
    draw_outputs,
    draw_panoptic,
    enlarge,
    fit,
    grid,
    output_segments,
)

from .checkpointer import LDMSegCheckpointer

logger = logging.getLogger(__name__)

NUM_STEPS = 6
# Small pictures are enlarged to about this side, in pixels; steps are drawn at most that large.
MIN_SIDE = 256


class DemoError(RuntimeError):
    """The model does not give what the demo is to draw."""


class Sheet(NamedTuple):
    """The pictures of one photo, in rows, with a title above each."""

    rows: list[list[np.ndarray]]
    titles: list[list[str]]
    strip: np.ndarray | None = None

    def picture(self) -> np.ndarray:
        """All of it as one (H, W, 3) uint8 picture."""
        picture = grid(self.rows, self.titles)
        return picture if self.strip is None else grid([[picture], [self.strip]], pad=0)


class Demo:
    """Segments photos one by one and draws: photo | panoptic | semantic | depth."""

    def __init__(
        self,
        cfg: CfgNode,
        *,
        dataset: str | None = None,
        steps: bool = False,
        tasks: Sequence[str] = (),
    ) -> None:
        """
        Args:
            cfg: of a model that takes photos.
            dataset: a registered data set whose metadata names and colours the classes.
            steps: ask the model for its intermediate predictions.
            tasks: of LDMSeg's, only these; empty: all that it has.

        Raises:
            ValueError: the model reads no photos, or lacks a task.
        """
        self.is_ldmseg = cfg.MODEL.META_ARCHITECTURE == "LDMSeg"
        _check(cfg, tasks)
        self.mapper = build_dataset_mapper(cfg, is_train=False)
        self.model = build_model(cfg).eval()
        if not cfg.MODEL.WEIGHTS:
            logger.warning("MODEL.WEIGHTS is empty: the model has random weights")
        LDMSegCheckpointer(self.model).load(cfg.MODEL.WEIGHTS)
        self.steps, self.tasks = steps, list(tasks)
        metadata = MetadataCatalog.get(dataset) if dataset is not None else None
        self.style = Style(depth=build_depth_normalization(cfg) if self.is_ldmseg else None)
        if metadata is not None:
            # Detectors' data sets have no stuff.
            kind = "stuff" if "stuff_classes" in metadata.as_dict() else "thing"
            self.style = self.style._replace(
                class_names=metadata.get(f"{kind}_classes", None),
                class_colors=metadata.get(f"{kind}_colors", None),
            )
        self.segments_have_classes = predicts_classes(cfg)

    def load(self, record: dict[str, Any]) -> dict[str, Any]:
        """Read what belongs to one photo.

        Args:
            record: ``file_name``, ``image_id`` and, of a data set, its annotations.

        Returns:
            ``inputs`` of the model, ``photo`` (H, W, 3) uint8 and ``truth``, the annotations at the
            photo's own size as :func:`draw_annotations` takes them.

        Raises:
            FileNotFoundError, ValueError: if a file is missing or damaged.
        """
        inputs = self.mapper(record)
        if self.steps:
            inputs["return_steps"] = NUM_STEPS
        if self.tasks:
            inputs["tasks"] = self.tasks
        truth: dict[str, Any] = {}
        if "pan_seg_file_name" in record:
            truth["segment_ids"] = read_id_png(record["pan_seg_file_name"])
            truth["segments_info"] = record.get("segments_info")
        if has_semantic_truth(record):
            truth["sem_seg"] = load_semantic_truth(record, 255)
        if "depth_file_name" in record:
            truth["depth"] = load_depth(record)
        return {"inputs": inputs, "photo": read_photo(record["file_name"]), "truth": truth}

    @torch.no_grad()
    def segment(self, inputs: dict[str, Any], photo: np.ndarray, truth: Mapping[str, Any]) -> Sheet:
        """Run the model on one photo; see :meth:`load` for the arguments.

        Returns:
            Photo and results in one row. The ground truth of those results stands between the two
            where there is but one, else in a row of its own below, with the colours of the classes.

        Raises:
            DemoError: if the model gives nothing to draw, or no steps.
        """
        output = self.model([inputs])[0]
        style = self.style._replace(scale=max(1, MIN_SIDE // max(photo.shape[:2])))
        if not self.segments_have_classes and "panoptic_seg" in output:
            # Neither the result nor, for comparison, the truth shall name its segments.
            output = {**output, "panoptic_seg": (output["panoptic_seg"][0], [])}
            truth = {**truth, "segments_info": None}
        results = draw_outputs(photo, output, style, truth)
        if not results:
            raise DemoError(
                f"{type(self.model).__name__} gave {sorted(output)}: the demo draws panoptic_seg, "
                "instances, sem_seg and depth"
            )
        truths = draw_annotations(photo, truth, style)
        # As wide as the panels above it, where these are many.
        width = (1 + len(results)) * max(MIN_SIDE, photo.shape[1] * style.scale)
        side = MIN_SIDE if len(results) < 3 else min(MIN_SIDE, width // NUM_STEPS - 2)
        strip = self._strip(photo, output, truth, style.scale, side) if self.steps else None
        titles = {name: name if len(results) > 1 else "result" for name in results}
        segments = output_segments(output)
        if segments is not None:
            titles["panoptic"] += f", {len(torch.unique(segments[0][segments[0] > 0]))} segments"
        picture = enlarge(photo, style.scale)
        shared = [name for name in results if name in truths]
        if len(results) == 1:
            panels = [picture, *(truths[name] for name in shared), *results.values()]
            names = ["photo", *("ground truth" for _ in shared), *titles.values()]
            return Sheet([panels], [names], strip)
        rows = [[picture, *results.values()]]
        names = [["photo", *titles.values()]]
        if shared:
            blank = np.full_like(picture, 255)
            legend = self._legend(output, truth, picture.shape[:2])
            rows.append([legend, *(truths.get(name, blank) for name in results)])
            names.append(["", *(f"true {name}" if name in truths else "" for name in results)])
        return Sheet(rows, names, strip)

    def _legend(
        self, output: Mapping[str, Any], truth: Mapping[str, Any], shape: tuple[int, int]
    ) -> np.ndarray:
        """The classes that occur, with their colours; white where there are none: shape x 3."""
        maps = [class_map(m["sem_seg"]) for m in (output, truth) if m.get("sem_seg") is not None]
        names = self.style.class_names or ()
        found = sorted({int(k) for one in maps for k in np.unique(one)} & set(range(len(names))))
        colors = class_colors(len(names), self.style.class_colors)
        return draw_legend(
            [names[k] for k in found], [colors[k] for k in found], height=shape[0], width=shape[1]
        )

    def _strip(
        self, photo: np.ndarray, output: dict, truth: Mapping[str, Any], scale: int, side: int
    ) -> np.ndarray:
        if "steps" not in output:
            raise DemoError(
                f"{type(self.model).__name__} has no denoising steps of segments to show; leave "
                "out --steps"
            )
        # Every step in the colours of the result, which are the truth's where there is one.
        like = truth.get("segment_ids", output["panoptic_seg"][0])
        frames, timesteps = [], []
        for step in output["steps"]:
            frame = draw_panoptic(photo, step["panoptic_seg"][0], scale=scale, like=like)
            frames.append(fit(frame, side))
            timesteps.append(step["timestep"])
        return denoising_strip(frames, timesteps)


def _check(cfg: CfgNode, tasks: Sequence[str]) -> None:
    """Refuse what cannot work, before anything is built."""
    name = cfg.MODEL.META_ARCHITECTURE
    if name in WITHOUT_SEGMENTS:
        raise ValueError(
            f"the demo needs a diffusion model (MODEL.META_ARCHITECTURE LDMSeg), not {name}, which "
            "is trained before it and makes no segments of a photo"
        )
    known = list(cfg.MODEL.LDMSEG.TASKS) if name == "LDMSeg" else []
    unknown = [task for task in tasks if task not in known]
    if unknown:
        has = f"the tasks {', '.join(known)} (MODEL.LDMSEG.TASKS)" if known else "no tasks"
        raise ValueError(f"--tasks {' '.join(unknown)}: the model, {name}, has {has}")
