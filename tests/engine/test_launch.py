import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from detectron2.utils import comm

from ldmseg_d2.engine import LaunchError, launch


def note_and_fail(folder: str) -> None:
    ranks = comm.all_gather(comm.get_rank())
    text = f"{comm.get_local_rank()} of {comm.get_world_size()}, {ranks}, {dist.get_backend()}"
    text += f", loaders {multiprocessing.get_start_method()}"
    Path(folder, str(comm.get_rank())).write_text(text)
    comm.synchronize()
    if comm.get_rank() == 1:
        raise SystemExit(3)
    comm.synchronize()


def note_alone(folder: str) -> None:
    assert not dist.is_initialized()
    Path(folder, "alone").touch()


def test_one_process_runs_here(tmp_path):
    launch(note_alone, 1, args=(str(tmp_path),))
    assert (tmp_path / "alone").exists()


@pytest.mark.slow
def test_two_processes_on_the_cpu(tmp_path):
    """One that ends with an exit status ends all, with that status."""
    with pytest.raises(SystemExit) as info:
        launch(note_and_fail, 2, device="cpu", args=(str(tmp_path),))
    assert info.value.code == 3
    for rank in (0, 1):
        text = (tmp_path / str(rank)).read_text()
        loaders = multiprocessing.get_start_method()
        assert text == f"{rank} of 2, [0, 1], gloo, loaders {loaders}"


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(LaunchError, match="--num-gpus 2, but this machine has 1"):
        launch(note_alone, 2)
