"""How long the iterations of a training take, by the clock that counts on its device."""

import json
import time
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase

TIMES = "seconds.json"


def clock_of(device: str) -> str:
    """ "wall" on a GPU; on a CPU "cpu", since other programs must not decide there."""
    return "wall" if device.startswith("cuda") else "cpu"


def read_seconds(cfg: CfgNode) -> list[float]:
    """Of the iterations of the training in ``OUTPUT_DIR``, by the clock that counts.

    An interrupted training has done some iterations twice, and both times are there.
    """
    return json.loads(Path(cfg.OUTPUT_DIR, TIMES).read_text())[clock_of(cfg.MODEL.DEVICE)]


class StepTimer(HookBase):
    """Keeps every iteration's seconds in a file, also over interruptions."""

    def __init__(self, path: Path, device: str) -> None:
        """
        Args:
            path: of the JSON file: lists of seconds, "cpu" and "wall".
            device: where training runs.
        """
        self._path = path
        self._on_gpu = device.startswith("cuda")
        self._seconds: dict[str, list[float]] = {"cpu": [], "wall": []}
        if path.is_file():
            self._seconds = json.loads(path.read_text())

    def before_step(self) -> None:
        self._start = self._now()

    def after_step(self) -> None:
        for name, start, end in zip(("cpu", "wall"), self._start, self._now(), strict=True):
            self._seconds[name].append(end - start)
        if self.trainer.iter + 1 == self.trainer.max_iter:
            # Before the last checkpoint: with it, nothing more is timed.
            self.after_train()

    def after_train(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._seconds))

    def _now(self) -> tuple[float, float]:
        if self._on_gpu:
            torch.cuda.synchronize()
        return time.process_time(), time.perf_counter()
