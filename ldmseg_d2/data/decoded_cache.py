"""Decoded files kept in memory: later epochs do not read and decode them again."""

import logging
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

__all__ = ["DecodedCache"]

logger = logging.getLogger(__name__)


class DecodedCache:
    """Keeps what decoding gave, until its memory is full.

    What came first stays: pictures are drawn epoch by epoch, each once, so that one that has just
    been used is the last to be used again, and dropping the oldest would find nothing. A data set
    of twice the memory is found in half of the cases.

    A copy goes with the mapper into every process of a loader.
    """

    def __init__(self, max_bytes: int) -> None:
        """
        Args:
            max_bytes: of the arrays; 0 keeps nothing.

        Raises:
            ValueError: it is negative.
        """
        if max_bytes < 0:
            raise ValueError(f"max_bytes must be at least 0, got {max_bytes}")
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._kept: dict[Hashable, Any] = {}
        self._full = max_bytes == 0

    def __len__(self) -> int:
        """Files that are kept."""
        return len(self._kept)

    def __call__(self, key: Hashable, decode: Callable[[], Any]) -> Any:
        """What `decode` gives, or gave for this key before.

        Args:
            key: of the file and of what is read from it.
            decode: gives an array, or a tuple with arrays in it.

        Returns:
            The same, with arrays that cannot be written to if it is kept.
        """
        if key in self._kept:
            return self._kept[key]
        decoded = decode()
        if self._full:
            return decoded
        parts = decoded if isinstance(decoded, tuple) else (decoded,)
        arrays = [part for part in parts if isinstance(part, np.ndarray)]
        size = sum(array.nbytes for array in arrays)
        if self.num_bytes + size > self.max_bytes:
            self._full = True
            logger.info(
                "DATALOADER.CACHE_GB %g is full with %d decoded files: others are decoded anew in "
                "every epoch",
                self.max_bytes / 1e9,
                len(self),
            )
            return decoded
        for array in arrays:
            array.setflags(write=False)
        self.num_bytes += size
        self._kept[key] = decoded
        return decoded
