"""Small maps of segments, and what of a map does not depend on the ids' names."""

import numpy as np
import torch
from torch import Tensor


def partition(ids) -> set[frozenset[int]]:
    """The segments of a map as sets of pixels, whatever their ids are."""
    flat = np.asarray(ids).ravel()
    return {frozenset(np.flatnonzero(flat == i).tolist()) for i in set(flat.tolist()) - {0}}


def segments_of(ids: Tensor, score: float = 0.5, **more) -> list[dict]:
    """segments_info of a map, sorted by id."""
    labels, areas = torch.unique(ids, return_counts=True)
    pairs = zip(labels.tolist(), areas.tolist())
    return [{"id": i, "score": score, "area": a, **more} for i, a in pairs if i]


def blocks(seed: int, names=(0, 2, 3, 9), size=(4, 5), scale=(3, 2)) -> Tensor:
    """An int32 map of blocks, so that regions have more than one pixel."""
    values = np.random.default_rng(seed).choice(names, size)
    return torch.from_numpy(np.kron(values, np.ones(scale)).astype(np.int32))


def scattered(seed: int, count: int, size=(12, 16)) -> Tensor:
    """An int64 map in which each of the ids 1..count occurs, and void may."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, count + 1, size)
    ids.flat[rng.permutation(ids.size)[:count]] = np.arange(1, count + 1)
    return torch.from_numpy(ids)
