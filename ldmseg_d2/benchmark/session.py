"""The benchmark from end to end; every phase of every model is done once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode

from ldmseg_d2.data import load_dataset_dicts
from ldmseg_d2.engine import load_config
from ldmseg_d2.engine.demo import Demo
from ldmseg_d2.studies.runs import flat_settings

from .budget import Budget
from .contenders import SAMPLER_STEPS, Contender
from .costs import (
    best_throughput,
    clocks,
    count_parameters,
    interleave,
    peak_memory,
    picture_flops,
    summarize,
)
from .plots import draw_panel
from .quality import evaluate
from .records import environment, once
from .training import train_contender

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Settings:
    """How the models are measured.

    Attributes:
        output: folder of all that is written.
        budget: of each training.
        seeds: each model is trained with every one.
        images: pictures of the evaluation; 0: all.
        curve_points, curve_images: see :func:`ldmseg_d2.benchmark.training.train_contender`.
        rounds, warm_up: of the latencies, see :func:`ldmseg_d2.benchmark.costs.interleave`.
        precision: of latency and throughput; all else is as the configs say.
        panel_photos: rows of the panel.
    """

    output: Path
    budget: Budget
    seeds: tuple[int, ...] = (0,)
    images: int = 0
    curve_points: int = 4
    curve_images: int = 100
    rounds: int = 30
    warm_up: int = 3
    precision: str = "float32"
    panel_photos: int = 4


class Session:
    """Trains, evaluates and measures; see :meth:`run`."""

    def __init__(self, contenders: Sequence[Contender], settings: Settings) -> None:
        """
        Args:
            contenders: in the order of the tables; latencies are compared with the first.
            settings: how they are measured.

        Raises:
            FileNotFoundError, ValueError: the data is not there; the message says how to make it.
        """
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
        """Do what is missing, and write OUTPUT/results.json and OUTPUT/panel.png.

        Returns:
            What results.json holds, but for the command: ``environment``, ``settings`` and, for
            each model, its trainings, its costs and a row for each number of steps.
        """
        self.trained = {c.name: self._train(c) for c in self.contenders}
        quality = {c.name: [self._quality(c, s) for s in c.steps] for c in self.contenders}
        costs = {c.name: self._costs(c) for c in self.contenders}
        latency = self._latency()
        throughput = {c.name: self._throughput(c) for c in self.contenders}
        self._panel()
        models = []
        for c in self.contenders:
            rows = [
                {
                    "title": c.title(steps),
                    "steps": steps,
                    "own": steps == c.own_steps,
                    "gflops": costs[c.name]["gflops"][str(steps)],
                    "latency": latency[c.title(steps)],
                    "results": results,
                }
                for steps, results in zip(c.steps, quality[c.name], strict=True)
            ]
            models.append(
                {
                    "name": c.name,
                    "config_file": c.config_file,
                    "overrides": list(c.opts),
                    "meta_architecture": self.cfgs[c.name].MODEL.META_ARCHITECTURE,
                    "thresholds": self._thresholds(c),
                    "trainings": self.trained[c.name],
                    **{k: v for k, v in costs[c.name].items() if k != "gflops"},
                    "throughput": throughput[c.name],
                    "rows": rows,
                }
            )
        return {
            "environment": environment(self.device),
            "settings": self._described(),
            "models": models,
        }

    def _described(self) -> dict[str, Any]:
        kept = {k: v for k, v in vars(self.settings).items() if k != "output"}
        own = {"budget": str(self.settings.budget), "dataset": self.dataset}
        return {**kept, **own, "images": self.num_images}

    def _thresholds(self, contender: Contender) -> str:
        if not contender.samples:
            return ""
        post = self.cfgs[contender.name].MODEL.LDMSEG.POSTPROCESS
        return ", ".join(f"{key} {value}" for key, value in sorted(post.items()))

    def _train(self, contender: Contender) -> list[dict[str, Any]]:
        """A record for each seed; of given weights a single one, without a training."""
        if contender.weights:
            seed = self.settings.seeds[0]
            given = {"weights": contender.weights, "opts": [*contender.opts, "SEED", seed]}
            return [{**given, "seed": seed, "stages": [], "curve": [], "seconds": None}]
        s = self.settings
        trained = []
        for seed in s.seeds:
            record = train_contender(
                contender,
                s.output,
                budget=s.budget,
                seed=seed,
                curve_points=s.curve_points,
                curve_images=min(s.curve_images, self.num_images),
            )
            trained.append({"seed": seed, **record})
        return trained

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
            folder = Path("given") if contender.weights else Path(f"seed{training['seed']}")
            name = f"quality_{steps}_steps.json" if steps else "quality.json"
            path = self.settings.output / folder / contender.folder / name
            # How it was trained is compared in its own folder.
            settings = {k: v for k, v in flat_settings(cfg).items() if not k.startswith("SOLVER.")}
            if contender.weights and Path(contender.weights).is_file():
                settings["changed"] = Path(contender.weights).stat().st_mtime_ns
            found.append(once(path, settings, lambda cfg=cfg: evaluate(cfg, Demo(cfg).model)))
        return found

    def _first_weights(self, contender: Contender) -> str:
        """Those that costs are measured of."""
        return self.trained[contender.name][0]["weights"]

    def _demo(self, contender: Contender) -> Demo:
        """The model of the first seed, kept."""
        if contender.name not in self._demos:
            self._demos[contender.name] = Demo(self._cfg(contender, 0))
        return self._demos[contender.name]

    def _runner(self, contender: Contender, steps: int) -> Callable[[list[dict[str, Any]]], Any]:
        """Runs the model with that number of steps, in the precision of the timings."""
        model, dtype = self._demo(contender).model, PRECISIONS[self.settings.precision]
        kind = self.device.split(":")[0]

        @torch.no_grad()
        def run(inputs: list[dict[str, Any]]) -> Any:
            if steps:
                model.num_inference_steps = steps
            with torch.autocast(kind, dtype or torch.bfloat16, enabled=dtype is not None):
                return model(inputs)

        return run

    def _inputs(self, contender: Contender, number: int) -> list[dict[str, Any]]:
        """The first pictures of the test set, as the model takes them."""
        demo = self._demo(contender)
        return [demo.load(record)["inputs"] for record in self.records[:number]]

    def _costs(self, contender: Contender) -> dict[str, Any]:
        """Parameters, operations at each number of steps, peak memory."""
        cfg = self._cfg(contender, 0)
        settings = {k: v for k, v in flat_settings(cfg).items() if not k.startswith("SOLVER.")}
        settings["steps"] = contender.steps

        def measure() -> dict[str, Any]:
            (inputs,) = self._inputs(contender, 1)
            model, gflops = self._demo(contender).model, {}
            for steps in contender.steps:
                if steps:
                    model.num_inference_steps = steps
                gflops[steps] = picture_flops(model, inputs) / 1e9
            total, trained = count_parameters(model)
            return {
                "parameters": total,
                "trained_parameters": trained,
                "gflops": gflops,
                "memory": peak_memory(
                    contender.config_file, self.trained[contender.name][0]["opts"]
                ),
            }

        path = self.settings.output / "costs" / f"{contender.folder}.json"
        return once(path, settings, measure, models=self._first_weights(contender))

    def _latency(self) -> dict[str, dict[str, float]]:
        """Of every model at each of its numbers of steps, all in turn."""
        s = self.settings
        entries = {
            c.title(steps): self._first_weights(c) for c in self.contenders for steps in c.steps
        }

        def measure() -> dict[str, dict[str, float]]:
            calls = {}
            for c in self.contenders:
                inputs = self._inputs(c, s.rounds)
                for steps in c.steps:
                    run = self._runner(c, steps)
                    calls[c.title(steps)] = lambda i, run=run, inputs=inputs: run(
                        [inputs[i % len(inputs)]]
                    )
            clock = clocks(self.device)
            seconds = interleave(calls, rounds=s.rounds, warm_up=s.warm_up, clock=clock)
            found = {name: summarize(times) for name, times in seconds.items()}
            reference = next(iter(found.values()))["median_ms"]
            return {k: {**v, "relative": v["median_ms"] / reference} for k, v in found.items()}

        settings = {**self._machine(), "rounds": s.rounds}
        return once(s.output / "latency.json", settings, measure, models=entries)

    def _throughput(self, contender: Contender) -> dict[str, float]:
        """Pictures a second by batch size, at the model's own number of steps."""

        def measure() -> dict[int, float]:
            inputs = self._inputs(contender, 64)
            run = self._runner(contender, contender.own_steps)
            return best_throughput(
                lambda size: run([inputs[i % len(inputs)] for i in range(size)]),
                clock=clocks(self.device),
            )

        settings = {**self._machine(), "steps": contender.own_steps}
        path = self.settings.output / "costs" / f"{contender.folder}.throughput.json"
        return once(path, settings, measure, models=self._first_weights(contender))

    def _machine(self) -> dict[str, Any]:
        found = environment(self.device)
        return {
            "precision": self.settings.precision,
            **{key: found[key] for key in ("device", "threads")},
        }

    def _panel(self) -> None:
        """OUTPUT/panel.png: the same photos, from all over the test set, through every model."""
        if not self.settings.panel_photos:
            return
        number = min(self.settings.panel_photos, len(self.records))
        chosen = self.records[:: len(self.records) // number][:number]
        models = {c.title(c.own_steps): (self._demo(c), c.own_steps) for c in self.contenders}
        draw_panel(models, chosen, self.settings.output / "panel.png")
