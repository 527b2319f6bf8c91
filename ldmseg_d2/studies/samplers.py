"""Samplers, steps and timestep spacings on one trained model: what they reach and cost."""

import json
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator
from torch import Tensor, nn
from tqdm import tqdm

from ldmseg_d2.data import build_test_loader
from ldmseg_d2.diffusion import network_passes
from ldmseg_d2.engine.reporting import write_results
from ldmseg_d2.evaluation import EVALUATORS
from ldmseg_d2.meta_arch.batching import stack_images
from ldmseg_d2.meta_arch.build import build_noise_scheduler
from ldmseg_d2.meta_arch.generation import generate

from .tasks import METRICS

logger = logging.getLogger(__name__)

STEPS = (1, 2, 4, 10, 20, 50)
# Of the evaluators that fit the model and the data set.
MEASURED = METRICS[:3]
# Latencies are given in units of this one's.
REFERENCE = ("DDIM", 1, "trailing")
# What results must share to stand in one table.
SAME_RUN = ("config_file", "weights", "dataset", "images", "opts")

# Inputs of a batch, and the condition of their photos.
Batch = tuple[list[dict], Tensor]


@dataclass(frozen=True, order=True)
class Combination:
    """A line of the study; values of MODEL.LDMSEG.SAMPLER's NAME, NUM_INFERENCE_STEPS, SPACING."""

    sampler: str
    steps: int
    spacing: str

    @property
    def passes(self) -> int:
        """Of the denoiser, for one picture of a joint model or of one task."""
        return network_passes(self.sampler, self.steps)


def use_sampler(cfg: CfgNode, model: nn.Module, combination: Combination) -> None:
    """Let a model sample in this way from now on.

    Args:
        cfg: the model's; not changed.
        model: LDMSeg.
        combination: what differs from ``cfg``.

    Raises:
        ValueError: the sampler does not have that spacing, or that noise schedule.
    """
    model.scheduler = build_noise_scheduler(_with_sampler(cfg, combination))
    model.num_inference_steps = combination.steps


def combinations(
    cfg: CfgNode, samplers: Iterable[str], steps: Iterable[int], spacings: Iterable[str]
) -> list[Combination]:
    """All that exist: "LCM" has a single spacing, "Heun" no zero terminal SNR."""
    steps, spacings = list(steps), list(spacings)
    found = []
    for sampler in samplers:
        for spacing in spacings:
            try:
                build_noise_scheduler(_with_sampler(cfg, Combination(sampler, 1, spacing)))
            except ValueError as error:
                logger.info("Left out: %s with %s spacing. %s", sampler, spacing, error)
                continue
            found += [Combination(sampler, number, spacing) for number in steps]
    return found


class SamplerStudy:
    """The model, the encoded pictures and the file of results."""

    def __init__(
        self, cfg: CfgNode, model: nn.Module, *, output: str | Path, run: dict[str, Any]
    ) -> None:
        """
        Args:
            cfg: of the model and of the test loader, with one data set to test on.
            model: LDMSeg with its weights, in eval mode.
            output: folder; what its results.json has is kept.
            run: what the numbers depend on, with the keys of ``SAME_RUN``.

        Raises:
            ValueError: another model, no or several data sets, results of another run.
        """
        if cfg.MODEL.META_ARCHITECTURE != "LDMSeg":
            raise ValueError(
                f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE!r}: only LDMSeg samples"
            )
        if len(cfg.DATASETS.TEST) != 1:
            raise ValueError(
                f"DATASETS.TEST is {cfg.DATASETS.TEST}: a study evaluates on exactly one data set"
            )
        self.cfg = cfg
        self.model = model
        self.path = Path(output, "results.json")
        self.run = run
        self.records: list[dict[str, Any]] = []
        self.latency: list[dict[str, Any]] = []
        if self.path.is_file():
            self._read()
        self._batches: list[Batch] = []

    def evaluate(self, wanted: Sequence[Combination], seeds: Sequence[int]) -> None:
        """Measure what has not been measured before; each result is saved at once.

        Args:
            wanted: the combinations.
            seeds: of the noise.
        """
        done = {(_combination(r), r["seed"]) for r in self.records}
        left = [(one, seed) for seed in seeds for one in wanted if (one, seed) not in done]
        with tqdm(total=sum(one.passes for one, _ in left), unit="pass") as bar:
            for one, seed in left:
                bar.set_description(f"{one.sampler} {one.steps} {one.spacing}, seed {seed}")
                results = self._results(one, seed)
                self.records.append({**asdict(one), "seed": seed, "results": results})
                self._write()
                bar.update(one.passes)

    def measure_latency(self, wanted: Sequence[Combination], rounds: int) -> None:
        """Time whole calls of the model on one picture, once per number of steps and sampler.

        All are timed in turn, and again, so that what slows the machine slows all of them; a
        ratio compares two calls of the same round. Combinations that differ by their spacing
        alone cost the same: the first of them is timed.

        Args:
            wanted: the combinations.
            rounds: calls of each; 0: no latencies.
        """
        first = {REFERENCE[:2]: Combination(*REFERENCE)}
        for one in wanted:
            first.setdefault((one.sampler, one.steps), one)
        chosen = list(first.values())
        if rounds < 1 or {_combination(one) for one in self.latency} >= set(chosen):
            return
        pictures = [entry for entries, _ in self._encoded() for entry in entries]
        seconds: dict[Combination, list[float]] = {one: [] for one in chosen}
        for index in tqdm(range(-1, rounds), "latency", unit="round"):
            for one in chosen:
                use_sampler(self.cfg, self.model, one)
                start = self._now()
                with torch.no_grad():
                    self.model([pictures[index % len(pictures)]])
                if index >= 0:  # the first round warms up
                    seconds[one].append(self._now() - start)
        unit = seconds[Combination(*REFERENCE)]
        self.latency = [
            {
                **asdict(one),
                "seconds": median(times),
                "ratio": median(a / b for a, b in zip(times, unit, strict=True)),
                "rounds": rounds,
            }
            for one, times in seconds.items()
        ]
        self._write()

    @property
    def num_images(self) -> int:
        """Pictures that each number is measured on."""
        return sum(len(entries) for entries, _ in self._encoded())

    def _results(self, combination: Combination, seed: int) -> dict[str, dict[str, float]]:
        use_sampler(self.cfg, self.model, combination)
        evaluators = self._evaluators()
        for entries, condition in self._encoded():
            seeded = [{**entry, "seed": seed} for entry in entries]
            outputs = generate(self.model, seeded, condition)
            for evaluator in evaluators:
                evaluator.process(entries, outputs)
        found: dict[str, Any] = {}
        for evaluator in evaluators:
            found.update(evaluator.evaluate())
        kept = [metric.key for metric in MEASURED if metric.key[0] in found]
        return {key: {name: float(found[key][name])} for key, name in kept}

    def _evaluators(self) -> list[DatasetEvaluator]:
        name = self.cfg.DATASETS.TEST[0]
        built = [EVALUATORS[metric.key[0]](self.cfg, name, None) for metric in MEASURED]
        found = [evaluator for evaluator in built if evaluator is not None]
        if not found:
            raise ValueError(
                f"nothing to measure: MODEL.LDMSEG.TASKS {list(self.cfg.MODEL.LDMSEG.TASKS)} on "
                f"{name!r} give neither segments nor classes"
            )
        for evaluator in found:
            evaluator.reset()
        return found

    @torch.no_grad()
    def _encoded(self) -> list[Batch]:
        """The pictures; their condition does not depend on the sampler."""
        if not self._batches:
            model = self.model
            for entries in build_test_loader(self.cfg, self.cfg.DATASETS.TEST[0]):
                images = stack_images(
                    entries,
                    model.image_size,
                    model.pixel_mean,
                    model.pixel_std,
                    padding=model.padding,
                )
                self._batches.append((entries, model.encode_images(images)))
        return self._batches

    def _now(self) -> float:
        """Seconds: CPU time on a CPU, which other programs hardly change, else wall time."""
        if self.model.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def _read(self) -> None:
        there = json.loads(self.path.read_text())
        for key in SAME_RUN:
            if there["run"].get(key) != self.run.get(key):
                raise ValueError(
                    f"{self.path} holds results of another run: {key} is {there['run'].get(key)!r} "
                    f"there and {self.run.get(key)!r} here. Choose another --output, or delete it"
                )
        self.records, self.latency = there["records"], there["latency"]

    def _write(self) -> None:
        content = {"run": self.run, "records": self.records, "latency": self.latency}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_results(self.path, content)


def _with_sampler(cfg: CfgNode, combination: Combination) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    sampler = cfg.MODEL.LDMSEG.SAMPLER
    sampler.NAME, sampler.NUM_INFERENCE_STEPS = combination.sampler, combination.steps
    sampler.TIMESTEP_SPACING = combination.spacing
    return cfg


def _combination(record: dict[str, Any]) -> Combination:
    return Combination(record["sampler"], record["steps"], record["spacing"])
