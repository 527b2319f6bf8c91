"""The shipped configs, shrunk: real classes at a size that a test can afford."""

import torch
from detectron2.config import CfgNode

from ldmseg_d2.model_zoo import get_config

AUTOENCODER = "scenes/autoencoder_scenes64.yaml"
LDMSEG = "scenes/ldmseg_scenes64.yaml"


def tiny_config(name: str = LDMSEG, *opts) -> CfgNode:
    """A shipped scenes config with small networks on the CPU, without trained weights."""
    cfg = get_config(name)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    ldmseg = cfg.MODEL.LDMSEG
    ldmseg.AUTOENCODER.WEIGHTS = ""
    ldmseg.AUTOENCODER.ENCODER_CHANNELS = ldmseg.AUTOENCODER.DECODER_CHANNELS = 64
    ldmseg.AUTOENCODER.NUM_LAYERS = 1
    ldmseg.AUTOENCODER.LATENT_CHANNELS = 16
    ldmseg.DENOISER.BLOCK_OUT_CHANNELS = [16, 32]
    ldmseg.DENOISER.DOWN_BLOCK_TYPES = ["DownBlock2D", "CrossAttnDownBlock2D"]
    ldmseg.DENOISER.UP_BLOCK_TYPES = ["CrossAttnUpBlock2D", "UpBlock2D"]
    ldmseg.DENOISER.LAYERS_PER_BLOCK = 1
    ldmseg.DENOISER.ATTENTION_HEAD_DIM = 2
    ldmseg.DENOISER.NORM_NUM_GROUPS = 8
    ldmseg.IMAGE_ENCODER.OUT_CHANNELS = 8
    ldmseg.IMAGE_ENCODER.OPTIONS = CfgNode({"WIDTHS": [8, 16, 16], "NUM_BLOCKS": 1})
    ldmseg.SAMPLER.NUM_INFERENCE_STEPS = 3
    cfg.merge_from_list(list(opts))
    return cfg


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
        entry = {
            "image": colours[ids].permute(2, 0, 1).contiguous(),
            "image_id": image_id,
            "file_name": f"{image_id}.png",
            "height": size,
            "width": size,
        }
        if annotated:
            entry["segment_ids"] = ids
        batch.append(entry)
    return batch
