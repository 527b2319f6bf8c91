"""Peak memory of a training step or an inference, measured by running it."""

from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from .analysis import without_weights
from .ema import ModelEMA
from .optimizer import build_optimizer
from .train_step import PRECISIONS


def fake_batch(size: int, number: int) -> list[dict]:
    """Grey pictures with two segments of class 0 on a plane."""
    ids = torch.ones(size, size, dtype=torch.int64)
    ids[: size // 2] = 2
    image = torch.full((3, size, size), 127, dtype=torch.uint8)
    depth = torch.linspace(2, 1, size)[:, None].expand(size, size).contiguous()
    entry = {"image": image, "segment_ids": ids, "height": size, "width": size, "depth": depth}
    entry["sem_seg"] = torch.zeros_like(ids)
    entry["segments_info"] = [{"id": i, "category_id": 0, "isthing": False} for i in (1, 2)]
    return [{**entry, "image_id": i} for i in range(number)]


def measure_here(cfg: CfgNode, what: str, number: int, batch: list[dict] | None = None) -> float:
    """Peak memory in bytes of a training step or an inference in this, fresh, process.

    Args:
        cfg: of the model.
        what: "train" or "inference".
        number: pictures at once.
        batch: the pictures; None: those of :func:`fake_batch`, enough for LDMSeg.
    """
    cfg = without_weights(cfg)
    cfg.MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS = 2  # memory does not depend on it
    cuda = cfg.MODEL.DEVICE.startswith("cuda")
    model = build_model(cfg)
    if batch is None:
        options = cfg.INPUT.LDMSEG
        size = options.TRAIN_SIZE if what == "train" else 0
        batch = fake_batch(size or options.IMAGE_SIZE, number)
    amp, precision = cfg.SOLVER.AMP, PRECISIONS[cfg.SOLVER.AMP.PRECISION]
    if what == "inference":
        with torch.no_grad():
            model.eval()(batch)
    else:
        model.train()
        optimizer = build_optimizer(cfg, model)
        ema = ModelEMA(model, decay=cfg.MODEL.EMA.DECAY) if cfg.MODEL.EMA.ENABLED else None
        for _ in range(2):  # the second one finds the optimizer's state in place
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(model.device.type, precision, enabled=amp.ENABLED and cuda):
                losses = model(batch)
            sum(losses.values()).backward()
            optimizer.step()
            if ema:
                ema.update(model)
    return float(torch.cuda.max_memory_allocated()) if cuda else peak_resident_bytes()


def peak_resident_bytes() -> float:
    """This process' largest resident memory so far (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM: memory can be measured on Linux only")
