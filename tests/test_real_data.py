"""Real photos through the real command line, a few iterations: both stages on COCO, then CamVid."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FEW = [
    "SOLVER.MAX_ITER", "2",
    "SOLVER.WARMUP_ITERS", "1",
    "SOLVER.IMS_PER_BATCH", "2",
    "DATALOADER.NUM_WORKERS", "0",
    "TEST.MAX_IMAGES", "2",
    "VIS_PERIOD", "0",
]  # fmt: skip


def run(*command: str, root: Path) -> None:
    environment = {**os.environ, "DETECTRON2_DATASETS": str(root), "OMP_NUM_THREADS": "2"}
    result = subprocess.run(
        [sys.executable, *command], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


def train_both_stages(
    configs: tuple[str, str], datasets: list[str], root: Path, output: Path
) -> None:
    """Stage 1, then stage 2 on its result; each evaluates at the end and must have counted."""
    stage1, stage2 = output / "stage1", output / "stage2"
    run("tools/train_net.py", "--config-file", f"configs/{configs[0]}",
        *FEW, *datasets, "OUTPUT_DIR", str(stage1), root=root)  # fmt: skip
    run("tools/train_net.py", "--config-file", f"configs/{configs[1]}",
        *FEW, *datasets, "OUTPUT_DIR", str(stage2), "MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS", "2",
        "MODEL.LDMSEG.AUTOENCODER.WEIGHTS", str(stage1 / "model_final.pth"), root=root)  # fmt: skip
    for folder, key in ((stage1, "reconstruction"), (stage2, "panoptic_class_agnostic")):
        (results,) = json.loads((folder / "inference" / "results.json").read_text()).values()
        assert results[key]["gt_segments_per_image"] > 3
        assert 0 <= results[key]["PQ"] <= 100


@pytest.mark.slow
def test_camvid(shared, tmp_path):
    source = tmp_path / "camvid_source"
    for split in ("train", "val"):
        photos = sorted((shared / "datasets" / "camvid" / split).iterdir())[:4]
        for photo in photos:
            for folder in (split, f"{split}annot"):
                found = next((shared / "datasets" / "camvid" / folder).glob(f"{photo.stem}.*"))
                (source / folder).mkdir(parents=True, exist_ok=True)
                shutil.copy(found, source / folder)
    root = tmp_path / "datasets"
    command = ("tools/prepare_dataset.py", "camvid", "--input", str(source), "--root", str(root))
    run(*command, root=root)
    output = tmp_path / "output"
    run("tools/train_net.py", "--config-file", "configs/camvid/ldmseg_camvid.yaml",
        *FEW, "OUTPUT_DIR", str(output), "MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS", "2",
        root=root)  # fmt: skip
    (results,) = json.loads((output / "inference" / "results.json").read_text()).values()
    assert {"panoptic_seg", "sem_seg"} <= results.keys()
    assert 0 <= results["sem_seg"]["mIoU"] <= 100


@pytest.mark.slow
def test_coco(shared, tmp_path):
    name = '("coco_2017_val_panoptic",)'
    datasets = ["DATASETS.TRAIN", name, "DATASETS.TEST", name]
    configs = ("coco/quick/autoencoder_coco.yaml", "coco/quick/ldmseg_coco.yaml")
    train_both_stages(configs, datasets, shared / "datasets", tmp_path / "output")
