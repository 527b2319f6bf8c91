"""A batch of latents that several tasks share: as rows of their own, or as channels of one."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.utils.events import get_event_storage, has_event_storage
from detectron2.utils.logger import log_every_n_seconds
from torch import Tensor

from ..diffusion import DiffusionLoss, SampleRandomness
from .task_base import Task
from .tasks import InstanceTask


class Block(NamedTuple):
    """The part of a batch of latents (R, C', h, w) that belongs to one task."""

    task: Task
    rows: list[int]
    channels: slice

    def of(self, latents: Tensor) -> Tensor:
        """(len(rows), C, h, w) of (R, C', h, w)."""
        return latents[self.rows, self.channels]


class Batch(NamedTuple):
    """How a batch of R rows is made of pictures and tasks."""

    images: list[int]  # picture of each row
    tasks: Tensor  # (R,) int64, the task that the denoiser is told for each row
    blocks: list[Block]

    @property
    def segments(self) -> Block | None:
        """The latents of the segments, which can be given (inpainting); None without any."""
        return next((b for b in self.blocks if isinstance(b.task, InstanceTask)), None)

    def only_segments(self) -> "Batch":
        """The same rows with the segments' latents alone."""
        return self._replace(blocks=[self.segments] if self.segments else [])


class TrainingTargets(NamedTuple):
    """What the denoiser learns from a batch."""

    x0: Tensor  # (R, C', h, w); 0 where there is no target
    valid: Tensor  # (R, C', h, w) bool
    weights: Tensor  # (R, C', h, w) of the squared errors
    ids: Tensor | None  # (N, S, S) int64 of the segments' task, for its rows


class TaskLayout:
    """Lays out batches for ``MODEL.LDMSEG.TASK_MODE``.

    "separate" (the paper): a row is one task of one picture. "joint": a row is a picture, and task
    k has the channels k C to (k + 1) C.
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
        if mode not in ("separate", "joint"):
            raise ValueError(f"MODEL.LDMSEG.TASK_MODE is {mode!r}; allowed: separate, joint")
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
        self.tasks = list(tasks)
        self.names = [task.name for task in tasks]
        self.joint = mode == "joint"
        self.weights = weights
        self.task_channels, self.latent_size = shapes.pop()

    @property
    def latent_channels(self) -> int:
        """C' of the latents that the denoiser sees."""
        return self.task_channels * (len(self.tasks) if self.joint else 1)

    def check_sides(self, divisor: int, image_size: int, train_size: int) -> None:
        """Raise a ValueError unless the latents' sides are multiples of ``divisor``."""
        for key, size in (("IMAGE_SIZE", image_size), ("TRAIN_SIZE", train_size)):
            side, rest = divmod(size * self.latent_size, image_size)
            if rest or side % divisor:
                raise ValueError(
                    f"INPUT.LDMSEG.{key} {size} gives latents of side {side}; the denoiser's "
                    f"levels need a multiple of {divisor}"
                )

    @property
    def min_area(self) -> int:
        """Pixels that a segment of a result has at least."""
        tasks = [task for task in self.tasks if isinstance(task, InstanceTask)]
        return max((task.postprocess.get("count_threshold", 0) for task in tasks), default=0)

    @property
    def device(self) -> torch.device:
        """Where the tasks' autoencoders are."""
        return next(self.tasks[0].autoencoder.parameters()).device

    def for_training(self, entries: Sequence[dict], randomness: SampleRandomness) -> Batch:
        """One row a picture, with the tasks that it has annotations for: all, or one drawn.

        Raises:
            KeyError: a picture has no annotation for any of the tasks.
        """
        available = [[task.has_target(entry) for task in self.tasks] for entry in entries]
        for entry, has in zip(entries, available, strict=True):
            if not any(has):
                self._check_annotated(entry)
        if self.joint:
            return self._joint(available)
        # A task of weight 0 is not drawn even where a picture has nothing else.
        available = [[a and w > 0 for a, w in zip(has, self.weights)] for has in available]
        drawn = [0] * len(entries)
        if len(self.tasks) > 1:
            numbers = randomness.rand().tolist()
            drawn = [self._draw(u, has) for u, has in zip(numbers, available, strict=True)]
        return self._separate(list(enumerate(drawn)), available)

    def for_inference(self, entries: Sequence[dict]) -> Batch:
        """The tasks that each input asks for by its key "tasks"; without it, all of them.

        Raises:
            ValueError: an input asks for a task that the model does not have.
        """
        asked = [self._asked(entry) for entry in entries]
        if self.joint:
            return self._joint(asked)
        pairs = [(i, k) for i, has in enumerate(asked) for k in range(len(has)) if has[k]]
        return self._separate(pairs, asked)

    def noise_keys(self, entries: Sequence[dict], batch: Batch) -> list[str]:
        """What seeds each row's noise, together with the input's seed.

        A task's result does not depend on which others are asked for.
        """
        keys = []
        for i, k in zip(batch.images, batch.tasks.tolist(), strict=True):
            key = str(entries[i]["image_id"])
            key += f"/{self.names[k]}" if k else ""
            key += f"#{entries[i]['draw']}" if entries[i].get("draw") else ""
            keys.append(key)
        return keys

    def losses(
        self, batch: Batch, targets: "TrainingTargets", result: DiffusionLoss
    ) -> dict[str, Tensor]:
        """Divide the diffusion loss among the tasks.

        Returns:
            ``loss_diffusion`` of a single task; of several ``loss_<task>`` for each, whose sum is
            the mean over all valid latents where the weights are 1. The mean over a task's own
            latents is logged as ``diffusion/<task>``.
        """
        if len(self.tasks) == 1:
            return {"loss_diffusion": result.loss}
        # Every task has its key in every iteration: processes compare their keys.
        losses = {f"loss_{name}": 0.0 * result.loss for name in self.names}
        # "separate" weighs a task by how often it is drawn.
        mean = sum(self.weights) / len(self.weights) if self.joint else 1.0
        for block in batch.blocks:
            name = block.task.name
            weight = self.weights[self.names.index(name)] / mean if self.joint else 1.0
            error = block.of(result.error).sum()
            losses[f"loss_{name}"] = weight * error / result.num_valid
            if has_event_storage():
                # Independent of how many samples of the batch have the task.
                count = block.of(targets.valid).sum().clamp(min=1)
                get_event_storage().put_scalar(f"diffusion/{name}", float(error.detach() / count))
        return losses

    def _joint(self, wanted: list[list[bool]]) -> Batch:
        rows, channels = list(range(len(wanted))), self.task_channels
        blocks = [
            Block(task, [i for i in rows if wanted[i][k]], slice(k * channels, (k + 1) * channels))
            for k, task in enumerate(self.tasks)
        ]
        told = torch.zeros(len(rows), dtype=torch.int64, device=self.device)
        return Batch(rows, told, [block for block in blocks if block.rows])

    def _separate(self, pairs: list[tuple[int, int]], wanted: list[list[bool]]) -> Batch:
        blocks = []
        for k, task in enumerate(self.tasks):
            rows = [row for row, (i, one) in enumerate(pairs) if one == k and wanted[i][k]]
            if rows:
                blocks.append(Block(task, rows, slice(0, self.task_channels)))
        told = torch.tensor([k for _, k in pairs], device=self.device)
        return Batch([i for i, _ in pairs], told, blocks)

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

    def _check_annotated(self, entry: dict) -> None:
        """Raise where a picture lacks every annotation, warn where what it has teaches nothing."""
        name = entry.get("file_name", "a picture")
        keys = [task.annotation for task in self.tasks]
        if not any(key in entry for key in keys):
            raise KeyError(
                f"{name}: training on the tasks {', '.join(self.names)} needs one of the keys "
                f"{', '.join(map(repr, keys))}, which PanopticDatasetMapper loads where the data "
                "set has them"
            )
        log_every_n_seconds(
            logging.WARNING,
            f"{name} has no valid pixel for any of the tasks: it teaches nothing",
            n=30,
            name=__name__,
        )


@torch.no_grad()
def encode_targets(
    batch: Batch,
    entries: Sequence[dict],
    *,
    like: Tensor,
    randomness: SampleRandomness,
    predicted: Tensor | None,
) -> TrainingTargets:
    """The clean latents of every task in a training batch.

    Args:
        batch: of :meth:`TaskLayout.for_training`.
        entries: the input dict of each row.
        like: (R, C', h, w); the targets get its shape and type.
        randomness: of the rows.
        predicted: (R, C', h, w), the network's x0 from pure noise, or None; see
            :meth:`Task.encode`.
    """
    x0, weights = torch.zeros_like(like), torch.ones_like(like)
    valid = torch.zeros_like(like, dtype=torch.bool)
    ids = None
    for block in batch.blocks:
        target = block.task.encode(
            [entries[row] for row in block.rows],
            randomness.of_samples(block.rows),
            None if predicted is None else block.of(predicted),
        )
        x0[block.rows, block.channels] = target.latents.to(x0.dtype)
        cells = torch.ones_like(target.latents, dtype=torch.bool)
        valid[block.rows, block.channels] = cells if target.valid is None else target.valid & cells
        if target.weights is not None:
            weights[block.rows, block.channels] = target.weights.to(x0.dtype)
        ids = target.segment_ids if target.segment_ids is not None else ids
    return TrainingTargets(x0, valid, weights, ids)


def decode_tasks(batch: Batch, latents: Tensor, entries: Sequence[dict]) -> list[dict[str, Any]]:
    """By output key what each picture's tasks give.

    Args:
        batch: its rows and blocks.
        latents: (R, C', h, w) sampled.
        entries: the input dicts of the pictures.
    """
    outputs: list[dict[str, Any]] = [{} for _ in entries]
    for block in batch.blocks:
        images = [batch.images[row] for row in block.rows]
        decoded = block.task.decode(block.of(latents), [entries[i] for i in images])
        for i, one in zip(images, decoded, strict=True):
            outputs[i][block.task.output_key] = one
    return outputs
