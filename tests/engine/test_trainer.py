import json
from pathlib import Path

import pytest
import torch
from same_content import assert_same_content
from tiny_model import DATASET, TinyNet, TinyTrainer, run_trainer, tiny_config

from ldmseg_d2.engine import load_config
from ldmseg_d2.engine.train_step import amp_dtype


class KilledTrainer(TinyTrainer):
    """Stops in iteration 4, after the checkpoint of iteration 2."""

    def run_step(self) -> None:
        if self.iter == 4:
            raise KeyboardInterrupt
        super().run_step()


def test_resume_is_exact(tmp_path):
    """Weights, optimizer, schedule, averaged weights, metrics: as if never stopped."""
    straight = run_trainer(tiny_config(tmp_path / "straight"))
    with pytest.raises(KeyboardInterrupt):
        run_trainer(tiny_config(tmp_path / "resumed"), trainer_class=KilledTrainer)
    last = (tmp_path / "resumed" / "last_checkpoint").read_text()
    assert last == "model_0000002.pth"
    # Another start: all that counts must come from the checkpoint.
    torch.manual_seed(123)
    trainer = TinyTrainer(tiny_config(tmp_path / "resumed"))
    trainer.unwrapped_model.autoencoder.load_state_dict(
        straight.unwrapped_model.autoencoder.state_dict()
    )
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 3
    trainer.train()
    contents = [
        torch.load(tmp_path / name / "model_final.pth", weights_only=True)
        for name in ("straight", "resumed")
    ]
    assert {"model", "ema", "trainer", "iteration"} <= contents[0].keys()
    assert trainer.evaluation_model is trainer.ema.module
    assert contents[0]["ema"]["num_updates"] == 6
    assert contents[0]["trainer"]["_trainer"]["optimizer"]["state"]
    assert_same_content(*contents)
    iterations = [record["iteration"] for record in read_metrics(tmp_path / "resumed")]
    assert iterations == sorted(set(iterations)) and 5 in iterations


def read_metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def test_new_training_starts_anew_and_a_finished_one_only_evaluates(tmp_path):
    run_trainer(tiny_config(tmp_path))
    trainer = TinyTrainer(tiny_config(tmp_path))
    trainer.resume_or_load(resume=False)
    assert trainer.start_iter == 0 and trainer.ema.num_updates == 0
    trainer.resume_or_load(resume=True)
    assert trainer.train()["tiny"]["pixels"] >= 0


def test_results_are_returned_and_written(tmp_path):
    trainer = TinyTrainer(tiny_config(tmp_path, "TEST.EVAL_PERIOD", 4))
    trainer.resume_or_load(resume=False)
    results = trainer.train()
    written = json.loads((tmp_path / "inference" / "results.json").read_text())
    assert written == {DATASET: results}
    evaluated = [r["iteration"] for r in read_metrics(tmp_path) if "tiny/pixels" in r]
    assert evaluated == [3, 6]


def test_trains_without_ema(tmp_path):
    trainer = run_trainer(tiny_config(tmp_path, "MODEL.EMA.ENABLED", False))
    assert trainer.ema is None and trainer.evaluation_model is trainer.unwrapped_model
    assert "ema" not in torch.load(tmp_path / "model_final.pth", weights_only=True)


def test_average_starts_from_the_loaded_weights(tmp_path):
    run_trainer(tiny_config(tmp_path))
    weights = str(tmp_path / "model_final.pth")
    trainer = TinyTrainer(tiny_config(tmp_path / "second", "MODEL.WEIGHTS", weights))
    trainer.resume_or_load(resume=False)
    saved = torch.load(weights, weights_only=True)["ema"]["model"]
    for model in (trainer.unwrapped_model, trainer.ema.module):
        assert torch.equal(model.head.weight, saved["head.weight"])


def test_nan_stops_before_the_weights_are_spoilt(tmp_path):
    trainer = TinyTrainer(tiny_config(tmp_path, nan_iter=2))
    trainer.resume_or_load(resume=False)
    with pytest.raises(FloatingPointError, match=r"iteration 2.*'loss_l1': nan"):
        trainer.train()
    assert trainer.ema.num_updates == 2
    assert all(p.isfinite().all() for p in trainer.unwrapped_model.parameters())


def test_old_checkpoints_are_deleted_across_resume(tmp_path):
    opts = ["SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.WARMUP_ITERS", 0]
    run_trainer(tiny_config(tmp_path, *opts, "SOLVER.MAX_ITER", 4))
    run_trainer(tiny_config(tmp_path, *opts, "SOLVER.MAX_ITER", 6), resume=True)
    names = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert names == [*(f"model_{i:07d}.pth" for i in (3, 4, 5)), "model_final.pth"]


def test_pictures_go_to_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = run_trainer(tiny_config(tmp_path, "VIS_PERIOD", 3))
    assert trainer.unwrapped_model.training
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    assert [event.step for event in events.Images("train/0")] == [2, 5]
    assert "total_loss" in events.Tags()["scalars"]


def test_amp_dtype():
    cfg = load_config(opts=["SOLVER.AMP.PRECISION", "float16"], freeze=False)
    cfg.MODEL.DEVICE = "cuda:1"
    assert amp_dtype(cfg) is None
    cfg.SOLVER.AMP.ENABLED = True
    assert amp_dtype(cfg) == torch.float16
    cfg.MODEL.DEVICE = "cpu"
    with pytest.raises(ValueError, match="needs a GPU"):
        amp_dtype(cfg)


def test_detectron2_models_train_and_resume(tmp_path):
    """A model without `frozen_prefixes`."""
    prefixes = TinyNet.frozen_prefixes
    try:
        del TinyNet.frozen_prefixes
        run_trainer(tiny_config(tmp_path))
        saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
        assert "autoencoder.weight" in saved["model"]
        trainer = TinyTrainer(tiny_config(tmp_path))
        trainer.resume_or_load(resume=True)
        assert trainer.start_iter == 6
    finally:
        TinyNet.frozen_prefixes = prefixes
