"""A batch gives the same training however it is split over processes and micro-batches."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm
from tiny import LDMSEG, tiny_config
from tiny_model import run_trainer
from tiny_model import tiny_config as tiny_net_config

from ldmseg_d2.data import register_all
from ldmseg_d2.data.datasets.scenes import write_scenes
from ldmseg_d2.engine import Trainer, launch

# (name, processes, accumulation steps); the batch of a step is 4 in all.
SPLITS = [("one", 1, 1), ("two_processes", 2, 1), ("two_steps", 1, 2)]


def train(root: str, name: str, steps: int) -> None:
    """Run in every process: a small LDMSeg with everything random in training that it can have."""
    register_all(root)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    cfg = tiny_config(
        LDMSEG,
        "DATASETS.TEST", (),
        "DATALOADER.NUM_WORKERS", 0,
        "SOLVER.IMS_PER_BATCH", 4,
        "SOLVER.ACCUMULATION_STEPS", steps,
        "SOLVER.MAX_ITER", 5,
        "SOLVER.WARMUP_ITERS", 0,
        "VIS_PERIOD", 0,
        "MODEL.LDMSEG.ID_ASSIGNMENT", "random",
        "MODEL.LDMSEG.DIFFUSION.SELF_CONDITIONING", True,
        "MODEL.LDMSEG.DIFFUSION.MASKED_LOSS", False,
        "OUTPUT_DIR", str(Path(root) / name),
    )  # fmt: skip
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    if trainer.checkpointer.save_to_disk:
        losses = [value for value, _ in trainer.storage.history("total_loss").values()]
        (Path(root) / f"{name}.json").write_text(json.dumps(losses))
    # Running statistics are the same in all processes.
    tiny = run_trainer(tiny_net_config(Path(root) / f"tiny_{name}"))
    found = comm.all_gather(tiny.unwrapped_model.running_mean)
    assert all(torch.equal(statistics, found[0]) for statistics in found)


@pytest.mark.slow
def test_processes_and_micro_batches_give_the_same_training(tmp_path, catalogs):
    write_scenes(tmp_path / "scenes", "train", num_images=6, size=64, seed=0)
    for name, processes, steps in SPLITS:
        launch(train, processes, device="cpu", args=(str(tmp_path), name, steps))
    losses = [json.loads((tmp_path / f"{name}.json").read_text()) for name, *_ in SPLITS]
    final = [
        torch.load(tmp_path / name / "model_final.pth", weights_only=True) for name, *_ in SPLITS
    ]
    assert len(losses[0]) == 5
    for other_losses, other in zip(losses[1:], final[1:]):
        assert other_losses == pytest.approx(losses[0], rel=1e-4)
        ours, theirs = final[0]["ema"]["model"], other["ema"]["model"]
        assert ours.keys() == theirs.keys()
        for key in ours:
            # Adam moves a weight whose gradient is nearly 0 by a whole step either way, as the
            # order of a sum has it: a single one in a thousand, and by no more than two steps.
            close = torch.isclose(theirs[key], ours[key], rtol=2e-3, atol=2e-4)
            assert close.float().mean() > 0.999, key
            torch.testing.assert_close(theirs[key], ours[key], rtol=2e-3, atol=4e-3, msg=key)


def test_accumulation_is_one_step_of_the_whole_batch(tmp_path):
    """TinyNet without noise: its losses are means over samples."""
    options = [(), ("SOLVER.ACCUMULATION_STEPS", 2)]
    trainers = [
        run_trainer(tiny_net_config(tmp_path / str(i), *opts, noise=False))
        for i, opts in enumerate(options)
    ]
    losses = [[value for value, _ in t.storage.history("loss_l2").values()] for t in trainers]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for ours, theirs in zip(*(t.unwrapped_model.parameters() for t in trainers)):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="4 samples cannot be divided into SOLVER.ACCUMULATION"):
        run_trainer(tiny_net_config(tmp_path / "three", "SOLVER.ACCUMULATION_STEPS", 3))


def test_another_number_of_processes_is_scaled_as_in_detectron2(tmp_path):
    """SOLVER.REFERENCE_WORLD_SIZE: a process keeps its pictures, a single one trains longer."""
    reference = ("SOLVER.REFERENCE_WORLD_SIZE", 2, "SOLVER.WARMUP_ITERS", 0)
    trainer = run_trainer(tiny_net_config(tmp_path, *reference))
    assert trainer.cfg.SOLVER.IMS_PER_BATCH == len(trainer.batch) == 2
    assert trainer.iter == trainer.max_iter == 12
    assert trainer.cfg.SOLVER.BASE_LR == 0.005
