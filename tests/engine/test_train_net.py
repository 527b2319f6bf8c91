import json
from pathlib import Path

import pytest
import torch
from load_tool import load_tool
from safetensors import safe_open
from tiny_model import DATASET, TinyTrainer, run_trainer, tiny_config


@pytest.fixture
def train_net(monkeypatch):
    """The tool, with the trainer that needs no data."""
    tool = load_tool("train_net")
    monkeypatch.setattr(tool, "Trainer", TinyTrainer)
    monkeypatch.delenv(tool.TRACEBACK_VARIABLE, raising=False)
    return tool


def tiny_opts(folder: Path, *more: object) -> list[str]:
    opts = ["MODEL.META_ARCHITECTURE", "TinyNet", "MODEL.DEVICE", "cpu", "OUTPUT_DIR", folder]
    opts += ["DATASETS.TRAIN", "()", "DATASETS.TEST", f"('{DATASET}',)", "SOLVER.MAX_ITER", 2]
    opts += ["SOLVER.IMS_PER_BATCH", 2, "SOLVER.WARMUP_ITERS", 0]
    return [str(opt) for opt in (*opts, *more)]


def test_trains_resumes_and_evaluates(train_net, tmp_path):
    train_net.run(tiny_opts(tmp_path))
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert (tmp_path / "config.yaml").exists()
    train_net.run(["--resume", *tiny_opts(tmp_path, "SOLVER.MAX_ITER", 4)])
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert saved["iteration"] == 3
    log = (tmp_path / "log.txt").read_text()
    assert "ldmseg_d2.engine.trainer INFO: Model: TinyNet" in log
    # What the log says of the config is short, and no file has colour codes.
    assert "  MODEL.META_ARCHITECTURE: 'TinyNet'" in log and "MODEL.RPN" not in log
    assert "\x1b" not in log and len(log.splitlines()) < 100

    results = tmp_path / "inference" / "results.json"
    trained = json.loads(results.read_text())
    results.unlink()
    torch.manual_seed(0)
    train_net.run(["--eval-only", "--resume", *tiny_opts(tmp_path)])
    evaluated = json.loads(results.read_text())
    assert evaluated.keys() == trained.keys() == {DATASET}
    assert evaluated == trained


@pytest.mark.parametrize(
    "opts, message",
    [
        (["SOLVER.MAX_ITERS", 3], "no config key SOLVER.MAX_ITERS"),
        (["MODEL.WEIGHTS", "nowhere.pth"], "No weights at 'nowhere.pth'"),
        (["MODEL.META_ARCHITECTURE", "NoSuchNet"], "NoSuchNet"),
        (["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "float16"], "needs a GPU"),
    ],
)
def test_mistakes_end_with_status_2_and_one_message(train_net, tmp_path, capsys, opts, message):
    with pytest.raises(SystemExit) as info:
        train_net.run(tiny_opts(tmp_path, *opts))
    assert info.value.code == 2
    error = capsys.readouterr().err
    assert message in error and "error: " in error and "Traceback" not in error


def test_checkpoint_that_does_not_fit(train_net, tmp_path, capsys):
    torch.save({"model": {"head.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    for flags in ([], ["--eval-only"]):
        with pytest.raises(SystemExit):
            train_net.run([*flags, *tiny_opts(tmp_path, "MODEL.WEIGHTS", tmp_path / "other.pth")])
        assert "head.weight (1,), the model has (4, 4, 1, 1)" in capsys.readouterr().err


def test_errors_of_training_keep_their_traceback(train_net, tmp_path, monkeypatch):
    def run_step(self):
        raise ValueError("in the midst of training")

    monkeypatch.setattr(TinyTrainer, "run_step", run_step)
    with pytest.raises(ValueError, match="in the midst of training"):
        train_net.run(tiny_opts(tmp_path))
    assert "Traceback" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("use_ema", [True, False])
def test_export_weights(tmp_path, capsys, use_ema):
    tool = load_tool("export_weights")
    trainer = run_trainer(tiny_config(tmp_path / "some_run"))
    output = tmp_path / "new" / "weights.safetensors"
    flags = ["--dtype", "bfloat16"] + ([] if use_ema else ["--no-ema"])
    tool.main([str(tmp_path / "some_run" / "model_final.pth"), str(output), *flags])
    assert "0.0 MiB, bfloat16" in capsys.readouterr().out
    expected = (trainer.ema.module if use_ema else trainer.unwrapped_model).state_dict()
    with safe_open(output, "pt") as file:
        assert file.metadata() == {
            "format": "pt",
            "config": "some_run",
            "source": "model_final.pth",
            "iteration": "5",
            "weights": "ema" if use_ema else "model",
        }
        assert set(file.keys()) == {k for k in expected if not k.startswith("autoencoder.")}
        for key in file.keys():
            assert torch.equal(file.get_tensor(key), expected[key].bfloat16())
