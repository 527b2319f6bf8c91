"""A benchmark or a study from end to end; every phase of every contender is done once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluators, inference_on_dataset
from detectron2.modeling import build_model
from torch import nn

from ldmseg_d2.data import build_dataset_mapper, build_test_loader, load_dataset_dicts
from ldmseg_d2.engine import LDMSegCheckpointer, load_config
from ldmseg_d2.evaluation import build_evaluator

from .contenders import Contender
from .costs import clock_of, interleave, peak_memory, picture_flops
from .mosaics import MOSAICS, CountsEvaluator, prepare_mosaics
from .records import environment, flat_settings, once
from .timed_training import Budget, Run, do_run

SAMPLER_STEPS = "MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS"


@dataclass(frozen=True)
class Settings:
    """How the contenders are trained and measured.

    Attributes:
        seeds: of data and noise: each contender is trained, or, with given weights and a sampler,
            evaluated with every one.
        images: pictures of the evaluation; 0: all.
        rounds: of the latencies, see :func:`ldmseg_d2.experiments.costs.interleave`.
        memory: measure it as well, for models of different kinds.
    """

    output: Path
    budget: Budget
    seeds: tuple[int, ...] = (0,)
    images: int = 0
    rounds: int = 30
    memory: bool = False


class Runner:
    """Trains, evaluates and measures; see :meth:`run`."""

    def __init__(self, contenders: Sequence[Contender], settings: Settings) -> None:
        """Raises where the data is not there."""
        self.contenders, self.settings = list(contenders), settings
        self.cfgs = {c.name: load_config(c.config_file, c.opts) for c in contenders}
        cfg = self.cfgs[contenders[0].name]
        self.dataset, self.device = cfg.DATASETS.TEST[0], cfg.MODEL.DEVICE
        prepare_mosaics(cfg, settings.output)
        # Before hours of training.
        self.records = load_dataset_dicts([self.dataset])
        for contender in contenders:
            if not contender.weights:
                load_dataset_dicts(self.cfgs[contender.name].DATASETS.TRAIN)
        self.num_images = min(settings.images or len(self.records), len(self.records))
        self._models: dict[str, nn.Module] = {}

    def run(self) -> dict[str, Any]:
        """Do what is missing.

        Gives ``environment``, ``settings`` and ``models``: for each contender its trainings, its
        costs and a row for each number of steps, with the results of every seed.
        """
        # Seed by seed, so that all contenders soon have one result.
        self.trained: dict[str, list[dict[str, Any]]] = {c.name: [] for c in self.contenders}
        for seed in self.settings.seeds:
            for c in self.contenders:
                if not c.weights:
                    self.trained[c.name].append(self._train(c, seed))
                elif c.own_steps or not self.trained[c.name]:  # only samplers draw noise
                    given = {"weights": c.weights, "opts": [*c.opts, "SEED", seed]}
                    self.trained[c.name].append({"seed": seed, **given, "stages": []})
        latency = self._latency()
        described = {k: v for k, v in vars(self.settings).items() if k != "output"}
        described["budget"] = str(self.settings.budget)
        return {
            "environment": environment(self.device),
            "settings": {**described, "dataset": self.dataset, "images": self.num_images},
            "models": [self._described(c, latency) for c in self.contenders],
        }

    def _described(self, c: Contender, latency: dict[str, float]) -> dict[str, Any]:
        """A contender as results.json has it."""
        cfg, costs = self.cfgs[c.name], self._costs(c)
        post = cfg.MODEL.LDMSEG.POSTPROCESS if c.own_steps else {}
        return {
            "name": c.name,
            "config_file": c.config_file,
            "overrides": list(c.opts),
            "meta_architecture": cfg.MODEL.META_ARCHITECTURE,
            "thresholds": ", ".join(f"{key} {value}" for key, value in sorted(post.items())),
            "trainings": self.trained[c.name],
            "parameters": costs["parameters"],
            "memory": costs["memory"],
            "rows": [
                {
                    "title": c.title(steps),
                    "steps": steps,
                    "own": steps == c.own_steps,
                    "gflops": costs["gflops"][str(steps)],
                    "latency_ms": latency[c.title(steps)],
                    "results": self._quality(c, steps),
                }
                for steps in c.steps
            ],
        }

    def _train(self, contender: Contender, seed: int) -> dict[str, Any]:
        """Train all stages with one seed, or continue, or read what was done before.

        Gives ``weights``, ``opts`` to build the model with, and the records of all ``stages``.
        """
        budget, folder = self.settings.budget, self.settings.output / f"seed{seed}"
        opts, received, stages = [*contender.opts, "SEED", seed], [], []
        for number, stage in enumerate(contender.stages, start=1):
            path = folder / f"{contender.folder}.stage{number}"
            record = do_run(Run(path, stage.config_file, tuple(opts), budget, stage.share))
            # Its result is the ceiling of what follows.
            cfg = self._cfg(stage.config_file, opts, record["weights"])
            stages.append({**record, "results": _evaluate_once(path / "quality.json", cfg)})
            # The model receives them, and no other stage does.
            received += [stage.key, record["weights"]]
        opts += received
        share = 1 - sum(stage.share for stage in contender.stages)
        spent = sum(stage["seconds"] for stage in stages)
        path = folder / contender.folder
        record = do_run(Run(path, contender.config_file, tuple(opts), budget, share, spent))
        stages.append(record)
        return {"seed": seed, "weights": record["weights"], "opts": opts, "stages": stages}

    def _cfg(self, config_file: str, opts: Sequence[Any], weights: str, steps: int = 0) -> CfgNode:
        """Of an evaluation, with a number of steps unless it is the config's own."""
        opts = [*opts, "MODEL.WEIGHTS", weights, "DATALOADER.NUM_WORKERS", 0]
        opts += ["TEST.MAX_IMAGES", self.num_images, *([SAMPLER_STEPS, steps] if steps else [])]
        return load_config(config_file, opts)

    def _quality(self, contender: Contender, steps: int) -> list[dict[str, Any]]:
        """The evaluation of every seed."""
        found = []
        for training in self.trained[contender.name]:
            cfg = self._cfg(contender.config_file, training["opts"], training["weights"], steps)
            folder = self.settings.output / f"seed{training['seed']}" / contender.folder
            name = f"quality_{steps}_steps.json" if steps else "quality.json"
            found.append(_evaluate_once(folder / name, cfg))
        return found

    def _first_cfg(self, contender: Contender) -> CfgNode:
        """Of the first seed."""
        training = self.trained[contender.name][0]
        return self._cfg(contender.config_file, training["opts"], training["weights"])

    def _model(self, contender: Contender) -> nn.Module:
        """Of the first seed, kept."""
        if contender.name not in self._models:
            self._models[contender.name] = load_model(self._first_cfg(contender))
        return self._models[contender.name]

    def _costs(self, contender: Contender) -> dict[str, Any]:
        """Parameters, operations at each number of steps, peak memory."""
        cfg, memory = self._first_cfg(contender), self.settings.memory

        def measure() -> dict[str, Any]:
            model, gflops = self._model(contender), {}
            inputs = build_dataset_mapper(cfg, is_train=False)(self.records[0])
            for steps in contender.steps:
                _set_steps(model, steps)
                gflops[steps] = picture_flops(model, inputs) / 1e9
            return {
                "parameters": sum(p.numel() for p in model.parameters()),
                "gflops": gflops,
                "memory": peak_memory(cfg) if memory else None,
            }

        settings = {**_evaluated(cfg), "steps": contender.steps, "memory": memory}
        return once(self.settings.output / "costs" / f"{contender.folder}.json", settings, measure)

    def _latency(self) -> dict[str, float]:
        """Milliseconds of every model at each of its numbers of steps, all in turn."""
        s = self.settings

        def measure() -> dict[str, float]:
            calls = {}
            for c in self.contenders:
                mapper = build_dataset_mapper(self._first_cfg(c), is_train=False)
                inputs = [mapper(record) for record in self.records[: s.rounds]]
                for steps in c.steps:
                    calls[c.title(steps)] = partial(_segment_one, self._model(c), inputs, steps)
            return interleave(calls, rounds=s.rounds, clock=clock_of(self.device))

        machine = environment(self.device)
        settings = {
            "weights": {c.name: self.trained[c.name][0]["weights"] for c in self.contenders},
            "steps": {c.name: c.steps for c in self.contenders},
            **{key: machine[key] for key in ("device", "threads")},
            "rounds": s.rounds,
        }
        return once(s.output / "latency.json", settings, measure)


def load_model(cfg: CfgNode) -> nn.Module:
    """In eval mode, with the averaged weights where a checkpoint has them."""
    model = build_model(cfg).eval()
    LDMSegCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


def evaluate(cfg: CfgNode) -> dict[str, Any]:
    """What ``MODEL.WEIGHTS`` reach on the test set, without a file written; of mosaics also by the
    number of segments."""
    name = cfg.DATASETS.TEST[0]
    evaluators = [build_evaluator(cfg, name), *([CountsEvaluator(name)] if name in MOSAICS else [])]
    loader = build_test_loader(cfg, name)
    return dict(inference_on_dataset(load_model(cfg), loader, DatasetEvaluators(evaluators)))


def _evaluate_once(path: Path, cfg: CfgNode) -> dict[str, Any]:
    weights = Path(cfg.MODEL.WEIGHTS)
    changed = weights.stat().st_mtime_ns if weights.is_file() else 0
    return once(path, {**_evaluated(cfg), "changed": changed}, lambda: evaluate(cfg))


def _evaluated(cfg: CfgNode) -> dict[str, Any]:
    """What an evaluation depends on: how the model was trained is compared in its own folder."""
    return {k: v for k, v in flat_settings(cfg).items() if not k.startswith("SOLVER.")}


@torch.no_grad()
def _segment_one(model: nn.Module, inputs: list[dict[str, Any]], steps: int, number: int) -> None:
    _set_steps(model, steps)
    model([inputs[number % len(inputs)]])


def _set_steps(model: nn.Module, steps: int) -> None:
    if steps:
        model.num_inference_steps = steps
