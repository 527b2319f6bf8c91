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
MAX_ITER = 50
PATIENCE = 1200  # seconds: a bound for hangs, not for slow machines


class Training:
    """A config, an output folder, and the processes that train there one after the other."""

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.folder, self.config = root, root / name, root / f"{name}.yaml"
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

    def finish(self, process: subprocess.Popen) -> dict:
        try:
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            if _is_alive(process):
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 0, errors[-3000:]
        return torch.load(self.folder / "model_final.pth", weights_only=True)

    def kill(self, kind: signal.Signals, process: subprocess.Popen) -> None:
        """End all of it at some moment after the checkpoint of iteration 5."""
        deadline = time.monotonic() + PATIENCE
        try:
            while not list(self.folder.glob("model_0000005.pth")):
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


def _is_alive(process: subprocess.Popen) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, args, resumed_with",
    [
        # The newest checkpoint is cut short: the one before it is taken.
        (signal.SIGKILL, (), ("DATALOADER.NUM_WORKERS", 1)),
        # ZeRO changes no number.
        (signal.SIGTERM, ("--num-gpus", 2), ("SOLVER.ZERO", True)),
    ],
    ids=["one_process", "two_processes"],
)
def test_killed_and_resumed_is_bit_identical(tmp_path, kind, args, resumed_with):
    write_scenes(tmp_path / "scenes", "train", num_images=5, size=64, seed=0)
    straight, killed = Training(tmp_path, "straight"), Training(tmp_path, "killed")
    undisturbed = straight.start(*args)
    killed.kill(kind, killed.start(*args))
    last = killed.folder / (killed.folder / "last_checkpoint").read_text()
    if kind == signal.SIGKILL:
        last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    resumed = killed.start(*args, *resumed_with)
    assert_same_content(straight.finish(undisturbed), killed.finish(resumed))
    if kind == signal.SIGKILL:
        log = (killed.folder / "log.txt").read_text()
        assert "Passing over a checkpoint" in log and f"{last.name}' cannot be read" in log
