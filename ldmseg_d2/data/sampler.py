"""The order of training samples, as a function of the seed and the place in the run.

Detectron2's TrainingSampler draws a new seed for each run and always starts at the beginning:
https://github.com/facebookresearch/detectron2/blob/a59f0563/detectron2/data/samplers/distributed_sampler.py
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import numpy as np
import torch
from detectron2.utils import comm


class ResumableTrainingSampler:
    """An infinite stream of `(position, index)`.

    Position p counts the samples of the whole run over all processes. Its index is entry
    `p % size` of the permutation of epoch `p // size`, and that permutation depends on `seed` and
    the epoch alone. With B samples an iteration, the i-th global batch is therefore positions
    i B .. (i + 1) B - 1 whatever the number of processes W: rank r takes every W-th of them,
    `start + r`, `start + r + W`, ..., as Detectron2's samplers do.
    """

    def __init__(self, size: int, *, seed: int, start: int = 0):
        """`seed` is the same on every rank; `start`: first position, at no cost however large."""
        self.size = size
        self.seed = seed
        self.start = start
        # Asked here and not in `shard`, which may run in a loader's worker process.
        self.rank, self.world_size = comm.get_rank(), comm.get_world_size()
        self._epoch = -1
        self._permutation = torch.empty(0)

    def index(self, position: int) -> int:
        """The sample at a position of the whole run."""
        epoch, offset = divmod(position, self.size)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(_mix(self.seed, epoch))
            self._permutation = torch.randperm(self.size, generator=generator)
            self._epoch = epoch
        return int(self._permutation[offset])

    def shard(self, batch_size: int, worker_id: int, num_workers: int) -> Iterator[tuple[int, int]]:
        """One worker's part of this rank's stream: batches worker_id, worker_id + num_workers, ...

        A DataLoader takes batches of `batch_size` from its workers in turn, so that together they
        give the order of a single process. Detectron2's ToIterableDataset does too, but steps
        through batch_size copies of the whole stream in every worker.
        """
        for batch in count(worker_id, num_workers):
            for offset in range(batch * batch_size, (batch + 1) * batch_size):
                position = self.start + self.rank + offset * self.world_size
                yield position, self.index(position)


@contextmanager
def seeded_rng(seed: int, position: int) -> Iterator[None]:
    """Seeds the global generators of `random`, numpy and torch (CPU), and restores them after.

    What is drawn inside depends on (seed, position) alone: not on workers, processes or resuming.
    Detectron2's augmentations draw from numpy's global generator, hence the global seeding; the
    restoring keeps the model's own draws apart where samples are mapped in the main process.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    mixed = _mix(seed, position)
    random.seed(mixed)
    np.random.seed([mixed & 0xFFFFFFFF, mixed >> 32])
    # Not torch.manual_seed, which would reset the generators of the accelerators, too.
    torch.default_generator.manual_seed(mixed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def sample_seed(seed: int, position: int) -> int:
    """The seed (63 bits) of what a model draws for the sample at a position: its noise, its ids.

    Another one than that of the sample's augmentation, see `seeded_rng`.
    """
    return _mix(seed, position, 1)


def _mix(*numbers: int) -> int:
    """Hashes numbers to one of 63 bits; numpy promises that SeedSequence never changes."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
