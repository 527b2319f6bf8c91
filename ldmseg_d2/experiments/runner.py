"""A benchmark or a study from end to end; every phase of every contender is done once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from ldmseg_d2.data import load_dataset_dicts
from ldmseg_d2.engine import load_config
from ldmseg_d2.engine.demo import Demo

from .budget import Budget
from .contenders import SAMPLER_STEPS, Contender
from .costs import clock_of, interleave, peak_memory, picture_flops, summarize
from .evaluate_counts import evaluate
from .plots import draw_panel
from .records import environment, flat_settings, once
from .timed_training import Run, do_run

WARM_UP = 3
PANEL_PHOTOS = 4
# Pictures of a point of the learning curve, at most.
CURVE_IMAGES = 100


@dataclass(frozen=True)
class Settings:
    """How the contenders are trained and measured.

    Attributes:
        seeds: of data and noise: each contender is trained, or, with given weights and a sampler,
            evaluated with every one.
        images: pictures of the evaluation; 0: all.
        curve_points: evaluations spread evenly over a model's own training, the last at its end.
        rounds: of the latencies, see :func:`ldmseg_d2.experiments.costs.interleave`.
        side_by_side: measure memory and draw a panel as well, for models of different kinds.
    """

    output: Path
    budget: Budget
    seeds: tuple[int, ...] = (0,)
    images: int = 0
    curve_points: int = 4
    rounds: int = 30
    side_by_side: bool = False


class Runner:
    """Trains, evaluates and measures; see :meth:`run`."""

    def __init__(self, contenders: Sequence[Contender], settings: Settings) -> None:
        """Latencies are compared with the first one's. Raises where the data is not there."""
        self.contenders, self.settings = list(contenders), settings
        self.cfgs = {c.name: load_config(c.config_file, c.opts) for c in contenders}
        cfg = self.cfgs[contenders[0].name]
        self.dataset, self.device = cfg.DATASETS.TEST[0], cfg.MODEL.DEVICE
        # Before hours of training.
        self.records = load_dataset_dicts([self.dataset])
        for contender in contenders:
            if not contender.weights:
                load_dataset_dicts(self.cfgs[contender.name].DATASETS.TRAIN)
        self.num_images = min(settings.images or len(self.records), len(self.records))
        self._demos: dict[str, Demo] = {}

    def run(self) -> dict[str, Any]:
        """Do what is missing, and write OUTPUT/panel.png where it is asked for.

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
                    self.trained[c.name].append({"seed": seed, **given, "stages": [], "curve": []})
        latency = self._latency()
        if self.settings.side_by_side:
            self._panel()
        described = {k: v for k, v in vars(self.settings).items() if k != "output"}
        described["budget"] = str(self.settings.budget)
        return {
            "environment": environment(self.device),
            "settings": {**described, "dataset": self.dataset, "images": self.num_images},
            "models": [self._described(c, latency) for c in self.contenders],
        }

    def _described(self, c: Contender, latency: dict[str, dict[str, float]]) -> dict[str, Any]:
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
                    "latency": latency[c.title(steps)],
                    "results": self._quality(c, steps),
                }
                for steps in c.steps
            ],
        }

    def _train(self, contender: Contender, seed: int) -> dict[str, Any]:
        """Train all stages with one seed, or continue, or read what was done before.

        Gives ``weights``, ``opts`` to build the model with, the records of all ``stages``, and the
        ``curve`` with the ``seconds`` of all stages so far.
        """
        s, folder = self.settings, self.settings.output / f"seed{seed}"
        opts, received, stages, spent = [*contender.opts, "SEED", seed], [], [], 0.0
        images = ("TEST.MAX_IMAGES", self.num_images)
        for number, stage in enumerate(contender.stages, start=1):
            path = folder / f"{contender.folder}.stage{number}"
            run = Run(path, stage.config_file, (*opts, *images), s.budget, stage.share)
            # Its result is the ceiling of what follows.
            stages.append(do_run(run, evaluate=evaluate))
            spent += stages[-1]["seconds"]
            # The model receives them, and no other stage does.
            received += [stage.key, stages[-1]["weights"]]
        opts += received
        share = 1 - sum(stage.share for stage in contender.stages)
        # All pictures come later, at several numbers of steps.
        images = ("TEST.MAX_IMAGES", min(CURVE_IMAGES, self.num_images))
        path = folder / contender.folder
        run = Run(path, contender.config_file, (*opts, *images), s.budget, share, spent)
        record = do_run(run, evaluate=evaluate, points=s.curve_points)
        each = record["seconds"] / record["iterations"]
        return {
            "seed": seed,
            "weights": record["weights"],
            "opts": opts,
            "stages": [*stages, record],
            "curve": [
                {"iteration": int(done), "seconds": spent + each * int(done), "results": results}
                for done, results in sorted(record["curve"].items(), key=lambda item: int(item[0]))
            ],
            "seconds": spent + record["seconds"],
        }

    def _cfg(self, contender: Contender, index: int, steps: int = 0) -> CfgNode:
        """Of a trained model: the seed's index, and a number of steps unless it is its own."""
        training = self.trained[contender.name][index]
        opts = [*training["opts"], "MODEL.WEIGHTS", training["weights"]]
        opts += ["TEST.MAX_IMAGES", self.num_images, "DATALOADER.NUM_WORKERS", 0]
        opts += [SAMPLER_STEPS, steps] if steps else []
        return load_config(contender.config_file, opts)

    def _quality(self, contender: Contender, steps: int) -> list[dict[str, Any]]:
        """The evaluation of every seed."""
        found = []
        for index, training in enumerate(self.trained[contender.name]):
            cfg = self._cfg(contender, index, steps)
            folder = self.settings.output / f"seed{training['seed']}" / contender.folder
            name = f"quality_{steps}_steps.json" if steps else "quality.json"
            weights = Path(training["weights"])
            changed = weights.stat().st_mtime_ns if weights.is_file() else 0
            settings = {**_evaluated(cfg), "changed": changed}
            measure = partial(_load_and_evaluate, cfg)
            found.append(once(folder / name, settings, measure))
        return found

    def _demo(self, contender: Contender) -> Demo:
        """The model of the first seed, kept."""
        if contender.name not in self._demos:
            self._demos[contender.name] = Demo(self._cfg(contender, 0))
        return self._demos[contender.name]

    def _costs(self, contender: Contender) -> dict[str, Any]:
        """Parameters, operations at each number of steps, peak memory."""
        memory = self.settings.side_by_side

        def measure() -> dict[str, Any]:
            demo, gflops = self._demo(contender), {}
            inputs = demo.load(self.records[0])["inputs"]
            for steps in contender.steps:
                _set_steps(demo.model, steps)
                gflops[steps] = picture_flops(demo.model, inputs) / 1e9
            opts = self.trained[contender.name][0]["opts"]
            return {
                "parameters": sum(p.numel() for p in demo.model.parameters()),
                "gflops": gflops,
                "memory": peak_memory(contender.config_file, opts) if memory else None,
            }

        depends = {"steps": contender.steps, "memory": memory}
        path = self.settings.output / "costs" / f"{contender.folder}.json"
        return once(path, {**_evaluated(self._cfg(contender, 0)), **depends}, measure)

    def _latency(self) -> dict[str, dict[str, float]]:
        """Of every model at each of its numbers of steps, all in turn."""
        s = self.settings

        def measure() -> dict[str, dict[str, float]]:
            calls = {}
            for c in self.contenders:
                demo = self._demo(c)
                inputs = [demo.load(record)["inputs"] for record in self.records[: s.rounds]]
                for steps in c.steps:
                    calls[c.title(steps)] = partial(_segment_one, demo.model, inputs, steps)
            clock = clock_of(self.device)
            return summarize(interleave(calls, rounds=s.rounds, warm_up=WARM_UP, clock=clock))

        machine = environment(self.device)
        settings = {
            "weights": {c.name: self.trained[c.name][0]["weights"] for c in self.contenders},
            "steps": {c.name: c.steps for c in self.contenders},
            **{key: machine[key] for key in ("device", "threads")},
            "rounds": s.rounds,
        }
        return once(s.output / "latency.json", settings, measure)

    def _panel(self) -> None:
        """OUTPUT/panel.png: the same photos, from all over the test set, through every model."""
        number = min(PANEL_PHOTOS, len(self.records))
        chosen = self.records[:: len(self.records) // number][:number]
        models = {}
        for c in self.contenders:
            demo = self._demo(c)
            models[c.title(c.own_steps)] = (demo, partial(_set_steps, demo.model, c.own_steps))
        draw_panel(models, chosen, self.settings.output / "panel.png")


@torch.no_grad()
def _segment_one(model: nn.Module, inputs: list[dict[str, Any]], steps: int, number: int) -> None:
    _set_steps(model, steps)
    model([inputs[number % len(inputs)]])


def _set_steps(model: nn.Module, steps: int) -> None:
    if steps:
        model.num_inference_steps = steps


def _evaluated(cfg: CfgNode) -> dict[str, Any]:
    """What an evaluation depends on: how the model was trained is compared in its own folder."""
    return {k: v for k, v in flat_settings(cfg).items() if not k.startswith("SOLVER.")}


def _load_and_evaluate(cfg: CfgNode) -> dict[str, Any]:
    return evaluate(cfg, Demo(cfg).model)
