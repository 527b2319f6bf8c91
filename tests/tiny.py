"""The shipped configs, shrunk: real classes at a size that a test can afford."""

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from ldmseg_d2.model_zoo import get_config

AUTOENCODER = "scenes/autoencoder_scenes64.yaml"
LDMSEG = "scenes/ldmseg_scenes64.yaml"
DEPTH_AUTOENCODER = "scenes/depth_autoencoder_scenes64.yaml"
JOINT = "scenes/ldmseg_multitask_scenes64.yaml"
# No file: JOINT with SEPARATE_OPTS, as in configs/studies/tasks.yaml.
SEPARATE = "separate"
SEPARATE_OPTS = (
    *("MODEL.LDMSEG.TASK_MODE", "separate", "MODEL.LDMSEG.DENOISER.TASK_IN_TIME_EMBEDDING", True),
)
# For command lines: the same small networks, but for the autoencoder's, whose weights are shipped.
TINY_OPTS = (
    "MODEL.DEVICE cpu SOLVER.IMS_PER_BATCH 2 "
    "MODEL.LDMSEG.DENOISER.BLOCK_OUT_CHANNELS [16,32] MODEL.LDMSEG.DENOISER.ATTENTION_HEAD_DIM 2 "
    "MODEL.LDMSEG.DENOISER.NORM_NUM_GROUPS 8 MODEL.LDMSEG.IMAGE_ENCODER.OUT_CHANNELS 8"
).split()
# Of tiny_multitask_batch; class 0 is its background.
CLASSES = ("MODEL.LDMSEG.NUM_CLASSES", 4, "MODEL.LDMSEG.THING_CLASSES", [1, 2, 3])


def tiny_config(name: str = LDMSEG, *opts) -> CfgNode:
    """A shipped scenes config with small networks on the CPU, without trained weights."""
    cfg = get_config(JOINT if name == SEPARATE else name)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    ldmseg = cfg.MODEL.LDMSEG
    ldmseg.AUTOENCODER.WEIGHTS = ""
    ldmseg.AUTOENCODER.ENCODER_CHANNELS = ldmseg.AUTOENCODER.DECODER_CHANNELS = 64
    ldmseg.AUTOENCODER.NUM_LAYERS = 1
    ldmseg.AUTOENCODER.LATENT_CHANNELS = 16
    ldmseg.DEPTH.AUTOENCODER.WEIGHTS = ""
    ldmseg.DEPTH.AUTOENCODER.CHANNELS = 16
    ldmseg.DENOISER.BLOCK_OUT_CHANNELS = [16, 32]
    ldmseg.DENOISER.DOWN_BLOCK_TYPES = ["DownBlock2D", "CrossAttnDownBlock2D"]
    ldmseg.DENOISER.UP_BLOCK_TYPES = ["CrossAttnUpBlock2D", "UpBlock2D"]
    ldmseg.DENOISER.LAYERS_PER_BLOCK = 1
    ldmseg.DENOISER.ATTENTION_HEAD_DIM = 2
    ldmseg.DENOISER.NORM_NUM_GROUPS = 8
    ldmseg.DENOISER.CROSS_ATTENTION_DIM = 16
    ldmseg.IMAGE_ENCODER.OUT_CHANNELS = 8
    ldmseg.IMAGE_ENCODER.OPTIONS = CfgNode({"WIDTHS": [8, 16, 16], "NUM_BLOCKS": 1})
    ldmseg.SAMPLER.NUM_INFERENCE_STEPS = 3
    cfg.merge_from_list([*(SEPARATE_OPTS if name == SEPARATE else ()), *opts])
    return cfg


def tiny_model(name: str = LDMSEG, *opts, seed: int = 0) -> nn.Module:
    """The model of :func:`tiny_config`, with the random weights of a seed."""
    torch.manual_seed(seed)
    return build_model(tiny_config(name, *opts))


def tiny_batch(
    num: int = 2, size: int = 64, *, seed: int = 0, annotated: bool = True
) -> list[dict]:
    """Inputs as PanopticDatasetMapper makes them: three boxes on a background, some void."""
    generator = torch.Generator().manual_seed(seed)
    batch = []
    for image_id in range(num):
        ids = torch.ones(size, size, dtype=torch.int64)
        ids[: size // 8] = 0
        for k in (2, 3, 4):
            y, x = torch.randint(size // 8, size // 2, (2,), generator=generator).tolist()
            ids[y : y + size // 3, x : x + size // 3] = k
        # Boxes may hide one another: consecutive ids are the contract.
        ids = torch.unique(ids, return_inverse=True)[1]
        colours = torch.randint(0, 255, (5, 3), generator=generator, dtype=torch.uint8)
        entry = {"image": colours[ids].permute(2, 0, 1).contiguous(), "image_id": image_id}
        entry |= {"file_name": f"{image_id}.png", "height": size, "width": size}
        batch.append({**entry, "segment_ids": ids} if annotated else entry)
    return batch


def tiny_multitask_batch(num: int = 2, size: int = 64, *, seed: int = 0) -> list[dict]:
    """:func:`tiny_batch` with annotations for all tasks, in the classes of CLASSES.

    Segment 1 is the background, class 0; segment k >= 2 has the class k - 1 and a depth of its own.
    The void rows at the top have neither class nor depth.
    """
    batch = tiny_batch(num, size, seed=seed)
    for entry in batch:
        ids = entry["segment_ids"]
        entry["sem_seg"] = torch.where(ids == 0, 255, ids - 1)
        rows = torch.linspace(8.0, 2.0, size)[:, None].expand(size, size)
        entry["depth"] = torch.where(ids <= 1, rows, 1.0 + ids / 4) * (ids != 0)
        entry["segments_info"] = [
            {"id": k, "category_id": k - 1, "isthing": k > 1, "iscrowd": 0}
            for k in range(1, int(ids.max()) + 1)
        ]
    return batch


def without(entry: dict, *keys: str) -> dict:
    """An input that lacks some keys."""
    return {key: value for key, value in entry.items() if key not in keys}
