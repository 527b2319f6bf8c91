"""What is compared: a config file with its options, and the stages that it needs before it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog

from ldmseg_d2.engine import load_config

# META_ARCHITECTURE of a stage to the key that receives its weights; others start the model itself.
RECEIVERS = {
    "LDMSegAutoencoder": "MODEL.LDMSEG.AUTOENCODER.WEIGHTS",
    "LDMSegDepthAutoencoder": "MODEL.LDMSEG.DEPTH.AUTOENCODER.WEIGHTS",
}


@dataclass(frozen=True)
class Stage:
    """A training with a share of the model's budget, whose weights a key of the model receives."""

    config_file: str
    share: float
    key: str

    @classmethod
    def parse(cls, text: str) -> "Stage":
        """Read "CONFIG:SHARE"; the key follows from what the config trains."""
        file, _, share = str(text).rpartition(":")
        if not re.fullmatch(r"0?\.\d+", share):
            raise ValueError(
                f"stage {text!r}: give CONFIG:SHARE, such as "
                "configs/scenes/autoencoder_scenes64.yaml:0.25"
            )
        meta_arch = load_config(file).MODEL.META_ARCHITECTURE
        return cls(file, float(share), RECEIVERS.get(meta_arch, "MODEL.WEIGHTS"))


@dataclass(frozen=True)
class Contender:
    """A model that is compared.

    Attributes:
        opts: keys and values for the model and its stages, on top of the config file.
        weights: evaluated instead of training; empty: the model is trained, after its stages.
        steps: of the sampler, in rising order; (0,) for a model that does not sample.
        own_steps: those of `steps` that stand for the model where there is but one row.
    """

    name: str
    config_file: str
    opts: tuple[Any, ...] = ()
    weights: str = ""
    stages: tuple[Stage, ...] = ()
    steps: tuple[int, ...] = (0,)
    own_steps: int = 0

    @property
    def folder(self) -> str:
        """The name as files can have it."""
        return re.sub(r"[^a-z0-9.-]+", "_", self.name.lower()).strip("_.")

    def title(self, steps: int) -> str:
        """Of a row."""
        return f"{self.name}, {steps} step{'s' * (steps != 1)}" if steps else self.name


def make_contender(
    name: str,
    config_file: str,
    *,
    opts: Sequence[Any] = (),
    weights: str = "",
    stages: Sequence[Stage] = (),
    steps: Sequence[int] = (),
) -> Contender:
    """Read a contender's config, and find what cannot work before anything is trained.

    Stages and steps are of LDMSeg alone; without steps it has the config's own.

    Raises:
        FileNotFoundError: there is no such config or weights file.
        ValueError: the config is not right, or the stages leave the model no time.
    """
    cfg = load_config(config_file, opts)
    samples = cfg.MODEL.META_ARCHITECTURE == "LDMSeg"
    if weights and "://" not in weights and not Path(weights).is_file():
        raise FileNotFoundError(f"the weights of {name}, {weights}: there is no such file")
    shares = [stage.share for stage in stages]
    if any(share <= 0 for share in shares) or sum(shares) >= 1:
        raise ValueError(
            f"{name}: the shares of the stages before it are {shares}: each must be above 0, and "
            "their sum below 1, so that the model itself has time left"
        )
    own = cfg.MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS
    chosen = tuple(sorted(set(steps))) or (own,)
    return Contender(
        name=name,
        config_file=config_file,
        opts=tuple(opts),
        weights=weights,
        stages=tuple(stages) if samples and not weights else (),
        steps=chosen if samples else (0,),
        own_steps=(own if own in chosen else chosen[-1]) if samples else 0,
    )


def read_contenders(
    config_files: Sequence[str],
    *,
    opts: Sequence[Any] = (),
    weights: Mapping[str, str] | None = None,
    dataset: str = "",
    **shared: Any,
) -> list[Contender]:
    """The models of a benchmark, each named as its config file.

    Args:
        config_files, opts: one a model; keys and values for all.
        weights: files by a model's name; these models are not trained.
        dataset: a test set's name, or the common part of names: "scenes" of "scenes_val".
        shared: ``stages`` and ``steps`` of all, see :func:`make_contender`.

    Raises:
        FileNotFoundError: there is no such config or weights file.
        ValueError: `weights` names no model; see also :func:`check_contenders`.
    """
    given, both = dict(weights or {}), [f"{dataset}_{split}" for split in ("train", "val")]
    if dataset and dataset not in DatasetCatalog and all(name in DatasetCatalog for name in both):
        opts = ["DATASETS.TRAIN", (both[0],), "DATASETS.TEST", (both[1],), *opts]
    elif dataset:
        opts = ["DATASETS.TEST", (dataset,), *opts]
    contenders = []
    for file in config_files:
        name = Path(file).stem
        own = given.pop(name, "")
        contenders.append(make_contender(name, file, opts=opts, weights=own, **shared))
    if given:
        names = ", ".join(contender.name for contender in contenders)
        raise ValueError(f"--weights names {', '.join(given)}, which is none of the models {names}")
    check_contenders(contenders)
    return contenders


def check_contenders(contenders: Sequence[Contender]) -> None:
    """Raise ValueError where names are equal, or models would not see the same data."""
    names = [contender.name for contender in contenders]
    if len({contender.folder for contender in contenders}) < len(names):
        raise ValueError(f"models need different names, got {', '.join(names)}")
    configs = {c.name: load_config(c.config_file, c.opts).DATASETS for c in contenders}
    tests = {name: tuple(datasets.TEST) for name, datasets in configs.items()}
    trains = {c.name: tuple(configs[c.name].TRAIN) for c in contenders if not c.weights}
    if len(set(tests.values())) > 1 or any(len(test) != 1 for test in tests.values()):
        raise ValueError(
            f"all models must be evaluated on the same one data set, DATASETS.TEST is {tests}: "
            "choose it with --dataset"
        )
    if len(set(trains.values())) > 1:
        raise ValueError(
            f"all models must learn from the same data, DATASETS.TRAIN is {trains}: choose it with "
            "--dataset (scenes stands for scenes_train and scenes_val)"
        )
