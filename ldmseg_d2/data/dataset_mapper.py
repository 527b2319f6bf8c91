"""Dataset mappers: from a data set's dict to a model's input dict.

The mapper resizes, crops and flips; it never pads. The model pads a batch to a common square.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.utils.registry import Registry

from .annotations import (
    index_segments,
    join_bytes,
    keep_segments,
    read_gray_png,
    read_id_png,
    read_photo,
    split_bytes,
)
from .augmentations import build_augmentations

logger = logging.getLogger(__name__)

IGNORE_LABEL = 255

DATASET_MAPPER_REGISTRY = Registry("DATASET_MAPPER")
DATASET_MAPPER_REGISTRY.__doc__ = """Mappers that `cfg.INPUT.DATASET_MAPPER_NAME` may name: called
with `(cfg, is_train=bool)`, they give a callable from a data set's dict to a model's input dict."""


def build_dataset_mapper(cfg: CfgNode, is_train: bool) -> Any:
    """Builds the mapper of `cfg.INPUT.DATASET_MAPPER_NAME`; ValueError lists the known ones."""
    name = cfg.INPUT.DATASET_MAPPER_NAME
    if name not in DATASET_MAPPER_REGISTRY:
        known = sorted(key for key, _ in DATASET_MAPPER_REGISTRY)
        raise ValueError(
            f"cfg.INPUT.DATASET_MAPPER_NAME is {name!r}; known mappers are {known}. A mapper of "
            "your own needs @DATASET_MAPPER_REGISTRY.register() and its module imported"
        )
    return DATASET_MAPPER_REGISTRY.get(name)(cfg, is_train=is_train)


@DATASET_MAPPER_REGISTRY.register()
class PanopticDatasetMapper:
    """Maps a data set's dict to the input dict of LDMSeg's meta-architectures.

    The dataset dict holds `file_name`; `height` and `width` (else taken from the photo); and, for
    annotations, `pan_seg_file_name` with `segments_info` (without the list every id above 0 is a
    thing of category 0), `sem_seg_file_name` (contiguous classes, 255 ignored), or both; optionally
    `depth_file_name` with `depth_scale`, the PNG's value per metre. Further keys (`image_id`,
    `seed`, `known_ids`, ...) are handed on as they are.
    """

    @configurable
    def __init__(
        self,
        *,
        augmentations: Sequence[T.Augmentation],
        image_format: str = "RGB",
        with_annotations: bool,
        min_segment_area: int = 0,
    ):
        """Segments below `min_segment_area` pixels after the augmentations become void."""
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.with_annotations = with_annotations
        self.min_segment_area = min_segment_area
        logger.info("Augmentations: %s", self.augmentations)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool) -> dict[str, Any]:
        options = cfg.INPUT.LDMSEG
        return {
            "augmentations": build_augmentations(
                image_size=options.IMAGE_SIZE,
                resize=options.RESIZE,
                interpolation=options.INTERPOLATION,
                jitter_scale=options.JITTER_SCALE,
                random_flip=cfg.INPUT.RANDOM_FLIP,
                is_train=is_train,
                train_size=options.TRAIN_SIZE,
            ),
            "image_format": cfg.INPUT.FORMAT,
            "with_annotations": is_train or options.ANNOTATIONS_AT_TEST,
            # At test the ground truth stays whole: metrics decide what they leave out.
            "min_segment_area": options.MIN_SEGMENT_AREA if is_train else 0,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Gives the other keys of `dataset_dict` (it is not changed), and:

        * `image`: uint8 (3, h, w), after the augmentations.
        * `height`, `width`: the photo's own size in pixels.

        With annotations, at the size of `image`:

        * `segment_ids`: int64 (h, w), 0 is void, 1..K without gaps. Void are crowds, segments
          below `min_segment_area`, and what the data set leaves unlabelled.
        * `segments_info`: K dicts with `id`, `category_id`, `isthing`, `area` (pixels).
        * `sem_seg`: int64 (h, w) contiguous classes, 255 ignored, where classes are known: from
          the semantic PNG, else from the segments. Crowds and small segments keep their class.
        * `depth`: float32 (h, w), metres, 0 invalid, where the data set has depth.

        FileNotFoundError names a missing file, ValueError one that is damaged, of another size, or
        whose ids are not those of `segments_info`.
        """
        # What belongs to the photo before the augmentations is left out.
        raw = ("segments_info", "annotations")
        record = {k: v for k, v in dataset_dict.items() if k not in raw}
        photo = read_photo(record["file_name"], self.image_format)
        detection_utils.check_image_size(record, photo)
        aug_input = T.AugInput(photo)
        transforms = self.augmentations(aug_input)
        # A copy: flipped and cropped views have strides that torch does not take.
        record["image"] = torch.from_numpy(np.array(aug_input.image.transpose(2, 0, 1), order="C"))
        if self.with_annotations:
            self._add_segments(record, dataset_dict, transforms)
            if "depth_file_name" in record:
                values = _read_gray(record, "depth_file_name", "depth PNG")
                # Nearest: a mean of a valid and an invalid (0) depth is no depth.
                values = _transform_labels(values, transforms)
                depth = (values / record["depth_scale"]).astype(np.float32)
                record["depth"] = torch.from_numpy(depth)
        return record

    def _add_segments(
        self, record: dict[str, Any], dataset_dict: dict[str, Any], transforms: T.TransformList
    ) -> None:
        """Adds `segment_ids`, `segments_info` and `sem_seg`, or `sem_seg` alone."""
        path = record.get("pan_seg_file_name")
        if path is not None:
            id_map = _check_size(read_id_png(path), record, path)
            labels, segments = index_segments(id_map, dataset_dict.get("segments_info"), path)
            labels = _transform_labels(labels, transforms)
            ids, record["segments_info"] = keep_segments(labels, segments, self.min_segment_area)
            record["segment_ids"] = torch.from_numpy(ids)
        # The PNG first: it also has the class of what no segment holds (ADE20K, CamVid).
        if "sem_seg_file_name" in record:
            classes = _read_gray(record, "sem_seg_file_name", "semantic PNG").astype(np.uint8)
            classes = transforms.apply_segmentation(classes).astype(np.int64)
            record["sem_seg"] = torch.from_numpy(classes)
        elif path is None:
            raise ValueError(
                f"the dataset dict of {record['file_name']} has neither pan_seg_file_name nor "
                "sem_seg_file_name: training, and cfg.INPUT.LDMSEG.ANNOTATIONS_AT_TEST, need one"
            )
        elif "segments_info" in dataset_dict:
            classes = [IGNORE_LABEL, *(int(s["category_id"]) for s in segments)]
            record["sem_seg"] = torch.from_numpy(np.array(classes, dtype=np.int64)[labels])


def _read_gray(record: dict[str, Any], key: str, what: str) -> np.ndarray:
    return _check_size(read_gray_png(record[key], what), record, record[key])


def _transform_labels(labels: np.ndarray, transforms: T.TransformList) -> np.ndarray:
    """Applies transforms to a uint8 or int32 map, by nearest and exactly."""
    pixels = labels if labels.dtype == np.uint8 else split_bytes(labels)
    pixels = transforms.apply_segmentation(pixels)
    return pixels if pixels.ndim == 2 else join_bytes(pixels)


def _check_size(annotation: np.ndarray, record: dict[str, Any], path: str) -> np.ndarray:
    """The annotation; ValueError unless it has its photo's size."""
    h, w = annotation.shape[:2]
    if (h, w) != (record["height"], record["width"]):
        raise ValueError(
            f"{path} is {w}x{h} pixels, but its photo {record['file_name']} is "
            f"{record['width']}x{record['height']}: both must have one size; resize the "
            "annotation by nearest neighbour, or pair the right files"
        )
    return annotation
