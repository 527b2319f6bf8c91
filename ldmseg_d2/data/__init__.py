"""Data: registered data sets, the dataset mapper and the loaders.

Importing this package registers its data sets under DETECTRON2_DATASETS.
"""

from .build import build_test_loader, build_train_loader, load_dataset_dicts
from .dataset_mapper import DATASET_MAPPER_REGISTRY, PanopticDatasetMapper, build_dataset_mapper
from .datasets import datasets_root, register_all
from .sampler import ResumableTrainingSampler

__all__ = [
    "DATASET_MAPPER_REGISTRY",
    "PanopticDatasetMapper",
    "ResumableTrainingSampler",
    "build_dataset_mapper",
    "build_test_loader",
    "build_train_loader",
    "load_dataset_dicts",
    "register_all",
]

register_all(datasets_root())
