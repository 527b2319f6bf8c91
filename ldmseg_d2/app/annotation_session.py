"""One photo and its segments, as an annotator changes them: a state machine without a browser."""

import pickle
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

SELECT, KEEP, ERASE, PAINT = TOOLS = ("select", "keep", "erase", "paint")
# What Complete draws.
FILL_EMPTY = "the empty areas"
REDRAW_UNKEPT = "all that is not kept"
NO_CLASS = -1
MAX_UNDO = 100
_MAX_POINTS = 20_000  # of a stroke
_FAR = 2**14  # cv2 overflows far outside of the picture
# It cuts lines at the picture's border and rounds where, which moves all that is left of them.
_MARGIN = 64
_Packed = tuple[bytes, np.ndarray | None]  # a state to go back to; its uncertainty


class SessionError(ValueError):
    """A step that is not possible now; the message is for the user."""


@dataclass(frozen=True)
class Category:
    """A class that a segment may have."""

    id: int  # the data set's own, of saved files
    name: str
    isthing: bool = True


class Session:
    """A photo (H, W, 3) uint8 RGB, the id of each pixel, which are kept, and what was before.

    What an annotator does returns a sentence about it, can be undone, and raises
    :class:`SessionError`, changing nothing, where it can do nothing.
    """

    def __init__(self, photo: np.ndarray, name: str, categories: Sequence[Category] = ()):
        self.photo, self.name = photo, name
        self.categories = list(categories)  # their places in it are the contiguous classes
        self.ids = np.zeros(photo.shape[:2], dtype=np.int32)  # 0 is empty
        self.kept = np.zeros(photo.shape[:2], dtype=bool)  # never where a pixel is empty
        self.classes: dict[int, int] = {}  # of those segments that have one
        self.uncertainty: np.ndarray | None = None  # (H, W) in [0, 1], of the last result
        self.selected: int | None = None  # id of the segment that the brush extends
        self._past: list[_Packed] = []
        self._future: list[_Packed] = []

    def segment_ids(self) -> list[int]:
        """Ids present, in increasing order."""
        return [i for i in np.unique(self.ids).tolist() if i]

    def count(self) -> str:
        """Such as "3 segments"."""
        return f"{(number := len(self.segment_ids()))} segment{'s' * (number != 1)}"

    def segment_name(self, segment: int) -> str:
        """Its class and id, such as "car 3", or "segment 3"."""
        label = self.classes.get(segment)
        return f"{'segment' if label is None else self.categories[label].name} {segment}"

    def given(self, redraw: str) -> dict[str, Any]:
        """What a model is given: all segments for FILL_EMPTY, kept pixels for REDRAW_UNKEPT.

        ``known_ids`` (H, W) int64, 0 where the model draws; ``known_classes``: of ids with a class.
        """
        ids = np.where(self.kept, self.ids, 0) if redraw == REDRAW_UNKEPT else self.ids
        present = set(np.unique(ids).tolist())
        if 0 not in present:
            raise SessionError(
                "Nothing is left to complete: erase what is wrong first, or keep what is right and "
                f"let Complete draw {REDRAW_UNKEPT}."
            )
        if present == {0}:
            raise SessionError(
                f"Nothing is marked as kept, so that {redraw!r} is all: mark segments with Keep, "
                "or press Segment."
            )
        classes = {i: c for i, c in self.classes.items() if i in present}
        return {"known_ids": ids.astype(np.int64), "known_classes": classes}

    def stroke(
        self, points: Sequence[Sequence[float]], drag: bool, tool: str, brush: float, category: int
    ) -> str:
        """A click (whole segments) or, with `drag`, a stroke of the brush (pixels) on the photo.

        `points` are (x, y) in pixels, `brush` is in percent of the photo's longer side.
        """
        if not 0 < len(points) <= _MAX_POINTS:
            raise SessionError("That stroke is too long; draw it in parts.")
        if tool == SELECT or (tool != PAINT and not drag):
            (x, y), (height, width) = points[0], self.ids.shape
            if not (0 <= x < width and 0 <= y < height):
                raise SessionError("That is outside of the photo.")
            return self.click(int(self.ids[int(y), int(x)]), tool)
        mask = stroke_mask(self.ids.shape, points, max(self.ids.shape) * brush / 100)
        if tool == PAINT:
            return self.paint(mask, category)
        return self.keep(mask) if tool == KEEP else self.erase(mask)

    def click(self, segment: int, tool: str = SELECT) -> str:
        """Select, keep or erase a whole segment; select and keep: or no longer."""
        mask, name = self.ids == segment, self.segment_name(segment)
        if tool == ERASE:
            return self.erase(mask, name)
        if segment == 0 or not mask.any():
            raise SessionError("There is no segment here.")
        if tool == SELECT:
            self.selected = None if self.selected == segment else segment
            return f"Selected {name}." if self.selected else f"{name} is no longer selected."
        keep = not self.kept[mask].all()
        self._remember()
        self.kept[mask] = keep
        return f"{name} is {'kept' if keep else 'no longer kept'}."

    def keep(self, mask: np.ndarray) -> str:
        """Keep those pixels of a mask (H, W) that belong to segments."""
        mask = self._covered(mask)
        self.kept |= mask
        return f"Kept {mask.sum()} pixels."

    def erase(self, mask: np.ndarray, name: str = "") -> str:
        """Empty the pixels of a mask (H, W), kept or not; `name`: of the segment that it is."""
        mask = self._covered(mask)
        self.ids[mask] = 0
        self.kept[mask] = False
        self._tidy()
        return f"Erased {name or f'{mask.sum()} pixels'}. Complete fills what is empty."

    def paint(self, mask: np.ndarray, category: int = NO_CLASS) -> str:
        """Make a mask (H, W) the selected segment's, else a new one's of that class; it is kept."""
        if not mask.any():
            raise SessionError("That is outside of the photo.")
        self._remember()
        if self.selected is None:
            taken = self.segment_ids()
            self.selected = next(i for i in range(1, len(taken) + 2) if i not in taken)
            self._name(self.selected, category)
        self.ids[mask] = self.selected
        self.kept[mask] = True
        self._tidy()
        return f"Painted {self.segment_name(self.selected)}."

    def begin_segment(self) -> str:
        """Let the brush begin a new segment."""
        self.selected = None
        return "The next stroke of Paint begins a new segment."

    def set_class(self, category: int) -> str:
        """Give the selected segment a contiguous class, or NO_CLASS; else it is for the next."""
        if self.selected is None:
            return "The next painted segment gets this class."
        if self.classes.get(self.selected, NO_CLASS) != category:
            self._remember()
            self._name(self.selected, category)
        return f"It is {self.segment_name(self.selected)} now."

    def undo(self) -> str:
        return self._move(self._past, self._future, "There is nothing to undo.", "Undone.")

    def redo(self) -> str:
        return self._move(self._future, self._past, "There is nothing to redo.", "Done again.")

    def take_result(
        self,
        ids: np.ndarray,
        classes: dict[int, int],
        uncertainty: np.ndarray | None = None,
        *,
        kept: np.ndarray | None = None,
    ) -> None:
        """Replace the segments by a model's result, or by what a file holds.

        `kept` are the new marks, (H, W) bool; None: segments keep their marks and classes.
        """
        self._remember()
        classes = {i: c for i, c in classes.items() if 0 <= c < len(self.categories)}
        self.classes = {**classes, **self.classes} if kept is None else classes
        self.ids = ids.astype(np.int32)
        self.kept = (self.kept if kept is None else kept) & (self.ids != 0)
        self.uncertainty = uncertainty
        self._tidy()

    def _move(self, source: list[_Packed], to: list[_Packed], nothing: str, done: str) -> str:
        if not source:
            raise SessionError(nothing)
        to.append(self._pack())
        packed, self.uncertainty = source.pop()
        self.__dict__.update(pickle.loads(zlib.decompress(packed)))
        return done

    def _covered(self, mask: np.ndarray) -> np.ndarray:
        """The part of a mask that is not empty, which changes now."""
        mask = mask & (self.ids != 0)
        if not mask.any():
            raise SessionError("There is no segment here.")
        self._remember()
        return mask

    def _remember(self) -> None:
        """Keep the state before a change; what was undone is lost."""
        self._past.append(self._pack())
        del self._past[:-MAX_UNDO]
        self._future.clear()

    def _pack(self) -> _Packed:
        # A hundred maps of a large photo would be gigabytes; they are long runs of the same value.
        state = {name: getattr(self, name) for name in ("ids", "kept", "classes", "selected")}
        return zlib.compress(pickle.dumps(state), 1), self.uncertainty

    def _name(self, segment: int, category: int) -> None:
        self.classes.pop(segment, None)
        if category != NO_CLASS:
            self.classes[segment] = category

    def _tidy(self) -> None:
        """Forget what belongs to segments that are gone."""
        present = self.segment_ids()
        self.classes = {i: c for i, c in self.classes.items() if i in present}
        if self.selected not in present:
            self.selected = None


def stroke_mask(
    shape: tuple[int, int], points: Sequence[Sequence[float]], diameter: float
) -> np.ndarray:
    """(H, W) bool: pixels under a stroke of a round brush; one point (x, y) is a disc."""
    corners = (
        np.floor(np.asarray(points, dtype=np.float64)).clip(-_FAR, _FAR).astype(np.int32) + _MARGIN
    )
    mask = np.zeros([side + 2 * _MARGIN for side in shape], dtype=np.uint8)
    cv2.polylines(mask, [corners], False, 1, thickness=max(1, round(diameter)))
    for point in corners.tolist():
        cv2.circle(mask, point, int(diameter / 2), 1, thickness=-1)
    return mask[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN].astype(bool)
