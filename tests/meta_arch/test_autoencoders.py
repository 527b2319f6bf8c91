"""Stage 1, of masks and of depth."""

import pytest
import torch
from bit_autoencoder import BitAutoencoder
from maps import partition
from tiny import (
    AUTOENCODER,
    DEPTH_AUTOENCODER,
    tiny_batch,
    tiny_model,
    tiny_multitask_batch,
    without,
)

from ldmseg_d2.meta_arch import LDMSegAutoencoder

AE = "MODEL.LDMSEG.AUTOENCODER"
PAPER = (
    *(f"{AE}.ENCODER", "conv", f"{AE}.DECODER", "transposed_conv", f"{AE}.HEAD", "id_logits"),
    *(f"{AE}.VARIATIONAL", True, f"{AE}.NORMALIZATION", "fixed"),
)
ALL_LOSSES = (
    *(f"{AE}.LOSS.BCE_WEIGHT", 1.0, f"{AE}.LOSS.DICE_WEIGHT", 1.0, f"{AE}.LOSS.KL_WEIGHT", 1e-6),
    *(f"{AE}.LOSS.NUM_POINTS", 256),
)
DEPTH = "MODEL.LDMSEG.DEPTH"


@pytest.mark.parametrize("variant", [(), PAPER])
def test_all_losses_have_gradients_also_of_void_alone(variant):
    model = tiny_model(AUTOENCODER, *variant, *ALL_LOSSES).train()
    batch = tiny_batch()
    for _ in range(2):
        losses = model(batch)
        assert set(losses) == {"loss_ce", "loss_bce", "loss_dice", "loss_kl"}
        assert all(torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
        batch = tiny_batch(1)
        batch[0]["segment_ids"].zero_()
    assert all(p.grad is not None for p in model.parameters())


def train(model, batch, steps, lr=3e-3):
    optimizer = torch.optim.Adam(model.train().parameters(), lr=lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = sum(model(batch).values())
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_masks_are_learnt():
    model = tiny_model(AUTOENCODER, "MODEL.LDMSEG.NUM_BITS", 3, "INPUT.LDMSEG.IMAGE_SIZE", 32)
    assert set(model.train()(tiny_batch(2, 32))) == {"loss_ce"}, "no others in this config"
    losses = train(model, tiny_batch(2, 32), steps=60)
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_a_perfect_autoencoder_gives_the_partition_back():
    """The path from ids to ids: assignment, head, thresholds, a photo smaller than the square."""
    model = LDMSegAutoencoder(
        autoencoder=BitAutoencoder(5), image_size=64, loss_weights={},
        postprocess={"count_threshold": 1, "overlap_threshold": 0.0},
    ).eval()  # fmt: skip
    batch = [*tiny_batch(2), *tiny_batch(1, 48)]
    outputs = [model(batch) for _ in range(2)]
    for entry, output, again in zip(batch, *outputs, strict=True):
        panoptic, segments_info = output["panoptic_seg"]
        assert partition(panoptic) == partition(entry["segment_ids"])
        assert len(segments_info) == int(entry["segment_ids"].max())
        assert torch.equal(panoptic, again["panoptic_seg"][0])
    with pytest.raises(KeyError, match="ANNOTATIONS_AT_TEST"):
        model(tiny_batch(annotated=False))


def test_depth_is_learnt_and_comes_back_in_metres():
    """Also at another size than the networks see, and with values outside the range clipped."""
    metric = (f"{DEPTH}.RANGE", (1.0, 10.0), f"{DEPTH}.SCALE", "linear")
    model = tiny_model(DEPTH_AUTOENCODER, *metric)
    batch = [without(entry, "image", "segment_ids") for entry in tiny_multitask_batch()]
    batch[1]["depth"][40:, 40:] = 30.0
    train(model, batch, steps=150)
    nothing = [dict(batch[0], depth=torch.zeros(64, 64))]
    assert float(model(nothing)["loss_depth"].detach()) == 0
    with pytest.raises(KeyError, match="0.png.*DEPTH_ROOTS.*ANNOTATIONS_AT_TEST"):
        model([without(batch[0], "depth")])
    batch[0].update(height=128, width=32)
    with torch.no_grad():
        outputs = model.eval()(batch)
    resized = batch[0]["depth"].repeat_interleave(2, 0)[:, ::2]
    for output, truth in zip(outputs, (resized, batch[1]["depth"]), strict=True):
        assert output["depth"].shape == truth.shape and output["depth"].dtype == torch.float32
        error = (output["depth"] - truth.clamp(max=10.0)).abs()[truth > 0]
        assert float(error.mean()) < 0.4  # the pictures' own deviation is about 3 m
