"""What a task is: how a target becomes a latent, and how a latent becomes an output."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from torch import Tensor, nn

from ..diffusion import SampleRandomness
from ..modeling.latent_autoencoder import LatentAutoencoder

TASK_REGISTRY = Registry("LDMSEG_TASK")
TASK_REGISTRY.__doc__ = """
Tasks that `cfg.MODEL.LDMSEG.TASKS` may name, by `Task.name`: sub-classes of :class:`Task`.
"""


class Target(NamedTuple):
    """What the denoiser learns for one task and N samples."""

    latents: Tensor  # (N, C, h, w) normalised
    valid: Tensor | None = None  # (N, 1, h, w) bool: cells that count; None: all
    weights: Tensor | None = None  # (N, 1, h, w) float32 of the cells' errors; None: all 1
    segment_ids: Tensor | None = None  # (N, S, S) int64: the segments that were encoded, if any


class Task(ABC):
    """One kind of map that the diffusion model generates.

    A task is no nn.Module: it holds a reference to an autoencoder that the model owns. A new one
    registers itself with ``TASK_REGISTRY.register()`` under its ``name``.
    """

    # Key in MODEL.LDMSEG.TASKS, in the logs and in an input's "tasks".
    name: ClassVar[str]
    # Which of the model's autoencoders it uses: "autoencoder" or "depth_autoencoder".
    autoencoder_name: ClassVar[str] = "autoencoder"
    # Key of an input that holds the annotation.
    annotation: ClassVar[str]
    # Key of the model's output that :meth:`decode` fills.
    output_key: ClassVar[str]
    # Whether :meth:`encode` wants what the network predicts from pure noise.
    needs_prediction: bool = False

    def __init__(
        self, autoencoder: LatentAutoencoder, *, image_size: int, train_size: int = 0
    ) -> None:
        """
        Args:
            autoencoder: frozen, with the latents that all tasks of a model share.
            image_size: side S of the square that the networks see, pixels.
            train_size: the same in training; 0: ``image_size``.
        """
        self.autoencoder = autoencoder
        self.image_size = image_size
        self.train_size = train_size or image_size

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Keyword arguments of the constructor, besides the autoencoder."""
        options = cfg.INPUT.LDMSEG
        return {"image_size": options.IMAGE_SIZE, "train_size": options.TRAIN_SIZE}

    @property
    def latent_size(self) -> int:
        """Side h of the latents at test."""
        return self.image_size // self.autoencoder.downsample_factor

    def has_target(self, entry: dict) -> bool:
        """Whether an input dict has something that this task can learn from."""
        return self.annotation in entry

    @abstractmethod
    def encode(
        self, entries: Sequence[dict], randomness: SampleRandomness, predicted: Tensor | None
    ) -> Target:
        """The target of N annotated samples.

        Args:
            entries: input dicts for which :meth:`has_target`.
            randomness: of these samples.
            predicted: (N, C, h, w) normalised x0 that the network predicts from pure noise; None
                where no task ``needs_prediction``.
        """

    @abstractmethod
    def decode(self, latents: Tensor, entries: Sequence[dict]) -> list[Any]:
        """The output of every sample (normalised latents (N, C, h, w)) at its height x width."""


def task_classes(cfg: CfgNode) -> list[type[Task]]:
    """The classes of ``MODEL.LDMSEG.TASKS``, in that order.

    Raises:
        ValueError: no task, a name twice, or one that is not registered.
    """
    names = list(cfg.MODEL.LDMSEG.TASKS)
    known = {task.name: task for _, task in TASK_REGISTRY}
    if not names or not known.keys() >= set(names) or len(set(names)) != len(names):
        raise ValueError(
            f"MODEL.LDMSEG.TASKS is {names}: it must name one or more of {', '.join(known)}, "
            "each once"
        )
    return [known[name] for name in names]


def build_tasks(cfg: CfgNode, autoencoders: dict[str, nn.Module]) -> list[Task]:
    """The tasks of ``MODEL.LDMSEG.TASKS``, with the autoencoders by :attr:`autoencoder_name`."""
    return [
        task(autoencoders[task.autoencoder_name], **task.from_config(cfg))
        for task in task_classes(cfg)
    ]
