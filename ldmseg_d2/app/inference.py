"""The model behind the page: loaded once, called by one function, one call at a time."""

import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
from ..engine import load_config
from ..engine.checkpointer import LDMSegCheckpointer
from ..engine.config_reader import resolve_config_file
from ..evaluation import WITHOUT_SEGMENTS, predicts_classes
from .session import Category

DEFAULT_CONFIG = "scenes/ldmseg_multitask_scenes64.yaml"


@dataclass
class Predictor:
    """A model and what the page has to know of it.

    Attributes:
        model: the META_ARCH, in eval mode.
        mapper: from a data set's dict to the model's input dict.
        categories: classes of its data set, in the order of the contiguous classes.
        with_classes: whether its segments carry a predicted class.
        title: for the page: config, and weights.
        num_steps: the config's number of sampling steps.
        seed: the config's.
        lock: held during a call, which sets the number of steps.
    """

    model: nn.Module
    mapper: Callable[[dict[str, Any]], dict[str, Any]]
    categories: list[Category]
    with_classes: bool
    title: str
    num_steps: int
    seed: int
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class Completion:
    """What the model made of a photo.

    Attributes:
        ids: (H, W) int32, 0 is void; given segments under their ids, new ones under others.
        classes: predicted contiguous class of each segment; empty without classes.
        uncertainty: (H, W) float32 in [0, 1], or None where the model gave none.
    """

    ids: np.ndarray
    classes: dict[int, int]
    uncertainty: np.ndarray | None


def load_predictor(config_file: str = "", opts: Sequence[str] = ()) -> Predictor:
    """Build a model and load its weights.

    Args:
        config_file: see :func:`load_config`; empty: the shipped scenes model.
        opts: config keys and values. Where they, and the file, name no ``MODEL.WEIGHTS``, a config
            that belongs to a shipped model gets the shipped weights.

    Raises:
        FileNotFoundError, ConfigError, ValueError: a file or key that is missing or does not fit,
            or a config of a model that segments no photo.
    """
    config_file = config_file or model_zoo.get_config_file(DEFAULT_CONFIG)
    cfg = load_config(config_file, [*opts, "INPUT.LDMSEG.ANNOTATIONS_AT_TEST", "False"])
    if cfg.MODEL.META_ARCHITECTURE in WITHOUT_SEGMENTS:
        raise ValueError(
            f"{config_file}: the page needs a diffusion model (MODEL.META_ARCHITECTURE LDMSeg), "
            f"not {cfg.MODEL.META_ARCHITECTURE}, which makes no segments of a photo"
        )
    weights = cfg.MODEL.WEIGHTS or _shipped_weights(config_file)
    model = build_model(cfg).eval()
    LDMSegCheckpointer(model).load(weights)
    config_name = os.path.splitext(os.path.basename(config_file))[0]
    loaded = os.path.basename(weights) if weights else "random weights: set MODEL.WEIGHTS"
    return Predictor(
        model=model,
        mapper=build_dataset_mapper(cfg, is_train=False),
        categories=_read_categories(cfg),
        with_classes=predicts_classes(cfg),
        title=f"{config_name} ({loaded}, {cfg.MODEL.DEVICE})",
        num_steps=cfg.MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS,
        seed=max(0, cfg.SEED),
    )


def _shipped_weights(config_file: str) -> str:
    path = resolve_config_file(config_file)
    for name in model_zoo.list_models():
        card = model_zoo.get_card(name)
        if os.path.realpath(path) == os.path.realpath(model_zoo.get_config_file(card["config"])):
            return card["weights"]
    return ""


def _read_categories(cfg: CfgNode) -> list[Category]:
    """Classes of the first data set that the config tests on; none where it is not registered."""
    for name in cfg.DATASETS.TEST:
        metadata = MetadataCatalog.get(name)
        names = metadata.get("stuff_classes") or []
        things = set(metadata.get("thing_dataset_id_to_contiguous_id", {}).values())
        own_ids = metadata.get("stuff_dataset_id_to_contiguous_id", {})
        id_of = {contiguous: own for own, contiguous in own_ids.items()}
        return [Category(id_of.get(i, i + 1), n, i in things) for i, n in enumerate(names)]
    return []


def complete(
    predictor: Predictor,
    photo: np.ndarray,
    *,
    known_ids: np.ndarray | None = None,
    known_mask: np.ndarray | None = None,
    known_classes: dict[int, int] | None = None,
    steps: int,
    seed: int,
    num_samples: int = 1,
) -> Completion:
    """Segment a photo, or complete the segments that are given: the page's only call of the model.

    Args:
        predictor: of :func:`load_predictor`.
        photo: (H, W, 3) uint8 RGB.
        known_ids: (H, W) integers, 0 where nothing is given; None: from scratch.
        known_mask: (H, W) bool, the pixels that are given; default: ``known_ids != 0``.
        known_classes: contiguous class of given ids; only passed to models that know classes.
        steps: of the sampler, 1 or more.
        seed: of the noise; one seed, one result.
        num_samples: masks to draw; the result is their consensus.

    Raises:
        ValueError: what the model does not take; its message says why.
    """
    record: dict[str, Any] = {"image_id": 0, "seed": int(seed)}
    given = np.zeros(1, dtype=np.int64)
    if known_ids is not None and (known_mask is None or known_mask.any()):
        # Consecutive, so that any number of bits holds them: saved files may have large ids.
        given = np.unique(np.append(known_ids, 0))
        mask = known_ids != 0 if known_mask is None else known_mask
        record["known_ids"] = torch.from_numpy(np.searchsorted(given, known_ids).astype(np.int64))
        record["known_mask"] = torch.from_numpy(mask.astype(bool))
        if predictor.with_classes and known_classes:
            new_name = {old: new for new, old in enumerate(given.tolist())}
            record["known_classes"] = {new_name[i]: c for i, c in known_classes.items()}
    if num_samples > 1:
        record["num_samples"] = int(num_samples)
    with tempfile.TemporaryDirectory(prefix="ldmseg_app_") as folder:
        # Through a file, so that any registered mapper treats it as it treats data sets.
        record["file_name"] = os.path.join(folder, "photo.png")
        Image.fromarray(photo).save(record["file_name"], compress_level=1)
        inputs = predictor.mapper(record)
    with predictor.lock, torch.no_grad():
        before = predictor.model.num_inference_steps
        predictor.model.num_inference_steps = int(steps)
        try:
            output = predictor.model([inputs])[0]
        finally:
            predictor.model.num_inference_steps = before
    return _read_output(output, given, predictor.with_classes)


def _read_output(output: dict[str, Any], given: np.ndarray, with_classes: bool) -> Completion:
    """Give the model's segments the page's ids: given ones theirs, new ones the smallest free."""
    panoptic_seg, segments_info = output["panoptic_seg"]
    result = panoptic_seg.cpu().numpy().astype(np.int64)
    names = {new: int(old) for new, old in enumerate(given.tolist())}
    free, taken = 1, set(names.values())
    for label in np.unique(result).tolist():
        if label not in names:
            while free in taken:
                free += 1
            names[label] = free
            taken.add(free)
    labels, inverse = np.unique(result, return_inverse=True)
    ids = np.array([names[i] for i in labels.tolist()], np.int32)[inverse.reshape(result.shape)]
    classes = {}
    if with_classes:
        classes = {names[s["id"]]: int(s["category_id"]) for s in segments_info if s["id"] in names}
    uncertainty = output.get("uncertainty")
    if uncertainty is not None:
        uncertainty = uncertainty.float().cpu().numpy()
    return Completion(ids, classes, uncertainty)
