"""Data loaders: reproducible and resumable for training, Detectron2's own for test."""

import logging
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, build_batch_data_loader, build_detection_test_loader
from detectron2.utils import comm
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from .dataset_dicts import dataset_dicts_with_depth
from .dataset_mapper import build_dataset_mapper
from .sampler import ResumableTrainingSampler, sample_seed, seeded_rng

logger = logging.getLogger(__name__)


class PackedBatch(list):
    """A list of dicts that a loader's worker sends as one block of memory; it arrives as a list.

    PyTorch moves every tensor through an open file of its own: slow for small pictures, and a batch
    of 128 needs more than the 1024 files that a process usually may open.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        arrays = [
            {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in record.items()}
            for record in self
        ]
        block = np.frombuffer(bytearray(pickle.dumps(arrays, protocol=5)), dtype=np.uint8)
        return _unpack, (torch.from_numpy(block),)


def _unpack(block: torch.Tensor) -> list[dict[str, Any]]:
    return [
        {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in record.items()}
        for record in pickle.loads(block.numpy())
    ]


class TrainingStream(IterableDataset):
    """Mapped samples in a sampler's order, shared out among a DataLoader's workers by batches.

    A sample's augmentation depends on (seed, position) alone, see `seeded_rng`; so does the number
    under the key `sample_seed`, from which a model draws what is random about the sample.
    """

    def __init__(
        self,
        dataset_dicts: list[dict[str, Any]],
        *,
        mapper: Callable[[dict[str, Any]], dict[str, Any]],
        sampler: ResumableTrainingSampler,
        batch_size: int,  # of this process
    ):
        # Serialized: forked workers then share the memory of a long list.
        self.dataset = DatasetFromList(dataset_dicts, copy=False)
        self.mapper = mapper
        self.sampler = sampler
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        worker_id, num_workers = (0, 1) if info is None else (info.id, info.num_workers)
        if info is not None:
            # One thread a worker: the workers themselves are the parallelism.
            cv2.setNumThreads(0)
            torch.set_num_threads(1)
        for position, index in self.sampler.shard(self.batch_size, worker_id, num_workers):
            # Mapped before it is yielded: the caller must not run with this sample's generators.
            with seeded_rng(self.sampler.seed, position):
                sample = self.mapper(self.dataset[index])
            sample["sample_seed"] = sample_seed(self.sampler.seed, position)
            yield sample


def build_train_loader(cfg: CfgNode, *, start_iter: int = 0) -> DataLoader:
    """Builds the infinite training loader, of lists of IMS_PER_BATCH / world_size dicts.

    Batches depend on cfg.SEED and the iteration alone: they are the same for any number of workers,
    and over all processes together for any number of processes; with `start_iter=k` the first batch
    is the k-th of an uninterrupted run. Dicts are the mapper's, with `sample_seed`, see
    `TrainingStream`. ValueError if SOLVER.IMS_PER_BATCH is no positive multiple of the number of
    processes times SOLVER.ACCUMULATION_STEPS.
    """
    total, world_size = cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size()
    steps = cfg.SOLVER.ACCUMULATION_STEPS
    if steps < 1 or total <= 0 or total % (world_size * steps):
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {total}; it counts all processes and micro-batches of an "
            f"iteration together and must be a positive multiple of {world_size} process(es) x "
            f"SOLVER.ACCUMULATION_STEPS {steps}"
        )
    seed = cfg.SEED
    if seed < 0:
        seed = comm.shared_random_seed()
        logger.warning("SEED is %d: the order is random, and --resume will not repeat it", cfg.SEED)
    dicts = dataset_dicts_with_depth(cfg, cfg.DATASETS.TRAIN)
    stream = TrainingStream(
        dicts,
        mapper=build_dataset_mapper(cfg, is_train=True),
        sampler=ResumableTrainingSampler(len(dicts), seed=seed, start=start_iter * total),
        batch_size=total // world_size,
    )
    return build_batch_data_loader(
        stream,
        None,
        total,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=PackedBatch,
        seed=seed,
    )


def build_test_loader(cfg: CfgNode, dataset_name: str) -> DataLoader:
    """Builds the loader of one test set: every picture once, in order, shared out among processes.

    It gives lists of at most TEST.IMS_PER_BATCH dicts, see the mapper; TEST.MAX_IMAGES above 0 ends
    it early, and it has DATALOADER.NUM_WORKERS workers.
    """
    dicts = dataset_dicts_with_depth(cfg, dataset_name)
    if cfg.TEST.MAX_IMAGES > 0:
        dicts = dicts[: cfg.TEST.MAX_IMAGES]
    loader = build_detection_test_loader(
        dicts,
        mapper=build_dataset_mapper(cfg, is_train=False),
        batch_size=cfg.TEST.IMS_PER_BATCH,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=PackedBatch,
    )
    # Without one of its own, a loader draws its workers' seed from the global generator, and an
    # evaluation in between would change the rest of a training.
    loader.generator = torch.Generator()
    return loader
