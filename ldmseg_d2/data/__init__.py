"""Data: registered data sets, the dataset mapper and the loaders.

Importing this package registers its data sets under DETECTRON2_DATASETS.
"""

from .dataset_dicts import attach_depth, dataset_dicts_with_depth, load_dataset_dicts
from .dataset_mapper import DATASET_MAPPER_REGISTRY, PanopticDatasetMapper, build_dataset_mapper
from .datasets import datasets_root, register_all
from .loaders import build_test_loader, build_train_loader
from .sampler import ResumableTrainingSampler

__all__ = [
    "DATASET_MAPPER_REGISTRY",
    "PanopticDatasetMapper",
    "ResumableTrainingSampler",
    "attach_depth",
    "build_dataset_mapper",
    "build_test_loader",
    "build_train_loader",
    "dataset_dicts_with_depth",
    "load_dataset_dicts",
    "register_all",
]

register_all(datasets_root())
