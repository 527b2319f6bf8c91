"""The ZeRO optimizer: the same training, a checkpoint that any number of processes reads."""

from pathlib import Path

import pytest
import torch
from detectron2.utils import comm
from same_content import assert_same_content
from test_trainer import KilledTrainer
from tiny_model import run_trainer, tiny_config
from torch.distributed.optim import ZeroRedundancyOptimizer

from ldmseg_d2.engine import launch


def train(root: str) -> None:
    """Run in both processes: straight and without ZeRO, then killed and resumed with it."""
    run_trainer(tiny_config(Path(root) / "straight"))
    killed = tiny_config(Path(root) / "killed", "SOLVER.ZERO", True)
    with pytest.raises(KeyboardInterrupt):
        run_trainer(killed, trainer_class=KilledTrainer)
    comm.synchronize()
    trainer = run_trainer(killed, resume=True)
    assert trainer.start_iter == 3
    assert isinstance(trainer.optimizer, ZeroRedundancyOptimizer)
    sizes = comm.all_gather(len(trainer.optimizer.optim.state))
    assert 0 < max(sizes) < sum(sizes) == len(list(trainer.optimizer._all_params))
    assert len(set(comm.all_gather(trainer.optimizer.optim.param_groups[0]["lr"]))) == 1


@pytest.mark.slow
def test_zero_resumes_exactly_and_is_adamw(tmp_path):
    launch(train, 2, device="cpu", args=(str(tmp_path),))
    contents = [
        torch.load(tmp_path / name / "model_final.pth", weights_only=True)
        for name in ("straight", "killed")
    ]
    assert_same_content(
        *({key: content[key] for key in ("model", "ema", "iteration")} for content in contents)
    )
    optimizers = [content["trainer"]["_trainer"]["optimizer"]["state"] for content in contents]
    assert_same_content(*optimizers)
    # A single process goes on from what two have written.
    for name in ("straight", "killed"):
        opts = ("SOLVER.ZERO", True, "SOLVER.MAX_ITER", 8, "SOLVER.WARMUP_ITERS", 0)
        trainer = run_trainer(tiny_config(tmp_path / name, *opts), resume=True)
        assert trainer.start_iter == 6
        assert not isinstance(trainer.optimizer, ZeroRedundancyOptimizer)
    final = [
        torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"]
        for name in ("straight", "killed")
    ]
    assert_same_content(*final)
