import pytest
import torch
from detectron2.modeling import build_model
from tiny import AUTOENCODER, tiny_batch, tiny_config

from ldmseg_d2.ids import encode_bits

PAPER = (
    "MODEL.LDMSEG.AUTOENCODER.ENCODER", "conv",
    "MODEL.LDMSEG.AUTOENCODER.DECODER", "transposed_conv",
    "MODEL.LDMSEG.AUTOENCODER.HEAD", "id_logits",
    "MODEL.LDMSEG.AUTOENCODER.NUM_UPSAMPLINGS", 1,
    "MODEL.LDMSEG.AUTOENCODER.VARIATIONAL", True,
    "MODEL.LDMSEG.AUTOENCODER.NORMALIZATION", "fixed",
    "MODEL.LDMSEG.AUTOENCODER.LATENT_NOISE", 0.0,
)  # fmt: skip
ALL_LOSSES = (
    "MODEL.LDMSEG.AUTOENCODER.LOSS.BCE_WEIGHT", 1.0,
    "MODEL.LDMSEG.AUTOENCODER.LOSS.DICE_WEIGHT", 1.0,
    "MODEL.LDMSEG.AUTOENCODER.LOSS.KL_WEIGHT", 1e-6,
    "MODEL.LDMSEG.AUTOENCODER.LOSS.NUM_POINTS", 256,
)  # fmt: skip


def build(*opts):
    torch.manual_seed(0)
    return build_model(tiny_config(AUTOENCODER, *opts))


@pytest.mark.parametrize("variant", [(), PAPER])
@pytest.mark.parametrize("crop", [0, 32])
def test_all_losses_have_gradients(variant, crop):
    model = build(*variant, *ALL_LOSSES, "MODEL.LDMSEG.AUTOENCODER.LOSS.CROP_SIZE", crop).train()
    losses = model(tiny_batch())
    assert set(losses) == {"loss_ce", "loss_bce", "loss_dice", "loss_kl"}
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_losses_without_weight_are_left_out():
    assert set(build().train()(tiny_batch())) == {"loss_ce"}


def test_a_picture_that_is_all_void_trains():
    batch = tiny_batch(1)
    batch[0]["segment_ids"].zero_()
    losses = build(*ALL_LOSSES).train()(batch)
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_both_heads_have_the_same_segment_logits():
    """BCE and dice of the factored head read the channel that id_logits would show."""
    model = build(*ALL_LOSSES)
    head = torch.randn(2, 8, 4, 6)
    ids = torch.randint(0, 5, (2, 4, 6))
    logits, masks = model._segment_logits(head, ids)
    full = model.autoencoder.id_logits(head).flatten(2)
    row = 0
    for b in range(2):
        for label in sorted(set(ids[b].flatten().tolist()) - {0}):
            torch.testing.assert_close(logits[row], full[b, label])
            assert torch.equal(masks[row], ids[b].flatten() == label)
            row += 1
    assert row == len(logits)


def test_inference_gives_back_the_partition_that_a_perfect_decoder_decodes(monkeypatch):
    """The path from ids to ids without the networks between: assignment, head, fusion, size."""
    model = build().eval()

    def perfect(ids):
        void = torch.where(ids == 0, 90.0, -90.0).unsqueeze(1)
        return torch.cat([10 * encode_bits(ids, 7), void], dim=1), None

    monkeypatch.setattr(model.autoencoder, "forward", perfect)
    batch = tiny_batch(3)
    for entry, output in zip(batch, model(batch)):
        panoptic, segments_info = output["panoptic_seg"]
        truth = entry["segment_ids"]
        pairs = set(zip(truth.flatten().tolist(), panoptic.flatten().tolist()))
        assert len(pairs) == len(truth.unique()) == len(panoptic.unique())
        assert (0, 0) in pairs and len(segments_info) == int(truth.max())


def test_reconstruction_is_reproducible_and_needs_ids():
    model = build().eval()
    first, second = (model(tiny_batch())[1]["panoptic_seg"][0] for _ in range(2))
    assert torch.equal(first, second)
    with pytest.raises(KeyError, match="ANNOTATIONS_AT_TEST"):
        model(tiny_batch(annotated=False))


def test_crop_must_fit():
    with pytest.raises(ValueError, match="CROP_SIZE 30"):
        build("MODEL.LDMSEG.AUTOENCODER.LOSS.CROP_SIZE", 30)
