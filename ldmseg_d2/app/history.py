"""What a session remembers: snapshots to go back to, and forth again."""

import zlib
from dataclasses import dataclass, field

import numpy as np

MAX_UNDO = 100


@dataclass
class Snapshot:
    """The part of a session that steps change; see :class:`Session` for the fields."""

    ids: np.ndarray
    given: np.ndarray
    classes: dict[int, int]
    uncertainty: np.ndarray | None = None
    selected: int | None = None


@dataclass
class _Packed:
    ids: bytes
    given: bytes
    shape: tuple[int, int]
    classes: dict[int, int]
    uncertainty: np.ndarray | None
    selected: int | None


@dataclass
class History:
    """Two stacks of snapshots, of at most :data:`MAX_UNDO` steps."""

    _past: list[_Packed] = field(default_factory=list)
    _future: list[_Packed] = field(default_factory=list)

    @property
    def depth(self) -> tuple[int, int]:
        """How many steps can be undone, and done again."""
        return len(self._past), len(self._future)

    def remember(self, present: Snapshot) -> None:
        """Keep the state before a change; what was undone is lost."""
        self._past.append(_pack(present))
        del self._past[:-MAX_UNDO]
        self._future.clear()

    def back(self, present: Snapshot) -> Snapshot | None:
        """The state before the last change, or None; `present` can be had again by `forth`."""
        return _move(self._past, self._future, present)

    def forth(self, present: Snapshot) -> Snapshot | None:
        """The state before the last `back`, or None."""
        return _move(self._future, self._past, present)


def _move(source: list[_Packed], target: list[_Packed], present: Snapshot) -> Snapshot | None:
    if not source:
        return None
    target.append(_pack(present))
    packed = source.pop()
    ids = np.frombuffer(zlib.decompress(packed.ids), np.int32).reshape(packed.shape)
    given = np.frombuffer(zlib.decompress(packed.given), bool).reshape(packed.shape)
    # Copies, since arrays on a buffer of bytes cannot be written to.
    return Snapshot(ids.copy(), given.copy(), packed.classes, packed.uncertainty, packed.selected)


def _pack(state: Snapshot) -> _Packed:
    # A hundred maps of a large photo would be gigabytes; they are long runs of the same value.
    ids, given = (zlib.compress(array.tobytes(), 1) for array in (state.ids, state.given))
    shape = state.ids.shape
    return _Packed(ids, given, shape, dict(state.classes), state.uncertainty, state.selected)
