"""Where the tasks' latents are in a batch: in rows of their own, or side by side as channels."""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from detectron2.utils.logger import log_every_n_seconds
from torch import Tensor

from ...config import TASK_MODES
from ..batching import SampleRandomness
from .base import Task

logger = logging.getLogger(__name__)


class Block(NamedTuple):
    """The part of a batch of latents (R, C', h, w) that belongs to one task."""

    task: int  # index among the model's tasks
    rows: list[int]
    channels: slice

    def of(self, latents: Tensor) -> Tensor:
        """(len(rows), C, h, w) of (R, C', h, w)."""
        return latents[self.rows, self.channels]


class Batch(NamedTuple):
    """How a batch of R rows is made of pictures and tasks."""

    images: list[int]  # picture of each row
    tasks: list[int]  # task that the denoiser is told for each row
    blocks: list[Block]


class TaskLayout:
    """Lays out batches for ``MODEL.LDMSEG.TASK_MODE``.

    "separate": a row is one task of one picture. "joint": a row is a picture, and task k has the
    channels k C to (k + 1) C.
    """

    def __init__(
        self, tasks: Sequence[Task], *, mode: str = "separate", weights: Sequence[float] = ()
    ) -> None:
        """
        Args:
            tasks: of the model.
            mode: "separate" or "joint".
            weights: one a task, not negative; empty: equal. See ``MODEL.LDMSEG.TASK_WEIGHTS``.

        Raises:
            ValueError: unknown mode, wrong weights, or latents of different shapes.
        """
        if mode not in TASK_MODES:
            raise ValueError(
                f"MODEL.LDMSEG.TASK_MODE is {mode!r}; allowed: {', '.join(TASK_MODES)}"
            )
        weights = list(weights) or [1.0] * len(tasks)
        if len(weights) != len(tasks) or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(
                f"MODEL.LDMSEG.TASK_WEIGHTS is {weights}: it takes one weight >= 0 for each of the "
                f"{len(tasks)} tasks, not all 0, or nothing at all"
            )
        shapes = {(t.autoencoder.latent_channels, t.latent_size) for t in tasks}
        if len(shapes) > 1:
            raise ValueError(
                f"the tasks' latents differ in (channels, side): {sorted(shapes)}; one denoiser "
                "needs one shape"
            )
        self.names = [task.name for task in tasks]
        self.joint = mode == "joint"
        self.weights = weights
        self.task_channels, self.latent_size = shapes.pop()

    @property
    def latent_channels(self) -> int:
        """C' of the latents that the denoiser sees."""
        return self.task_channels * (len(self.names) if self.joint else 1)

    @property
    def num_embedded_tasks(self) -> int:
        """Tasks that the denoiser has to be told apart."""
        return 1 if self.joint else len(self.names)

    @property
    def loss_weights(self) -> list[float]:
        """Weight of each task's loss; "separate" weighs by how often a task is drawn."""
        mean = sum(self.weights) / len(self.weights)
        return [w / mean for w in self.weights] if self.joint else [1.0] * len(self.weights)

    def for_training(
        self, tasks: Sequence[Task], entries: Sequence[dict], randomness: SampleRandomness
    ) -> Batch:
        """One row a picture, with the tasks that it has annotations for: all, or one drawn.

        Raises:
            KeyError: a picture has no annotation for any of the tasks.
        """
        available = [[task.has_target(entry) for task in tasks] for entry in entries]
        for entry, has in zip(entries, available, strict=True):
            if not any(has):
                _check_annotated(tasks, entry)
        if self.joint:
            return self._joint(len(entries), available)
        # A task of weight 0 is not drawn even where a picture has nothing else.
        drawable = [weight > 0 for weight in self.weights]
        available = [[a and b for a, b in zip(has, drawable, strict=True)] for has in available]
        drawn = [0] * len(entries)
        if len(tasks) > 1:
            numbers = randomness.rand().tolist()
            drawn = [self._draw(u, has) for u, has in zip(numbers, available, strict=True)]
        pairs = [(i, k) for i, k in enumerate(drawn)]
        return self._separate(pairs, keep=lambda i, k: available[i][k])

    def for_inference(self, entries: Sequence[dict]) -> Batch:
        """The tasks that each input asks for by its key "tasks"; without it, all of them.

        Raises:
            ValueError: an input asks for a task that the model does not have.
        """
        asked = [self._asked(entry) for entry in entries]
        if self.joint:
            return self._joint(len(entries), asked)
        pairs = [(i, k) for i, has in enumerate(asked) for k in range(len(has)) if has[k]]
        return self._separate(pairs, keep=lambda i, k: True)

    def noise_keys(self, entries: Sequence[dict], batch: Batch) -> list[tuple[dict, str]]:
        """For each row its input, and what seeds its noise together with the input's seed.

        A task's result does not depend on which others are asked for.
        """
        keys = []
        for i, k in zip(batch.images, batch.tasks, strict=True):
            key = str(entries[i]["image_id"])
            key += f"/{self.names[k]}" if k else ""
            key += f"#{entries[i]['draw']}" if entries[i].get("draw") else ""
            keys.append((entries[i], key))
        return keys

    def _joint(self, num_images: int, wanted: list[list[bool]]) -> Batch:
        rows = list(range(num_images))
        channels = self.task_channels
        blocks = [
            Block(k, [i for i in rows if wanted[i][k]], slice(k * channels, (k + 1) * channels))
            for k in range(len(self.names))
        ]
        return Batch(rows, [0] * num_images, [block for block in blocks if block.rows])

    def _separate(self, pairs: list[tuple[int, int]], keep: Callable[[int, int], bool]) -> Batch:
        blocks = [
            Block(
                k,
                [row for row, (i, task) in enumerate(pairs) if task == k and keep(i, k)],
                slice(0, self.task_channels),
            )
            for k in range(len(self.names))
        ]
        images, tasks = [i for i, _ in pairs], [k for _, k in pairs]
        return Batch(images, tasks, [block for block in blocks if block.rows])

    def _draw(self, number: float, available: list[bool]) -> int:
        """The task on which a uniform number in [0, 1) falls, among those available."""
        weights = [w * has for w, has in zip(self.weights, available, strict=True)]
        remaining = number * sum(weights)
        for k, weight in enumerate(weights):
            if remaining < weight:
                return k
            remaining -= weight
        # Nothing is available, or the number was rounded up to the sum.
        return max((k for k, weight in enumerate(weights) if weight > 0), default=0)

    def _asked(self, entry: dict) -> list[bool]:
        names = entry.get("tasks", self.names)
        unknown = [name for name in names if name not in self.names]
        if unknown or not names:
            raise ValueError(
                f"{entry.get('file_name', 'image')}: its 'tasks' are {list(names)}, but this model "
                f"has the tasks {', '.join(self.names)} (MODEL.LDMSEG.TASKS)"
            )
        return [name in names for name in self.names]


def _check_annotated(tasks: Sequence[Task], entry: dict) -> None:
    """Raise where a picture lacks every annotation, warn where what it has teaches nothing."""
    name = entry.get("file_name", "a picture")
    keys = [task.annotation for task in tasks]
    if not any(key in entry for key in keys):
        raise KeyError(
            f"{name}: training on the tasks {', '.join(task.name for task in tasks)} needs one of "
            f"the keys {', '.join(map(repr, keys))}, which PanopticDatasetMapper loads where the "
            "data set has them"
        )
    log_every_n_seconds(
        logging.WARNING,
        f"{name} has no valid pixel for any of the tasks: it teaches nothing",
        n=30,
        name=__name__,
    )
