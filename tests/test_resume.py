"""Trainings that are killed anywhere and resumed end as if nothing had happened: tools/train_net.py
in processes of its own, with the real model and data, on the CPU."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from same_content import assert_same_content
from tiny import LDMSEG, tiny_config

from ldmseg_d2.data.datasets.scenes import write_scenes

ROOT = Path(__file__).resolve().parents[1]
# Enough that a fast machine does not end a training before it is killed.
MAX_ITER = 120
PATIENCE = 1200  # seconds: a bound for hangs, not for slow machines


class Training:
    """A config, an output folder, and the processes that train there one after the other."""

    def __init__(self, root: Path, name: str, *opts: object) -> None:
        self.root, self.folder = root, root / name
        cfg = tiny_config(
            LDMSEG,
            "DATASETS.TEST", (),
            "DATALOADER.NUM_WORKERS", 0,
            "SOLVER.IMS_PER_BATCH", 2,
            "SOLVER.MAX_ITER", MAX_ITER,
            "SOLVER.CHECKPOINT_PERIOD", 3,
            "SOLVER.WARMUP_ITERS", 5,
            "VIS_PERIOD", 0,
            "MODEL.LDMSEG.ID_ASSIGNMENT", "random",
            "MODEL.LDMSEG.DIFFUSION.SELF_CONDITIONING", True,
            "OUTPUT_DIR", str(self.folder),
        )  # fmt: skip
        cfg.merge_from_list(list(opts))
        self.config = root / f"{name}.yaml"
        self.config.write_text(cfg.dump())

    def start(self, *args: object) -> subprocess.Popen:
        command = [sys.executable, ROOT / "tools" / "train_net.py", "--config-file", self.config]
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {
            **os.environ, "DETECTRON2_DATASETS": str(self.root), "PYTHONPATH": paths,
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        return subprocess.Popen(
            [str(part) for part in (*command, "--resume", *args)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # A process group of its own, to kill workers and all.
            start_new_session=True,
        )

    def finish(self, *args: object) -> dict:
        process = self.start(*args)
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors[-3000:]
        return torch.load(self.folder / "model_final.pth", weights_only=True)

    def kill(self, kind: signal.Signals, iteration: int, *args: object) -> None:
        """Train, and end all of it at some moment after a checkpoint of `iteration` or later."""
        process = self.start(*args)
        deadline = time.monotonic() + PATIENCE
        try:
            while self.last_iteration() < iteration:
                assert process.poll() is None, process.stderr.read()[-3000:]
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(0.1 * random.random())
            if kind == signal.SIGTERM:
                process.send_signal(kind)  # the first process alone: the others must follow it
                while _is_alive(process):
                    assert time.monotonic() < deadline, "processes were left behind"
                    time.sleep(0.05)
        finally:
            if _is_alive(process):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        assert not (self.folder / "model_final.pth").exists(), "it ended before it was killed"

    def last_iteration(self) -> int:
        path = self.folder / "last_checkpoint"
        name = path.read_text() if path.exists() else "model_-1.pth"
        return int(name.removeprefix("model_").removesuffix(".pth"))


def _is_alive(process: subprocess.Popen) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def root(tmp_path):
    write_scenes(tmp_path / "scenes", "train", num_images=5, size=64, seed=0)
    return tmp_path


@pytest.mark.slow
def test_killed_and_resumed_is_bit_identical(root):
    """SIGTERM, SIGKILL, and a newest checkpoint that is cut short: the one before it is taken."""
    straight = Training(root, "straight").finish()
    killed = Training(root, "killed", "DATALOADER.NUM_WORKERS", 1)
    killed.kill(signal.SIGTERM, 5)
    killed.kill(signal.SIGKILL, 14)
    last = killed.folder / (killed.folder / "last_checkpoint").read_text()
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    assert_same_content(straight, killed.finish())
    log = (killed.folder / "log.txt").read_text()
    assert f"{last.name!r} cannot be read" in log.replace(f"{killed.folder}/", "")
    assert "Passing over a checkpoint" in log


@pytest.mark.slow
def test_two_processes_killed_and_resumed_are_bit_identical(root):
    """The straight run without ZeRO, the others go on with it: it changes no number."""
    straight = Training(root, "straight").finish("--num-gpus", 2)
    killed = Training(root, "killed")
    killed.kill(signal.SIGTERM, 5, "--num-gpus", 2)
    zero = ("--num-gpus", 2, "SOLVER.ZERO", True)
    killed.kill(signal.SIGKILL, 14, *zero)
    assert_same_content(straight, killed.finish(*zero))
