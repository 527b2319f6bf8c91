"""The model behind the page: loaded once, called by one function, one call at a time."""

import itertools
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from PIL import Image
from torch import nn

from .. import model_zoo
from ..data import build_dataset_mapper
from ..engine import LDMSegCheckpointer, load_config
from ..engine.config_reader import resolve_config_file
from ..evaluation import WITHOUT_SEGMENTS, predicts_classes
from .annotation_session import Category

DEFAULT_CONFIG = "scenes/ldmseg_multitask_scenes64.yaml"
_Completion = tuple[np.ndarray, dict[int, int], np.ndarray | None]


@dataclass
class Predictor:
    """A model and what the page has to know of it."""

    model: nn.Module  # in eval mode
    mapper: Callable[[dict[str, Any]], dict[str, Any]]
    categories: list[Category]  # in the order of the contiguous classes
    with_classes: bool  # whether its segments carry a predicted class
    title: str
    num_steps: int
    seed: int
    _lock: threading.Lock = field(default_factory=threading.Lock)  # a call sets the model's steps

    def complete(
        self,
        photo: np.ndarray,
        *,
        known_ids: np.ndarray | None = None,
        known_classes: dict[int, int] | None = None,
        steps: int,
        seed: int,
        num_samples: int = 1,
    ) -> _Completion:
        """Segment a photo (H, W, 3) uint8 RGB, or complete the (H, W) ids that are not 0.

        Returns (H, W) int32 ids, 0 is void, given segments under theirs; the class of each segment
        where the model predicts classes; and (H, W) uncertainty in [0, 1] where it gave one.
        """
        record: dict[str, Any] = {"image_id": 0, "seed": seed}
        if num_samples > 1:
            record["num_samples"] = num_samples
        names = [0]
        if known_ids is not None:
            # Consecutive, so that any number of bits holds them: saved files may have large ids.
            names = np.unique(np.append(known_ids, 0)).tolist()
            record["known_ids"] = torch.from_numpy(np.searchsorted(names, known_ids))
            if self.with_classes and known_classes:
                record["known_classes"] = {names.index(i): c for i, c in known_classes.items()}
        with tempfile.TemporaryDirectory(prefix="ldmseg_app_") as folder:
            # Through a file, so that any registered mapper treats it as it treats data sets.
            record["file_name"] = os.path.join(folder, "photo.png")
            Image.fromarray(photo).save(record["file_name"], compress_level=1)
            inputs = self.mapper(record)
        with self._lock, torch.no_grad():
            self.model.num_inference_steps = steps
            output = self.model([inputs])[0]
        return _read_output(output, names, self.with_classes)


def _read_output(output: dict[str, Any], given: list[int], with_classes: bool) -> _Completion:
    """Give the model's segments the page's ids: given ones theirs, new ones the smallest free."""
    panoptic_seg, segments_info = output["panoptic_seg"]
    labels, inverse = np.unique(panoptic_seg.cpu().numpy(), return_inverse=True)
    free = (i for i in itertools.count(1) if i not in given)
    names = {i: given[i] if i < len(given) else next(free) for i in labels.tolist()}
    ids = np.array(list(names.values()), np.int32)[inverse.reshape(panoptic_seg.shape)]
    segments = [s for s in segments_info if with_classes and s["id"] in names]  # not hidden ones
    classes = {names[s["id"]]: int(s["category_id"]) for s in segments}
    heat = output.get("uncertainty")
    return ids, classes, None if heat is None else heat.float().cpu().numpy()


def load_predictor(config_file: str = "", opts: Sequence[str] = ()) -> Predictor:
    """Build a model and load its weights; without a config file: the shipped scenes model.

    Where neither file nor `opts` name ``MODEL.WEIGHTS``, the config of a shipped model gets its
    weights. FileNotFoundError, ConfigError, ValueError: what is missing, or does not fit.
    """
    config_file = config_file or model_zoo.get_config_file(DEFAULT_CONFIG)
    cfg = load_config(config_file, [*opts, "INPUT.LDMSEG.ANNOTATIONS_AT_TEST", "False"])
    if cfg.MODEL.META_ARCHITECTURE in WITHOUT_SEGMENTS:
        raise ValueError(
            f"{config_file}: the page needs a diffusion model (MODEL.META_ARCHITECTURE LDMSeg), "
            f"not {cfg.MODEL.META_ARCHITECTURE}"
        )
    weights, path = cfg.MODEL.WEIGHTS, os.path.realpath(resolve_config_file(config_file))
    for card in map(model_zoo.get_card, model_zoo.list_models()):
        if not weights and os.path.realpath(model_zoo.get_config_file(card["config"])) == path:
            weights = card["weights"]
    model = build_model(cfg).eval()
    LDMSegCheckpointer(model).load(weights)
    loaded = os.path.basename(weights) if weights else "random weights: set MODEL.WEIGHTS"
    return Predictor(
        model=model,
        mapper=build_dataset_mapper(cfg, is_train=False),
        categories=_read_categories(cfg),
        with_classes=predicts_classes(cfg),
        title=f"{Path(config_file).stem} ({loaded}, {cfg.MODEL.DEVICE})",
        num_steps=cfg.MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS,
        seed=max(0, cfg.SEED),
    )


def _read_categories(cfg: CfgNode) -> list[Category]:
    """Classes of the first data set that the config tests on; none where there is none."""
    metadata = MetadataCatalog.get((*cfg.DATASETS.TEST, "none")[0])
    things = metadata.get("thing_dataset_id_to_contiguous_id", {}).values()
    own_ids = metadata.get("stuff_dataset_id_to_contiguous_id", {})
    id_of = {contiguous: own for own, contiguous in own_ids.items()}
    names = metadata.get("stuff_classes") or []
    return [Category(id_of.get(i, i + 1), n, i in things) for i, n in enumerate(names)]
