"""The whole pipeline learns: four scenes, both stages, through the real trainer and files."""

import pytest
import torch
from tiny import AUTOENCODER, LDMSEG, tiny_config

from ldmseg_d2.data import register_all
from ldmseg_d2.data.datasets.scenes import write_scenes
from ldmseg_d2.engine import Trainer

COMMON = (
    "DATASETS.TEST", ("scenes_train",),  # the four pictures that were learnt by heart
    "DATALOADER.NUM_WORKERS", 0,
    "INPUT.RANDOM_FLIP", "none",
    "SOLVER.IMS_PER_BATCH", 4,
    "SOLVER.WARMUP_ITERS", 20,
    "SOLVER.BASE_LR", 3e-3,
    "SOLVER.CHECKPOINT_PERIOD", 100000,
    "TEST.EVAL_PERIOD", 0,
    "TEST.IMS_PER_BATCH", 4,
    "VIS_PERIOD", 0,
    "MODEL.EMA.DECAY", 0.98,
    "MODEL.LDMSEG.AUTOENCODER.LATENT_NOISE", 0.1,
)  # fmt: skip


def train(cfg) -> dict:
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return Trainer.test(cfg, trainer.evaluation_model)


@pytest.mark.slow
def test_four_scenes_are_learnt_to_pq_80_in_both_stages(tmp_path, catalogs):
    write_scenes(tmp_path / "scenes", "train", num_images=4, size=64, seed=0)
    register_all(str(tmp_path))

    stage1 = tiny_config(AUTOENCODER, *COMMON, "SOLVER.MAX_ITER", 450)
    stage1.OUTPUT_DIR = str(tmp_path / "stage1")
    result = train(stage1)["reconstruction"]
    assert result["PQ"] > 80, result

    stage2 = tiny_config(LDMSEG, *COMMON, "SOLVER.MAX_ITER", 450)
    stage2.MODEL.LDMSEG.AUTOENCODER.WEIGHTS = str(tmp_path / "stage1" / "model_final.pth")
    stage2.OUTPUT_DIR = str(tmp_path / "stage2")
    result = train(stage2)["panoptic_class_agnostic"]
    assert result["PQ"] > 80, result
    # What was saved is what was evaluated, and it is small: the autoencoder stays out.
    saved = torch.load(tmp_path / "stage2" / "model_final.pth", weights_only=True)
    assert not [key for key in saved["model"] if key.startswith("autoencoder.")]
