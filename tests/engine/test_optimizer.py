import copy

import pytest
import torch
from tiny_model import TinyTrainer, run_trainer, tiny_config
from torch import nn

from ldmseg_d2.engine import build_lr_scheduler, build_optimizer, load_config
from ldmseg_d2.modeling.image_encoder import build_image_encoder


def small_model() -> nn.Module:
    model = nn.Module()
    model.image_encoder = nn.Linear(3, 3)
    model.denoiser = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm([3, 3]))
    model.frozen = nn.Linear(3, 3).requires_grad_(False)
    model.tied = model.denoiser[0]
    return model


def make_config(*opts):
    return load_config(opts=["MODEL.DEVICE", "cpu", *map(str, opts)])


def test_groups_by_kind_of_parameter():
    """Weights, norms and biases decay differently; the image encoder learns at its own rate."""
    model = small_model()
    decays = ("SOLVER.WEIGHT_DECAY", 0.5, "SOLVER.WEIGHT_DECAY_NORM", 0.25)
    decays += ("SOLVER.WEIGHT_DECAY_BIAS", 0.125, "SOLVER.IMAGE_ENCODER_MULTIPLIER", 0.1)
    groups = build_optimizer(make_config("SOLVER.BASE_LR", 1.0, *decays), model).param_groups
    found = {
        id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]
    }
    linear, norm = model.denoiser
    expected = {
        id(model.image_encoder.weight): (0.1, 0.5),
        id(model.image_encoder.bias): (0.1, 0.125),
        id(linear.weight): (1.0, 0.5),
        id(linear.bias): (1.0, 0.125),
        id(norm.weight): (1.0, 0.25),
        id(norm.bias): (1.0, 0.125),
    }
    assert found == expected
    assert sum(len(group["params"]) for group in groups) == len(expected)
    assert len(groups) == len(set(expected.values()))


def rates(model: nn.Module, *opts) -> dict[str, float]:
    names = {id(p): name for name, p in model.named_parameters()}
    groups = build_optimizer(make_config(*opts), model).param_groups
    return {names[id(p)]: group["lr"] for group in groups for p in group["params"]}


def test_layer_decay_of_dinov2():
    options = {"model_name": "vit_small_patch14_reg4_dinov2", "pretrained": ""}
    options["model_kwargs"] = {"depth": 3, "embed_dim": 8, "num_heads": 2}
    model = nn.Module()
    model.image_encoder = build_image_encoder("DINOv2ImageEncoder", out_channels=4, options=options)
    opts = ("SOLVER.BASE_LR", 2.0, "SOLVER.IMAGE_ENCODER_MULTIPLIER", 0.5)
    found = rates(model, *opts, "SOLVER.IMAGE_ENCODER_LAYER_DECAY", 0.5)
    for name, lr in found.items():
        block = name.split("blocks.")[1][0] if "blocks." in name else None
        if block is not None:  # block i of n = 4: 0.5^(n - i), the first one i = 1
            assert lr == 0.5 ** (4 - 1 - int(block)), name
        else:
            assert lr == (1.0 if ".projection." in name or ".norm." in name else 0.5**4), name
    assert {0.5**k for k in range(5)} == set(found.values())
    assert len(found) == len(list(model.parameters()))


def test_layer_decay_that_cannot_be_raises():
    key = "SOLVER.IMAGE_ENCODER_LAYER_DECAY"
    with pytest.raises(ValueError, match=f"{key} is 0.9: .* Linear that does not tell its layers"):
        build_optimizer(make_config(key, 0.9), small_model())
    # A model without an image encoder, such as stage 1's, has nothing to decay.
    assert set(rates(nn.Linear(2, 2), key, 0.9).values()) == {1e-4}


def test_nothing_trainable_raises():
    with pytest.raises(ValueError, match="no trainable parameter"):
        build_optimizer(make_config(), nn.Linear(2, 2).requires_grad_(False))


def test_full_model_clipping_equals_torch(tmp_path):
    """One step of the trainer against backward, clip_grad_norm_ and AdamW by hand."""
    opts = ("SOLVER.MAX_ITER", 1, "SOLVER.WARMUP_ITERS", 0, "DATASETS.TEST", "()")
    cfg = tiny_config(tmp_path, *opts, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.01, noise=False)
    torch.manual_seed(0)
    trainer = TinyTrainer(cfg)
    trainer.resume_or_load(resume=False)
    twin = copy.deepcopy(trainer.unwrapped_model)
    trainer.train()

    optimizer = build_optimizer(cfg, twin)
    batch = next(TinyTrainer.build_train_loader(cfg))
    sum(twin(batch).values()).backward()
    trained = [p for p in twin.parameters() if p.requires_grad]
    norm = nn.utils.clip_grad_norm_(trained, 0.01)
    assert norm > 0.01
    optimizer.step()
    for ours, theirs in zip(trainer.unwrapped_model.parameters(), twin.parameters()):
        torch.testing.assert_close(ours, theirs)
    assert trainer.storage.latest()["grad_norm"][0] == pytest.approx(norm.item())


def lr_curve(cfg) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(cfg.SOLVER.MAX_ITER):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


COMMON = ["SOLVER.MAX_ITER", 20, "SOLVER.WARMUP_FACTOR", 0.1, "SOLVER.BASE_LR", 2.0]


def test_flat_linear_curve():
    flat = ("SOLVER.LR_SCHEDULER_NAME", "WarmupFlatLinearLR", "SOLVER.FLAT_FRACTION", 0.5)
    cfg = make_config(*COMMON, *flat, "SOLVER.WARMUP_ITERS", 4)
    expected = []
    for i in range(20):
        if i < 4:
            expected.append(2.0 * (0.1 + 0.9 * i / 4))
        elif i <= 10:
            expected.append(2.0)
        else:
            expected.append(2.0 * (20 - i) / 10)
    assert lr_curve(cfg) == pytest.approx(expected)


def test_bad_schedule_raises():
    cfg = make_config("SOLVER.LR_SCHEDULER_NAME", "WarmupFlatLinearLR", "SOLVER.FLAT_FRACTION", 1.5)
    with pytest.raises(ValueError, match="FLAT_FRACTION must be in"):
        build_lr_scheduler(cfg, torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0))


def test_schedule_follows_the_iteration(tmp_path):
    cfg = tiny_config(tmp_path, "SOLVER.LR_SCHEDULER_NAME", "WarmupFlatLinearLR")
    trainer = run_trainer(cfg)
    # The rate of the last iteration: 1 of the 2.4 iterations of the descent from 0.01 is left.
    assert trainer.storage.latest()["lr"][0] == pytest.approx(0.01 / 2.4)
