"""One training of a study: it can be interrupted at any moment, and is done only once."""

import json
import logging
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.engine import HookBase
from detectron2.utils.env import seed_all_rng

from ldmseg_d2.engine import Trainer, load_config
from ldmseg_d2.engine.config_reader import check_datasets
from ldmseg_d2.engine.hooks import EvalHook
from ldmseg_d2.engine.reporting import write_results

from .curve import Curve, CurveHook, Evaluate, read_curve
from .timing import TIMES, StepTimer, clock_of, read_seconds

logger = logging.getLogger(__name__)

REPOSITORY = Path(__file__).resolve().parents[2]
RECORD, CONFIG, CURVE = "record.json", "config.yaml", "curve.json"
# Iterations between checkpoints: a share of the run, which an interruption costs, or more.
CHECKPOINT_SHARE, LEAST_CHECKPOINT_PERIOD = 1 / 3, 100
# Iterations that measure how long one takes; the first ones, which are slower, are left out.
CALIBRATION, CALIBRATION_WARMUP = 20, 5
# Further ones that fill DATALOADER.CACHE_GB: those of an epoch, or fewer.
MOST_TO_FILL_THE_CACHE = 100


@dataclass(frozen=True)
class Run:
    """A training of a study.

    Attributes:
        name: of its folder.
        config_file: as for ``tools/train_net.py``.
        iterations: of training.
        opts: keys and values that differ from the config file.
    """

    name: str
    config_file: str
    iterations: int
    opts: tuple[Any, ...] = ()


def do_run(
    run: Run, output: str | Path, *, evaluate: Evaluate, curve: Curve | None = None
) -> dict[str, Any]:
    """Train and evaluate, or continue, or read what was done before.

    Args:
        run: what to train.
        output: folder of the study; the run's own is below it.
        evaluate: called with the config and the trained (averaged) model in eval mode.
        curve: evaluate in between as well; the record then has "curve", iterations to results.

    Returns:
        The run's record, see :func:`_record`.

    Raises:
        ValueError: the folder holds a run with other settings; and whatever training raises.
    """
    folder = Path(output, run.name)
    cfg = run_config(run, folder)
    _check_settings(cfg, folder)
    record_path = folder / RECORD
    if not record_path.is_file():
        _check_data(cfg)
        logger.info("Run %s: %d iterations, in %s", run.name, run.iterations, folder)
        trainer = train(cfg, curve)
        results = evaluate(cfg, trainer.evaluation_model.eval())
        record = _record(run, cfg, results)
        if curve is not None:
            record["curve"] = read_curve(folder / CURVE)
        # Also turns what is not finite into null.
        write_results(record_path, record)
        # Of no use once the last one is there.
        for path in folder.glob("model_[0-9]*.pth"):
            path.unlink()
    return json.loads(record_path.read_text())


def seconds_per_iteration(run: Run, path: str | Path) -> float:
    """The median that :func:`calibrate` finds, kept.

    Args:
        run: its ``iterations`` do not matter.
        path: of a JSON file, run name to seconds; what is there is not measured again, so that a
            study that goes on trains as long as it would have.
    """
    path = Path(path)
    known: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
    if run.name not in known:
        known[run.name] = median(calibrate(run))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_results(path, known)
    return known[run.name]


def calibrate(run: Run) -> list[float]:
    """How long iterations of a run take, by a short training of its own that leaves no trace.

    Args:
        run: its ``iterations`` do not matter.

    Returns:
        Seconds of CALIBRATION iterations, see :func:`read_seconds`, after those that decode files
        which ``DATALOADER.CACHE_GB`` keeps.
    """
    with tempfile.TemporaryDirectory(prefix="ldmseg_calibration_") as folder:
        cfg = run_config(replace(run, iterations=CALIBRATION), Path(folder))
        warmup = CALIBRATION_WARMUP + _iterations_to_fill_the_cache(cfg)
        cfg = run_config(replace(run, iterations=warmup + CALIBRATION), Path(folder))
        train(cfg)
        return read_seconds(cfg)[warmup:]


def _iterations_to_fill_the_cache(cfg: CfgNode) -> int:
    """In which a training decodes files that it will find in memory from then on."""
    check_datasets(cfg)
    if not cfg.DATALOADER.CACHE_GB:
        return 0
    pictures = sum(len(DatasetCatalog.get(name)) for name in cfg.DATASETS.TRAIN)
    return min(ceil(pictures / cfg.SOLVER.IMS_PER_BATCH), MOST_TO_FILL_THE_CACHE)


def run_config(run: Run, folder: Path) -> CfgNode:
    """The run's config, with checkpoints and without evaluation and pictures in between."""
    period = max(round(CHECKPOINT_SHARE * run.iterations), LEAST_CHECKPOINT_PERIOD)
    opts = [
        *("VIS_PERIOD", 0, "DATALOADER.NUM_WORKERS", 0),
        *run.opts,
        *("SOLVER.MAX_ITER", run.iterations, "OUTPUT_DIR", str(folder)),
        *("SOLVER.CHECKPOINT_PERIOD", period),
    ]
    cfg = load_config(run.config_file, opts, freeze=False)
    # A warm-up longer than a tenth of the training would be most of a short one.
    cfg.SOLVER.WARMUP_ITERS = min(cfg.SOLVER.WARMUP_ITERS, run.iterations // 10)
    cfg.freeze()
    return cfg


class StudyTrainer(Trainer):
    """The trainer without the usual evaluation, whose iterations are timed."""

    def __init__(self, cfg: CfgNode, curve: Curve | None = None) -> None:
        """
        Args:
            cfg: see :class:`Trainer`.
            curve: evaluations in between, which are not timed.
        """
        self._curve = curve
        super().__init__(cfg)

    def build_hooks(self) -> list[HookBase]:
        """The timer comes first, so that it counts no hook's time, but for the curve's."""
        folder = Path(self.cfg.OUTPUT_DIR)
        curve = [CurveHook(folder / CURVE, self._curve)] if self._curve else []
        kept = [hook for hook in super().build_hooks() if not isinstance(hook, EvalHook)]
        return [*curve, StepTimer(folder / TIMES, self.cfg.MODEL.DEVICE), *kept]


def train(cfg: CfgNode, curve: Curve | None = None) -> StudyTrainer:
    """Train, or continue to train, in ``OUTPUT_DIR``; returns the trainer with what it trained."""
    seed_all_rng(cfg.SEED)
    trainer = StudyTrainer(cfg, curve)
    trainer.resume_or_load(resume=True)
    if trainer.start_iter < trainer.max_iter:
        trainer.train()
    return trainer


def _check_settings(cfg: CfgNode, folder: Path) -> None:
    """Write the config into a new folder; raise where another one is there."""
    path = folder / CONFIG
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(cfg.dump())
        return
    there, wanted = (
        flat_settings(CfgNode.load_cfg(text)) for text in (path.read_text(), cfg.dump())
    )
    check_same(there, wanted, folder)


def check_same(there: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    """Raise ValueError, naming the keys, where something at `path` was made with other settings.

    A config key that `there` lacks is newer than that: it did what its default does now.
    """
    defaults = flat_settings(load_config())
    before = {k: there.get(k, defaults.get(k)) for k in there.keys() | wanted.keys()}
    different = sorted(k for k, v in before.items() if _plain(v) != _plain(wanted.get(k)))
    if different:
        key = different[0]
        raise ValueError(
            f"{path} holds a run with other settings: {key} is {before[key]!r} there, "
            f"{wanted.get(key)!r} was asked for (differing keys: {', '.join(different)}). Choose "
            f"another --output, or delete that {'file' if path.is_file() else 'folder'}"
        )


def _plain(value: Any) -> Any:
    """As JSON gives it back: a tuple is a list there."""
    return json.loads(json.dumps(value))


def _check_data(cfg: CfgNode) -> None:
    """Raise before the training for what would stop the evaluation after it."""
    check_datasets(cfg)
    if len(cfg.DATASETS.TEST) != 1:
        raise ValueError(
            f"DATASETS.TEST is {cfg.DATASETS.TEST}: a study evaluates on exactly one data set"
        )
    Trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0])


def flat_settings(node: CfgNode) -> dict[str, Any]:
    """All keys of a config that decide what comes out, with their full names."""
    # Where a study lies and what the benchmark reads are no settings of a training.
    return {
        key: value
        for key, value in _flat(node).items()
        if key != "OUTPUT_DIR" and not key.startswith("BENCHMARK.")
    }


def _flat(node: CfgNode, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        flat.update(_flat(value, f"{name}.") if isinstance(value, dict) else {name: value})
    return flat


def _record(run: Run, cfg: CfgNode, results: dict[str, Any]) -> dict[str, Any]:
    """What is known of a finished run.

    ``seconds_per_iteration`` is the median over the iterations, of the process' CPU time on a CPU,
    which other programs hardly change, and of wall time on a GPU; ``training_minutes`` is that
    times ``iterations``; ``wall_minutes`` what the iterations really took.
    """
    seconds = json.loads(Path(cfg.OUTPUT_DIR, TIMES).read_text())
    on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
    each = median(seconds[clock_of(cfg.MODEL.DEVICE)])
    post, sampler = cfg.MODEL.LDMSEG.POSTPROCESS, cfg.MODEL.LDMSEG.SAMPLER
    samples = cfg.MODEL.META_ARCHITECTURE == "LDMSeg"
    return {
        "name": run.name,
        "config_file": run.config_file,
        "overrides": list(run.opts),
        "iterations": run.iterations,
        "batch": cfg.SOLVER.IMS_PER_BATCH,
        "precision": cfg.SOLVER.AMP.PRECISION if cfg.SOLVER.AMP.ENABLED else "float32",
        "seed": cfg.SEED,
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
        "commit": commit(),
        "clock": "wall time" if on_gpu else "CPU time",
        "seconds_per_iteration": each,
        "training_minutes": each * run.iterations / 60,
        "wall_minutes": sum(seconds["wall"]) / 60,
        "sampler": sampler.NAME if samples else None,
        "steps": sampler.NUM_INFERENCE_STEPS if samples else 0,
        "thresholds": ", ".join(f"{key} {value}" for key, value in sorted(post.items())),
        "results": results,
    }


def commit() -> str:
    """The commit of this checkout, with "+changes" where files differ from it; or "unknown"."""

    def git(*args: str) -> str:
        command = ["git", "-C", str(REPOSITORY), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=10", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def collect(output: str | Path, records: Sequence[dict[str, Any]], *, command: str) -> Path:
    """Write all records into OUTPUT/results.json, and return its path."""
    path = Path(output, "results.json")
    write_results(path, {"command": command, "runs": list(records)})
    return path
