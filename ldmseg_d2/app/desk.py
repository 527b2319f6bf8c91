"""What the page's buttons and strokes do; every method says in a sentence what it did."""

import threading
import time
from collections.abc import Sequence

from ..data.datasets.scenes import generate_scene, split_seed
from .brush import stroke_mask
from .coco_files import load_session, safe_stem, save_session
from .inference import Predictor, complete
from .safe_image import Limits, decode_photo
from .session import FILL_EMPTY, REDRAW_UNKEPT, Session, SessionError

SELECT, KEEP, ERASE, PAINT = "select", "keep", "erase", "paint"
TOOLS = (SELECT, KEEP, ERASE, PAINT)
MAX_SAMPLES = 16
MAX_STEPS = 1000
_MAX_POINTS = 20_000


class Desk:
    """What one browser tab works on.

    All methods raise :class:`SessionError` or :class:`UploadError`, with a message for the user,
    where they can do nothing.

    Attributes:
        predictor: shared by all tabs.
        limits: of uploads.
        session: the photo that is open, or None.
        version: number of the picture that is shown, for the page.
        lock: to be held around a method: strokes arrive while the model runs.
    """

    def __init__(self, predictor: Predictor, limits: Limits | None = None):
        self.predictor = predictor
        self.limits = limits or Limits()
        self.session: Session | None = None
        self.lock = threading.Lock()
        self.version = 0
        self._num_examples = 0

    @property
    def opened(self) -> Session:
        """The session; raises SessionError where no photo is open."""
        if self.session is None:
            raise SessionError("Open a photo first.")
        return self.session

    # ---------------------------------------------------------------------------------------------
    # Files
    # ---------------------------------------------------------------------------------------------
    def open_photo(self, name: str, data: bytes) -> str:
        """Open a photo in place of the present one."""
        photo, note = decode_photo(data, name, self.limits)
        self.session = Session(photo, safe_stem(name), self.predictor.categories)
        return f"{name}: {photo.shape[1]} x {photo.shape[0]} pixels. {note}"

    def open_example(self) -> str:
        """Open the next generated scene, of those that no model is trained on."""
        index, self._num_examples = self._num_examples, self._num_examples + 1
        scene = generate_scene(seed=split_seed(0, "val"), index=index)
        self.session = Session(scene.image, f"scene_{index}", self.predictor.categories)
        return f"Generated scene {index}: {scene.image.shape[1]} x {scene.image.shape[0]} pixels."

    def load(self, files: dict[str, bytes]) -> str:
        """Load saved segments: bytes by file name, see :func:`load_session`."""
        self.session, note = load_session(
            files,
            categories=self.predictor.categories,
            current=self.session,
            limits=self.limits,
        )
        return f"Loaded {_count(self.session)} of {self.session.name}. {note}"

    def save(self) -> tuple[str, bytes, str]:
        """The zip's name and bytes, and the sentence."""
        session = self.opened
        content = save_session(session)
        name = f"{session.name}_panoptic.zip"
        return name, content, f"Saved {_count(session)} as {name}, in your downloads."

    # ---------------------------------------------------------------------------------------------
    # The pointer
    # ---------------------------------------------------------------------------------------------
    def stroke(
        self,
        points: Sequence[Sequence[float]],
        *,
        drag: bool,
        tool: str,
        brush: float,
        category: int | None = None,
    ) -> str:
        """A click (whole segments) or a stroke of the brush (pixels) on the photo.

        Args:
            points: (x, y) in pixels of the photo.
            drag: whether it was a stroke.
            tool: one of :data:`TOOLS`.
            brush: diameter in percent of the photo's longer side.
            category: contiguous class of a segment that is begun, or None.
        """
        session = self.opened
        if not 0 < len(points) <= _MAX_POINTS:
            raise SessionError("That stroke is too long; draw it in parts.")
        if tool == SELECT or (tool != PAINT and not drag):
            return self._click(session, session.segment_at(*points[0]), tool)
        diameter = max(session.ids.shape) * brush / 100
        mask = stroke_mask(session.ids.shape, points, diameter)
        if tool == KEEP:
            return f"Kept {session.keep_pixels(mask)} pixels."
        if tool == ERASE:
            return f"Erased {session.erase_pixels(mask)} pixels. Complete fills what is empty."
        return f"Painted {session.segment_name(session.paint(mask, category))}."

    def _click(self, session: Session, segment: int, tool: str) -> str:
        name = session.segment_name(segment)
        if tool == SELECT:
            session.select(None if session.selected == segment else segment)
            return f"Selected {name}." if session.selected else f"{name} is no longer selected."
        if tool == KEEP:
            return f"{name} is {'kept' if session.toggle_kept(segment) else 'no longer kept'}."
        session.erase_segment(segment)
        return f"Erased {name}. Complete fills what is empty."

    def pick(self, segment: int) -> str:
        """Select a segment of the list, or no longer."""
        return self._click(self.opened, segment, SELECT)

    def begin_segment(self) -> str:
        """Let the brush begin a new segment."""
        self.opened.select(None)
        return "The next stroke of Paint begins a new segment."

    def set_class(self, category: int | None) -> str:
        """Give the selected segment a contiguous class, or none; else it is for the next one."""
        session = self.opened
        if session.selected is None:
            return "The next painted segment gets this class."
        session.set_class(session.selected, category)
        return f"It is {session.segment_name(session.selected)} now."

    # ---------------------------------------------------------------------------------------------
    # The model
    # ---------------------------------------------------------------------------------------------
    def segment(self, *, steps: int, seed: int, num_samples: int) -> str:
        """Segment the photo from scratch."""
        session, start = self.opened, time.perf_counter()
        result = complete(self.predictor, session.photo, **_sampling(steps, seed, num_samples))
        session.take_result(result.ids, result.classes, result.uncertainty, fresh=True)
        return self._report("Segmented", start, num_samples)

    def complete(self, *, redraw: str = FILL_EMPTY, steps: int, seed: int, num_samples: int) -> str:
        """Let the model draw what is not given; `redraw`: see :meth:`Session.known`."""
        session, start = self.opened, time.perf_counter()
        if not session.segment_ids():
            return self.segment(steps=steps, seed=seed, num_samples=num_samples)
        known = session.known(redraw)
        if not known["known_mask"].any():
            raise SessionError(
                f"Nothing is marked as kept, so that {REDRAW_UNKEPT!r} is all: mark segments with "
                "Keep, or press Segment."
            )
        result = complete(
            self.predictor, session.photo, **known, **_sampling(steps, seed, num_samples)
        )
        session.take_result(result.ids, result.classes, result.uncertainty)
        return self._report("Completed", start, num_samples)

    def undo(self) -> str:
        """Take back the last change."""
        self.opened.undo()
        return "Undone."

    def redo(self) -> str:
        """Do again what was undone."""
        self.opened.redo()
        return "Done again."

    def _report(self, verb: str, start: float, num_samples: int) -> str:
        seconds = time.perf_counter() - start
        message = f"{verb} in {seconds:.1f} s: {_count(self.opened)}."
        if num_samples > 1 and self.opened.uncertainty is None:
            message += " This model says nothing of its uncertainty."
        return message


def _count(session: Session) -> str:
    number = len(session.segment_ids())
    return f"{number} segment{'s' * (number != 1)}"


def _sampling(steps: float, seed: float, num_samples: float) -> dict[str, int]:
    """The settings, as integers in their ranges: browsers send what they like."""
    ranges = {
        "steps": (steps, 1, MAX_STEPS),
        "seed": (seed, 0, 2**31 - 1),
        "num_samples": (num_samples, 1, MAX_SAMPLES),
    }
    checked = {}
    for name, (value, low, high) in ranges.items():
        if not isinstance(value, int | float) or not low <= value <= high:
            raise SessionError(f"{name} is {value!r}; it must be a number from {low} to {high}.")
        checked[name] = int(value)
    return checked
