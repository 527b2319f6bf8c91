"""A study of mask inpainting: every pattern, drop rate and method on one model, and calibration."""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from ..diffusion import INPAINTING_METHODS
from ..inpainting import consensus
from ..inpainting.given_parts import CELL_RULES
from .calibration import Calibration, calibration_table, mean_quality
from .inpainting import (
    BASELINES,
    Hints,
    Picture,
    complete,
    draw_hints,
    partition_quality,
    run_combination,
)
from .inpainting_report import draw_panel, plot_calibration, plot_results, results_table, statement

logger = logging.getLogger(__name__)

NUM_PANEL = 6
CAPTION = (
    "Class-agnostic PQ of the completed mask; in brackets PQ and mIoU on the dropped region alone."
)
# What results must share to stand in one table.
SAME_RUN = ("config_file", "weights", "dataset", "pictures", "seed", "block_size", "opts")


class InpaintingStudy:
    """The model, the pictures and the file of results."""

    def __init__(
        self,
        model: nn.Module,
        pictures: Sequence[Picture],
        *,
        output: str,
        run: dict[str, Any],
        resume: bool = False,
        block_size: int = 16,
        seed: int = 0,
        batch_size: int = 16,
    ) -> None:
        """
        Args:
            model: in eval mode; its attribute ``inpainting``
                (:class:`~ldmseg_d2.meta_arch.inpainting.InpaintingOptions`) is set for each method.
            pictures: of the data set.
            output: folder that everything is written to.
            run: what the numbers depend on, for the record; see ``SAME_RUN`` and
                :func:`~ldmseg_d2.evaluation.inpainting_report.statement`.
            resume: keep the results that ``output`` has.
            block_size: of the pattern "block", pixels.
            seed: of patterns, names and, in calibration, of the first mask.
            batch_size: pictures that the model gets at once; no number depends on it.

        Raises:
            ValueError: the model completes no masks; ``output`` has results of another run.
        """
        if not hasattr(model, "inpainting"):
            raise ValueError(
                f"MODEL.META_ARCHITECTURE {type(model).__name__} completes no masks: only a "
                "diffusion model such as LDMSeg does"
            )
        self.model = model
        self.pictures = list(pictures)
        self.output = output
        self.run = run
        self.block_size = block_size
        self.seed = seed
        self.batch_size = batch_size
        self.path = os.path.join(output, "results.json")
        self.results = self._read() if resume else []

    def evaluate(
        self,
        *,
        patterns: Sequence[str],
        drops: Sequence[float],
        methods: Sequence[str],
        baselines: Sequence[str] = BASELINES,
    ) -> None:
        """Run all combinations that have no result yet; each is saved when it is done.

        Args:
            patterns: names of ``PATTERNS``.
            drops: shares in [0, 1].
            methods: see :func:`split_method`.
            baselines: some of ``BASELINES``.
        """
        done = {(r["pattern"], r["drop"], r["method"]) for r in self.results}
        left = [
            (pattern, drop, method)
            for pattern in patterns
            for drop in drops
            for method in (*baselines, *methods)
            if (pattern, drop, method) not in done
        ]
        without_hints: list[np.ndarray] = []
        if any(method == "no_hints" for _, _, method in left):
            bar = tqdm(self._complete(self.pictures), "no hints", len(self.pictures))
            without_hints = list(bar)
        with tqdm(total=len(left) * len(self.pictures), unit="picture") as bar:
            for pattern, drop, method in left:
                bar.set_description(f"{pattern} {100 * drop:g} % {method}")
                self._set_method(method)
                numbers = run_combination(
                    method,
                    self.pictures,
                    self._hints(pattern, drop, self.pictures),
                    self._segment,
                    batch_size=self.batch_size,
                    without_hints=without_hints,
                    progress=bar.update,
                )
                self.results.append({"pattern": pattern, "drop": drop, "method": method, **numbers})
                write_json(self.path, {"run": self.run, "results": self.results})

    def report(self, *, panel_method: str | None, panel_drop: float = 0.5) -> str:
        """Write tables, the plot and, for a method, pictures of each pattern.

        Args:
            panel_method: see :func:`split_method`; None: no pictures.
            panel_drop: share that is dropped in them.

        Returns:
            The tables.
        """
        text = f"{CAPTION}\n\n{results_table(self.results)}\n{statement(self.run)}\n"
        self._write("results.md", text)
        if self.results:
            self._write("results.png", plot_results(self.results))
        if panel_method is not None:
            self._set_method(panel_method)
            # Of a video's frames, one after the other looks the same.
            step = max(1, len(self.pictures) // NUM_PANEL)
            shown = self.pictures[::step][:NUM_PANEL]
            for pattern in dict.fromkeys(r["pattern"] for r in self.results):
                hints = self._hints(pattern, panel_drop, shown)
                panel = draw_panel(shown, hints, list(self._complete(shown, hints)))
                self._write(f"panel_{pattern}.png", panel)
        return text

    def calibrate(self, num_samples: int) -> str:
        """Disagreement of K masks a picture, without hints, against the error of their consensus.

        Args:
            num_samples: K >= 2.

        Returns:
            The table.
        """
        if num_samples < 2:
            raise ValueError(f"{num_samples} masks cannot disagree: give at least 2 samples")
        truths = [(picture.truth, picture.num_segments) for picture in self.pictures]
        draws = []
        for k in range(num_samples):
            drawn = self._complete(self.pictures, seed=self.seed + k)
            draws.append(list(tqdm(drawn, f"mask {k + 1}/{num_samples}", len(self.pictures))))
        calibration, agreed = Calibration(num_samples), []
        min_area = self.run["thresholds"]["COUNT_THRESHOLD"]
        for (truth, num_segments), *maps in zip(truths, *draws):
            samples = [(torch.from_numpy(one), []) for one in maps]
            ids, _, disagreement = consensus(samples, min_area=min_area)
            agreed.append(ids.numpy().astype(np.int64))
            calibration.add(truth, num_segments, agreed[-1], disagreement.numpy())
        single = [partition_quality([(*t, o) for t, o in zip(truths, draw)]) for draw in draws]
        summary = {
            "num_samples": num_samples,
            "single": mean_quality(single),
            "consensus": partition_quality([(*t, o) for t, o in zip(truths, agreed)]),
            **calibration.summary(),
        }
        path = os.path.join(self.output, "calibration.json")
        write_json(path, {"run": self.run, "calibration": summary})
        text = (
            f"{num_samples} masks a picture: PQ {summary['single']['PQ']:.1f} on average, "
            f"{summary['consensus']['PQ']:.1f} for their consensus.\n\n"
            f"{calibration_table(summary)}\n\n{statement(self.run)}\n"
        )
        self._write("calibration.md", text)
        self._write("calibration.png", plot_calibration(summary))
        return text

    def _segment(self, inputs: list[dict]) -> list[dict]:
        with torch.no_grad():
            return self.model(inputs)

    def _complete(
        self,
        pictures: Sequence[Picture],
        hints: Sequence[Hints] | None = None,
        seed: int | None = None,
    ) -> Iterator[np.ndarray]:
        return complete(pictures, hints, self._segment, batch_size=self.batch_size, seed=seed)

    def _hints(self, pattern: str, drop: float, pictures: Sequence[Picture]) -> list[Hints]:
        options = {"block_size": self.block_size} if pattern == "block" else {}
        return [draw_hints(one, pattern, drop, self.seed, **options) for one in pictures]

    def _set_method(self, method: str) -> None:
        if method not in BASELINES:
            name, rule = split_method(method)
            self.model.inpainting = self.model.inpainting._replace(method=name, cell_rule=rule)

    def _write(self, name: str, content: str | np.ndarray) -> None:
        path = os.path.join(self.output, name)
        if isinstance(content, str):
            with open(path, "w", encoding="utf-8") as f:
                f.write(content)
        else:
            Image.fromarray(content).save(path)

    def _read(self) -> list[dict[str, Any]]:
        if not os.path.isfile(self.path):
            return []
        with open(self.path, encoding="utf-8") as f:
            content = json.load(f)
        for key in SAME_RUN:
            if content["run"].get(key) != self.run.get(key):
                raise ValueError(
                    f"{self.path} was made with {key} {content['run'].get(key)!r}, this run has "
                    f"{self.run.get(key)!r}: choose another --output, or leave out --resume"
                )
        return content["results"]


def split_method(method: str) -> tuple[str, str]:
    """("fixed", "any") of "fixed:any"; the rule for cells is "all" where none stands.

    Raises:
        ValueError: unknown method or rule.
    """
    name, _, rule = method.partition(":")
    if name not in INPAINTING_METHODS or (rule or "all") not in CELL_RULES:
        raise ValueError(
            f"unknown method {method!r}; allowed: {', '.join(INPAINTING_METHODS)}, and each "
            f"followed by :{' or :'.join(CELL_RULES)}"
        )
    return name, rule or "all"


def write_json(path: str, content: dict[str, Any]) -> None:
    """Replace a file at once, so that an interruption leaves the old one."""
    with open(f"{path}.tmp", "w", encoding="utf-8") as f:
        json.dump(content, f, indent=1)
    os.replace(f"{path}.tmp", path)
