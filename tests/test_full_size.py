"""The paper's sizes for real, on the CPU: some minutes and up to 20 GB of memory.

Not run by default: LDMSEG_RELEASE_TESTS=1 pytest tests/test_full_size.py, once for every release.
"""

import math
import os

import pytest
import torch
from detectron2.modeling import build_model
from tiny import tiny_batch

from ldmseg_d2.engine import build_optimizer
from ldmseg_d2.model_zoo import get_config

pytestmark = [
    pytest.mark.release,
    pytest.mark.skipif(
        not os.environ.get("LDMSEG_RELEASE_TESTS"),
        reason="needs minutes and up to 20 GB: set LDMSEG_RELEASE_TESTS=1",
    ),
]
SIZE, LATENT_SIZE = 512, 64
MAX_MEMORY = 20e9  # bytes


def peak_memory() -> float:
    """Largest resident memory of this process so far, bytes (Linux)."""
    with open("/proc/self/status") as file:
        (line,) = (line for line in file if line.startswith("VmHWM:"))
    return float(line.split()[1]) * 1024


def test_stable_diffusions_unet_with_dinov2():
    """A training step and two steps of sampling at 512 px: shapes, finite losses, gradients."""
    cfg = get_config("coco/ldmseg_dinov2_vitb_coco.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.LDMSEG.AUTOENCODER.WEIGHTS = cfg.MODEL.LDMSEG.DENOISER.PRETRAINED = ""
    cfg.MODEL.LDMSEG.IMAGE_ENCODER.OPTIONS.PRETRAINED = ""
    # Activations are not what this test is about, and they would not fit.
    cfg.MODEL.LDMSEG.DENOISER.GRADIENT_CHECKPOINTING = True
    cfg.MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS = 2
    torch.manual_seed(0)
    model = build_model(cfg).train()
    sizes = {
        name: sum(p.numel() for p in getattr(model, name).parameters())
        for name in ("denoiser", "image_encoder", "autoencoder")
    }
    assert 780e6 < sizes["denoiser"] < 870e6, sizes
    assert 85e6 < sizes["image_encoder"] < 90e6, sizes
    assert 2.0e6 < sizes["autoencoder"] < 2.05e6, sizes

    batch = tiny_batch(1, SIZE)
    optimizer = build_optimizer(cfg, model)
    losses = model(batch)
    assert all(loss.shape == () and math.isfinite(loss) for loss in losses.values()), losses
    sum(losses.values()).backward()
    missing = [
        name for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.isfinite().all())
    ]  # fmt: skip
    assert not missing
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert frozen and all(p.grad is None for p in frozen)
    optimizer.step()
    assert all(p.isfinite().all() for p in model.denoiser.unet.conv_in.parameters())
    del optimizer, losses
    model.zero_grad(set_to_none=True)

    model.eval()
    photos = [{**batch[0], "height": 480, "width": 640}]
    with torch.no_grad():
        condition = model.encode_images(torch.zeros(1, 3, SIZE, SIZE))
        (output,) = model(photos)
    assert condition.shape == (1, 64, LATENT_SIZE, LATENT_SIZE)
    assert output["panoptic_seg"][0].shape == (480, 640)
    assert peak_memory() < MAX_MEMORY
