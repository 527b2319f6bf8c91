"""A model of a few hundred parameters, with data from memory, to test the engine alone."""

from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import nn

from ldmseg_d2.engine import Trainer, load_config

IMAGE_SIZE = 8
DATASET = "tiny_scenes"
if DATASET not in DatasetCatalog:
    DatasetCatalog.register(DATASET, lambda: [])


@META_ARCH_REGISTRY.register()
class TinyNet(nn.Module):
    """Denoises pictures, in the shadow of a frozen network; draws noise in training."""

    frozen_prefixes = ("autoencoder.",)

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        tiny = cfg.get("TINY", {"NOISE": True, "NAN_ITER": -1})
        self.noise_scale = 0.1 if tiny["NOISE"] else 0.0
        self.nan_iter = tiny["NAN_ITER"]
        self.autoencoder = nn.Conv2d(3, 4, 1).requires_grad_(False)
        self.image_encoder = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.head = nn.Conv2d(4, 4, 1)
        self.register_buffer("running_mean", torch.zeros(4))
        self.steps = 0
        self.to(cfg.MODEL.DEVICE)

    @property
    def device(self) -> torch.device:
        return self.running_mean.device

    def train(self, mode: bool = True) -> "TinyNet":
        super().train(mode)
        self.autoencoder.eval()
        return self

    def forward(self, batched_inputs: list[dict]) -> dict | list[dict]:
        images = torch.stack([x["image"].float() for x in batched_inputs]).to(self.device) / 255
        target = self.autoencoder(images)
        noisy = images + self.noise_scale * torch.randn_like(images)
        prediction = self.head(self.norm(self.image_encoder(noisy)))
        if not self.training:
            ids = prediction.argmax(dim=1).int()
            return [{"panoptic_seg": (segments, [])} for segments in ids]
        self.running_mean.lerp_(prediction.detach().float().mean(dim=(0, 2, 3)), 0.1)
        losses = {
            "loss_l2": (prediction - target).square().mean(),
            "loss_l1": 0.1 * (prediction - target).abs().mean(),
        }
        if self.steps == self.nan_iter:
            losses["loss_l1"] = losses["loss_l1"] * float("nan")
        self.steps += 1
        return losses


class TinyEvaluator(DatasetEvaluator):
    """Counts pixels of segment 0."""

    def reset(self) -> None:
        self.counts = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        self.counts += [float((o["panoptic_seg"][0] == 0).sum()) for o in outputs]

    def evaluate(self) -> dict | None:
        counts = [count for part in comm.gather(self.counts) for count in part]
        return {"tiny": {"pixels": float(np.mean(counts))}} if comm.is_main_process() else None


def picture(position: int) -> dict:
    """The picture at a place in the order of the data."""
    values = np.random.default_rng(position).integers(0, 256, (3, IMAGE_SIZE, IMAGE_SIZE))
    ids = torch.ones(IMAGE_SIZE, IMAGE_SIZE, dtype=torch.int64)
    return {
        "image": torch.from_numpy(values.astype(np.uint8)),
        "segment_ids": ids,
        "height": IMAGE_SIZE,
        "width": IMAGE_SIZE,
        "image_id": position,
    }


def train_batches(cfg: CfgNode, start_iter: int):
    """Endless batches of this process; they draw from the global generator, as loaders do."""
    per_process = cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
    iteration = start_iter
    torch.rand(1)
    while True:
        first = iteration * cfg.SOLVER.IMS_PER_BATCH + comm.get_rank() * per_process
        yield [picture(first + i) for i in range(per_process)]
        iteration += 1


class TinyTrainer(Trainer):
    @classmethod
    def build_train_loader(cls, cfg, *, start_iter=0):
        return train_batches(cfg, start_iter)

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return [[picture(1000 + i)] for i in range(2)]

    @classmethod
    def build_evaluator(cls, cfg, dataset_name, output_folder=None):
        return TinyEvaluator()


def tiny_config(output_dir: Path | str, *opts: object, **tiny: object) -> CfgNode:
    """A config that trains TinyNet for 6 iterations on the CPU.

    Args:
        output_dir: ``OUTPUT_DIR``.
        opts: keys and values in turn.
        tiny: ``noise`` (True), ``nan_iter`` (-1).
    """
    cfg = load_config(freeze=False)
    cfg.TINY = CfgNode({"NOISE": tiny.get("noise", True), "NAN_ITER": tiny.get("nan_iter", -1)})
    cfg.MODEL.META_ARCHITECTURE = "TinyNet"
    cfg.MODEL.DEVICE = "cpu"
    cfg.OUTPUT_DIR = str(output_dir)
    cfg.DATASETS.TEST = (DATASET,)
    cfg.SOLVER.MAX_ITER = 6
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.SOLVER.BASE_LR = 0.01
    cfg.SOLVER.WARMUP_ITERS = 2
    cfg.SOLVER.CHECKPOINT_PERIOD = 3
    cfg.merge_from_list(list(opts))
    cfg.freeze()
    return cfg


def run_trainer(cfg: CfgNode, *, resume: bool = False, trainer_class: type = TinyTrainer):
    """Seed as ``default_setup`` does, train, return the trainer."""
    torch.manual_seed(cfg.SEED + comm.get_rank())
    trainer = trainer_class(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer
