"""Real photos through the real command line: both stages, CamVid and COCO, a few iterations."""

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
    run("tools/prepare_dataset.py", "camvid", "--input", str(source), "--root", str(root), root=root)
    configs = ("camvid/autoencoder_8x_camvid.yaml", "camvid/quick/ldmseg_camvid.yaml")
    train_both_stages(configs, [], root, tmp_path / "output")
    train_after_the_image_encoder(root, tmp_path / "output")


def train_after_the_image_encoder(root: Path, output: Path) -> None:
    """The image encoder alone, evaluated by its semantic map; then LDMSeg goes on with it."""
    encoder, whole = output / "encoder", output / "whole"
    run("tools/train_net.py", "--config-file", "configs/camvid/image_encoder_camvid.yaml",
        *FEW, "OUTPUT_DIR", str(encoder), root=root)  # fmt: skip
    (results,) = json.loads((encoder / "inference" / "results.json").read_text()).values()
    assert results.keys() == {"sem_seg"} and 0 <= results["sem_seg"]["mIoU"] <= 100
    config, weights = "configs/camvid/ldmseg_pretrained_camvid.yaml", encoder / "model_final.pth"
    run("tools/train_net.py", "--config-file", config, *FEW, "OUTPUT_DIR", str(whole),
        "MODEL.LDMSEG.IMAGE_ENCODER.WEIGHTS", str(weights),
        "MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS", "2", root=root)  # fmt: skip
    (results,) = json.loads((whole / "inference" / "results.json").read_text()).values()
    assert {"panoptic_seg", "sem_seg"} <= results.keys()


@pytest.mark.slow
def test_coco(shared, tmp_path):
    name = '("coco_2017_val_panoptic",)'
    datasets = ["DATASETS.TRAIN", name, "DATASETS.TEST", name]
    configs = ("coco/quick/autoencoder_coco.yaml", "coco/quick/ldmseg_coco.yaml")
    train_both_stages(configs, datasets, shared / "datasets", tmp_path / "output")
