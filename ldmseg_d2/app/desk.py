"""What one browser tab works on: the photo that is open, files, and calls of the model."""

import base64
import threading
import time
from typing import Any

import numpy as np

from ..data.datasets.scenes import generate_scene, split_seed
from .annotation_files import load_annotation, safe_stem, save_annotation
from .annotation_session import Session, SessionError
from .predictor import Predictor
from .uploads import Limits, decode_photo


class Desk:
    """Every method says what it did; SessionError and UploadError say why it cannot."""

    def __init__(self, predictor: Predictor, limits: Limits):
        self.session: Session | None = None  # the photo that is open
        self.lock = threading.Lock()  # around a method: strokes arrive while the model runs
        self._predictor = predictor
        self._limits = limits
        self._num_examples = 0

    @property
    def opened(self) -> Session:
        """The session; raises SessionError where no photo is open."""
        if self.session is None:
            raise SessionError("Open a photo first.")
        return self.session

    def open_photo(self, name: str, data: bytes) -> str:
        """Open a photo in place of the present one."""
        photo, note = decode_photo(data, name, self._limits)
        self.session = Session(photo, safe_stem(name), self._predictor.categories)
        return f"{name}: {photo.shape[1]} x {photo.shape[0]} pixels. {note}"

    def open_example(self) -> str:
        """Open the next generated scene, of those that no model is trained on."""
        index, self._num_examples = self._num_examples, self._num_examples + 1
        photo = generate_scene(seed=split_seed(0, "val"), index=index).image
        self.session = Session(photo, f"scene_{index}", self._predictor.categories)
        return f"Generated scene {index}: {photo.shape[1]} x {photo.shape[0]} pixels."

    def load(self, files: dict[str, bytes]) -> str:
        """Load saved segments, see :func:`load_annotation`."""
        self.session, note = load_annotation(
            files, self._predictor.categories, self.session, self._limits
        )
        return f"Loaded {self.session.count()} of {self.session.name}. {note}"

    def save(self) -> tuple[str, dict[str, Any]]:
        """The sentence, and the zip as ``name`` and ``data`` (base64)."""
        data = base64.b64encode(save_annotation(self.opened)).decode()
        name = f"{self.opened.name}_panoptic.zip"
        # Numbered: the browser is only told of values that differ from the last one.
        download = {"name": name, "data": data, "number": time.monotonic_ns()}
        return f"Saved {self.opened.count()} as {name}, in your downloads.", download

    def draw(self, redraw: str | None, steps: int, seed: int | None, num_samples: int) -> str:
        """Let the model draw what is not given, see :meth:`Session.given`; None: all."""
        session, start = self.opened, time.perf_counter()
        if seed is None:
            raise SessionError("There is no seed: write a number, or press New seed.")
        given = session.given(redraw) if redraw and session.segment_ids() else {}
        ids, classes, uncertainty = self._predictor.complete(
            session.photo, **given, steps=int(steps), seed=seed, num_samples=int(num_samples)
        )
        kept = None if given else np.zeros(ids.shape, dtype=bool)
        session.take_result(ids, classes, uncertainty, kept=kept)
        verb, seconds = "Completed" if given else "Segmented", time.perf_counter() - start
        return f"{verb} in {seconds:.1f} s: {session.count()}."
