"""What is compared: a config file with its options, and the stages that it needs before it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from ldmseg_d2.engine import load_config

SAMPLER_STEPS = "MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS"


@dataclass(frozen=True)
class Stage:
    """A training whose weights another one starts from.

    Attributes:
        name: of its folder, beside the model's.
        config_file: of the stage.
        share: of the model's budget.
        key: of the model's config, receives the weights.
    """

    name: str
    config_file: str
    share: float
    key: str


@dataclass(frozen=True)
class Contender:
    """A model of the benchmark.

    Attributes:
        name: in tables and folders.
        config_file: as for ``tools/train_net.py``.
        opts: keys and values for the model and its stages.
        weights: evaluated instead of training; empty: the model is trained.
        stages: trained before the model.
        steps: of the sampler, in rising order; (0,) for a model that does not sample.
        own_steps: what the config says itself.
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
        return folder_name(self.name)

    @property
    def samples(self) -> bool:
        """Whether the model has a number of sampling steps."""
        return self.own_steps > 0

    def title(self, steps: int) -> str:
        """Of a row."""
        return f"{self.name}, {steps} step{'s' * (steps != 1)}" if steps else self.name


def folder_name(name: str) -> str:
    """A name without what is unusual in paths.

    Example:
        >>> folder_name("LDMSeg, all tasks")
        'ldmseg_all_tasks'
    """
    return re.sub(r"[^a-z0-9.-]+", "_", name.lower()).strip("_.")


def read_contenders(
    config_files: Sequence[str],
    *,
    opts: Sequence[Any] = (),
    model_opts: Mapping[str, Sequence[Any]] | None = None,
    weights: Mapping[str, str] | None = None,
    dataset: str = "",
) -> list[Contender]:
    """Read the configs, and find what cannot work before anything is trained.

    Args:
        config_files: one a model.
        opts: keys and values for all.
        model_opts: further ones by a model's name or config file.
        weights: files by a model's name or config file; these models are not trained.
        dataset: name of the test set; or the common part of two names, such as "scenes" of
            "scenes_train" and "scenes_val"; empty: what the configs say.

    Raises:
        FileNotFoundError: there is no such config or weights file.
        ValueError: two names are equal, `weights` or `model_opts` name no model, or the models
            would learn or be evaluated on different data.
    """
    given, own = dict(weights or {}), dict(model_opts or {})
    common = [*dataset_opts(dataset), *opts]
    contenders = []
    for file in config_files:
        first = load_config(file, common)
        name = first.BENCHMARK.NAME or Path(file).stem
        used = [*common, *own.pop(name, own.pop(file, ()))]
        found = given.pop(name, given.pop(file, ""))
        cfg = load_config(file, used)
        contenders.append(_contender(cfg, name, file, used, found))
    for unknown, flag in ((given, "--weights"), (own, "--model-opts")):
        if unknown:
            raise ValueError(
                f"{flag} names {', '.join(unknown)}, which is none of the models "
                f"{', '.join(c.name for c in contenders)}"
            )
    if len({contender.folder for contender in contenders}) < len(contenders):
        raise ValueError(
            f"models need different names, got {', '.join(c.name for c in contenders)}: set "
            "BENCHMARK.NAME in a config"
        )
    _check_same_data(contenders)
    return contenders


def dataset_opts(dataset: str) -> list[Any]:
    """The keys that ``--dataset`` stands for."""
    if not dataset:
        return []
    both = [f"{dataset}_{split}" for split in ("train", "val")]
    if dataset not in DatasetCatalog and all(name in DatasetCatalog for name in both):
        return ["DATASETS.TRAIN", (both[0],), "DATASETS.TEST", (both[1],)]
    return ["DATASETS.TEST", (dataset,)]


def _contender(cfg: CfgNode, name: str, file: str, opts: Sequence[Any], weights: str) -> Contender:
    own = cfg.MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS
    own = own if cfg.MODEL.META_ARCHITECTURE == "LDMSeg" else 0
    if weights and "://" not in weights and not Path(weights).is_file():
        raise FileNotFoundError(f"--weights {name}={weights}: there is no such file")
    return Contender(
        name=name,
        config_file=file,
        opts=tuple(opts),
        weights=weights,
        stages=() if weights else _stages(cfg, name),
        steps=tuple(sorted({own, *map(int, cfg.BENCHMARK.STEPS)})) if own else (0,),
        own_steps=own,
    )


def _stages(cfg: CfgNode, name: str) -> tuple[Stage, ...]:
    b = cfg.BENCHMARK
    listed = [(b.FIRST_STAGE, b.FIRST_STAGE_SHARE, b.FIRST_STAGE_KEY)] if b.FIRST_STAGE else []
    listed += [tuple(stage) for stage in b.MORE_STAGES]
    shares = [share for _, share, _ in listed]
    if any(share <= 0 for share in shares) or sum(shares) >= 1:
        raise ValueError(
            f"{name}: the shares of BENCHMARK.FIRST_STAGE_SHARE and MORE_STAGES are {shares}: each "
            "must be above 0, and their sum below 1, so that the model itself has time left"
        )
    return tuple(
        Stage(f"{folder_name(name)}.stage{number}", file, share, key)
        for number, (file, share, key) in enumerate(listed, start=1)
    )


def _check_same_data(contenders: Sequence[Contender]) -> None:
    configs = {c.name: load_config(c.config_file, c.opts) for c in contenders}
    tests = {name: tuple(cfg.DATASETS.TEST) for name, cfg in configs.items()}
    if len(set(tests.values())) > 1 or any(len(names) != 1 for names in tests.values()):
        raise ValueError(
            f"all models must be evaluated on the same one data set, DATASETS.TEST is {tests}: "
            "choose it with --dataset"
        )
    trains = {c.name: tuple(configs[c.name].DATASETS.TRAIN) for c in contenders if not c.weights}
    if len(set(trains.values())) > 1:
        raise ValueError(
            f"all models must learn from the same data, DATASETS.TRAIN is {trains}: choose it with "
            "--dataset (scenes stands for scenes_train and scenes_val), or give DATASETS.TRAIN at "
            "the end of the command"
        )
