"""One photo and its segments, as an annotator changes them: a state machine without a browser."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .history import History, Snapshot

# What `complete` takes as given.
FILL_EMPTY = "the empty areas"
REDRAW_UNKEPT = "all that is not kept"


class SessionError(ValueError):
    """A step that is not possible now; the message is for the user."""


@dataclass(frozen=True)
class Category:
    """A class that a segment may have.

    Attributes:
        id: the data set's own id, of saved files.
        name: shown to the annotator.
        isthing: countable, as opposed to stuff.
    """

    id: int
    name: str
    isthing: bool = True


@dataclass(frozen=True)
class Row:
    """One line of the list of segments: ``share`` of the photo, and how much is ``kept``."""

    id: int
    name: str
    area: int
    share: float
    kept: float


class Session:
    """A photo, the id of each pixel, which pixels are kept, and what was before.

    Every method that changes something can be undone, and raises :class:`SessionError` where it can
    do nothing.

    Attributes:
        photo: (H, W, 3) uint8 RGB.
        name: of the photo's file, without its suffix.
        categories: the classes there are; their places in the list are the contiguous classes.
        ids: (H, W) int32, 0 is empty.
        given: (H, W) bool: kept by the annotator; never where a pixel is empty.
        classes: contiguous class of those segments that have one.
        uncertainty: (H, W) float32 in [0, 1] of the last result that had one, or None.
        selected: id of the selected segment, which the brush extends, or None.
    """

    def __init__(self, photo: np.ndarray, name: str, categories: Sequence[Category] = ()):
        self.photo = photo
        self.name = name
        self.categories = list(categories)
        self.ids = np.zeros(photo.shape[:2], dtype=np.int32)
        self.given = np.zeros(photo.shape[:2], dtype=bool)
        self.classes: dict[int, int] = {}
        self.uncertainty: np.ndarray | None = None
        self.selected: int | None = None
        self.history = History()

    # ---------------------------------------------------------------------------------------------
    # Looking
    # ---------------------------------------------------------------------------------------------
    def segment_ids(self) -> list[int]:
        """Ids present, in increasing order."""
        return [i for i in np.unique(self.ids).tolist() if i]

    def segment_at(self, x: float, y: float) -> int:
        """Id of the segment at a point of the photo, in pixels.

        Raises:
            SessionError: outside of the photo, or on an empty pixel.
        """
        height, width = self.ids.shape
        if not (0 <= x < width and 0 <= y < height):
            raise SessionError("That is outside of the photo.")
        segment = int(self.ids[int(y), int(x)])
        if segment == 0:
            raise SessionError("There is no segment here.")
        return segment

    def segment_name(self, segment: int) -> str:
        """Its class and id, such as "car 3", or "segment 3"."""
        label = self.classes.get(segment)
        return f"{'segment' if label is None else self.categories[label].name} {segment}"

    def rows(self) -> list[Row]:
        """The segments, the largest first."""
        labels, inverse = np.unique(self.ids, return_inverse=True)
        inverse = inverse.reshape(-1)
        areas = np.bincount(inverse, minlength=len(labels))
        kept = np.bincount(inverse, weights=self.given.reshape(-1), minlength=len(labels))
        rows = [
            Row(i, self.segment_name(i), a, a / self.ids.size, k / a)
            for i, a, k in zip(labels.tolist(), areas.tolist(), kept.tolist())
            if i
        ]
        return sorted(rows, key=lambda row: (-row.area, row.id))

    def known(self, redraw: str = FILL_EMPTY) -> dict[str, Any]:
        """What a model is given of the present segments.

        Args:
            redraw: FILL_EMPTY: every segment stays, only empty pixels are drawn; or REDRAW_UNKEPT:
                only kept pixels stay.

        Returns:
            ``known_ids`` (H, W) int64, ``known_mask`` (H, W) bool, ``known_classes``: of the ids
            among them that have a class.

        Raises:
            SessionError: if nothing would be left to draw.
        """
        if redraw not in (FILL_EMPTY, REDRAW_UNKEPT):
            raise ValueError(f"redraw is {redraw!r}; allowed: {FILL_EMPTY!r}, {REDRAW_UNKEPT!r}")
        mask = self.given if redraw == REDRAW_UNKEPT else self.ids != 0
        if mask.all():
            raise SessionError(
                "All pixels are kept: there is nothing to complete. Erase what is wrong first."
                if redraw == REDRAW_UNKEPT
                else "No area is empty: there is nothing to complete. Erase what is wrong first, "
                f"or keep what is right and let Complete draw {REDRAW_UNKEPT}."
            )
        ids = np.where(mask, self.ids, 0).astype(np.int64)
        present = set(np.unique(ids).tolist())
        classes = {i: c for i, c in self.classes.items() if i in present}
        return {"known_ids": ids, "known_mask": mask.copy(), "known_classes": classes}

    # ---------------------------------------------------------------------------------------------
    # Editing
    # ---------------------------------------------------------------------------------------------
    def select(self, segment: int | None) -> None:
        """Select a segment for the brush to extend; None: the brush begins a new one."""
        if segment is not None and segment not in self.segment_ids():
            raise SessionError(f"There is no segment {segment} any more.")
        self.selected = segment

    def toggle_kept(self, segment: int) -> bool:
        """Keep a whole segment, or no longer; returns whether it is kept now."""
        mask = self._mask(segment)
        keep = not self.given[mask].all()
        self._remember()
        self.given[mask] = keep
        return keep

    def keep_pixels(self, mask: np.ndarray) -> int:
        """Keep those pixels of a mask (H, W) that belong to segments; returns their number."""
        mask = mask & (self.ids != 0)
        if not mask.any():
            raise SessionError("There is no segment to keep here.")
        self._remember()
        self.given |= mask
        return int(mask.sum())

    def erase_segment(self, segment: int) -> None:
        """Empty all pixels of a segment."""
        self.erase_pixels(self._mask(segment))

    def erase_pixels(self, mask: np.ndarray) -> int:
        """Empty the pixels of a mask (H, W), kept or not; returns how many were not empty."""
        mask = mask & (self.ids != 0)
        if not mask.any():
            raise SessionError("There is nothing to erase here.")
        self._remember()
        self.ids[mask] = 0
        self.given[mask] = False
        self._tidy()
        return int(mask.sum())

    def paint(self, mask: np.ndarray, category: int | None = None) -> int:
        """Mark the pixels of a mask (H, W) as the selected segment, or as a new one; they are kept.

        Args:
            mask: what the brush covers.
            category: contiguous class of a new segment, or None.

        Returns:
            The segment's id; it is selected afterwards.
        """
        if not mask.any():
            raise SessionError("That is outside of the photo.")
        segment, classes = self.selected, {}
        if segment is None:
            segment = self._free_id()
            classes = {} if category is None else {segment: self._check_category(category)}
        self._remember()
        self.classes |= classes
        self.ids[mask] = segment
        self.given[mask] = True
        self.selected = segment
        self._tidy()
        return segment

    def set_class(self, segment: int, category: int | None) -> None:
        """Give a segment a contiguous class, or take it away."""
        self._mask(segment)
        if self.classes.get(segment) == category:
            return
        classes = {} if category is None else {segment: self._check_category(category)}
        self._remember()
        self.classes = {i: c for i, c in self.classes.items() if i != segment} | classes

    def take_result(
        self,
        ids: np.ndarray,
        classes: dict[int, int],
        uncertainty: np.ndarray | None = None,
        *,
        fresh: bool = False,
    ) -> None:
        """Replace the segments by a model's result, as it is.

        Args:
            ids: (H, W) integers >= 0: given segments under their ids, new ones under others.
            classes: contiguous class of segments; those that have one already keep it.
            uncertainty: (H, W) in [0, 1], or None.
            fresh: drawn from scratch: nothing of the present segments stays, no class and no mark.
        """
        if ids.shape != self.ids.shape:
            raise ValueError(f"the model gave {ids.shape} pixels for a photo of {self.ids.shape}")
        # A model may know classes that the page has no name for.
        classes = {i: c for i, c in classes.items() if 0 <= c < len(self.categories)}
        self._remember()
        self.ids = ids.astype(np.int32)
        self.given = np.zeros_like(self.given) if fresh else self.given & (self.ids != 0)
        self.classes = classes if fresh else {**classes, **self.classes}
        self.uncertainty = uncertainty
        self._tidy()

    def replace(self, ids: np.ndarray, classes: dict[int, int], given: np.ndarray) -> None:
        """Take segments that were saved: (H, W) ids, class by id, (H, W) bool what is kept."""
        self.take_result(ids, classes, fresh=True)
        self.given = given & (self.ids != 0)

    # ---------------------------------------------------------------------------------------------
    # History
    # ---------------------------------------------------------------------------------------------
    def undo(self) -> None:
        """Go back by one step."""
        self._restore(self.history.back(self._snapshot()), "There is nothing to undo.")

    def redo(self) -> None:
        """Do again what was undone last."""
        self._restore(self.history.forth(self._snapshot()), "There is nothing to redo.")

    def _restore(self, snapshot: Snapshot | None, nothing: str) -> None:
        if snapshot is None:
            raise SessionError(nothing)
        self.ids, self.given, self.classes = snapshot.ids, snapshot.given, snapshot.classes
        self.uncertainty, self.selected = snapshot.uncertainty, snapshot.selected

    def _snapshot(self) -> Snapshot:
        return Snapshot(self.ids, self.given, self.classes, self.uncertainty, self.selected)

    def _remember(self) -> None:
        self.history.remember(self._snapshot())

    def _mask(self, segment: int) -> np.ndarray:
        mask = self.ids == segment
        if segment == 0 or not mask.any():
            raise SessionError(f"There is no segment {segment} any more.")
        return mask

    def _free_id(self) -> int:
        taken = set(self.segment_ids())
        return next(i for i in range(1, len(taken) + 2) if i not in taken)

    def _check_category(self, category: int) -> int:
        if not 0 <= category < len(self.categories):
            raise SessionError(f"There is no class number {category}.")
        return category

    def _tidy(self) -> None:
        """Forget what belongs to segments that are gone."""
        present = set(self.segment_ids())
        self.classes = {i: c for i, c in self.classes.items() if i in present}
        if self.selected not in present:
            self.selected = None
