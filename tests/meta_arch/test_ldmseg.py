import logging

import pytest
import torch
from detectron2.modeling import build_model
from tiny import tiny_batch, tiny_config


def build(*opts, seed=0):
    torch.manual_seed(seed)
    return build_model(tiny_config("scenes/ldmseg_scenes64.yaml", *opts))


def maps(outputs):
    return [output["panoptic_seg"][0] for output in outputs]


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    "assignment", ["random", "ordered", "positional", "matched", "matched_positional"]
)
def test_training_gives_scalar_losses_and_gradients(prediction_type, assignment):
    model = build(
        "MODEL.LDMSEG.DIFFUSION.PREDICTION_TYPE", prediction_type,
        "MODEL.LDMSEG.ID_ASSIGNMENT", assignment,
        "MODEL.LDMSEG.DIFFUSION.MASKED_LOSS", True,
        "MODEL.LDMSEG.DIFFUSION.DECODED_LOSS_WEIGHT", 0.1,
    ).train()  # fmt: skip
    losses = model(tiny_batch())
    assert set(losses) == {"loss_diffusion", "loss_decoded"}
    assert all(loss.shape == () and torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if name.startswith("autoencoder."):
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name


def test_training_is_reproducible_by_torchs_seed():
    model = build().train()
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(float(model(tiny_batch())["loss_diffusion"].detach()))
    assert values[0] == values[1] != values[2]


def test_frozen_autoencoder_stays_in_eval_mode_and_says_so():
    model = build().train()
    assert model.frozen_prefixes == ("autoencoder.",)
    assert not model.autoencoder.training and model.denoiser.training
    frozen = build("MODEL.LDMSEG.IMAGE_ENCODER.FREEZE", True).train()
    assert not frozen.image_encoder.training
    assert all(not p.requires_grad for p in frozen.image_encoder.parameters())
    sum(frozen(tiny_batch()).values()).backward()


def test_inference_has_the_inputs_size_and_consistent_segments():
    model = build("MODEL.LDMSEG.POSTPROCESS.MIN_SEGMENT_SCORE", 0.0).eval()
    batch = tiny_batch(annotated=False)
    batch[1].update(height=97, width=113)
    outputs = model(batch)
    assert [tuple(m.shape) for m in maps(outputs)] == [(64, 64), (97, 113)]
    for output in outputs:
        panoptic, segments_info = output["panoptic_seg"]
        assert panoptic.dtype == torch.int32
        assert {s["id"] for s in segments_info} == set(panoptic.unique().tolist()) - {0}
        for s in segments_info:
            assert s["area"] == int((panoptic == s["id"]).sum()) and 0 <= s["score"] <= 1
            assert s["category_id"] == 0 and s["isthing"] is True


@pytest.mark.parametrize("sampler", ["DDIM", "DDPM"])
def test_a_result_depends_on_neither_batch_nor_neighbours(sampler):
    model = build(
        "MODEL.LDMSEG.SAMPLER.NAME", sampler, "MODEL.LDMSEG.POSTPROCESS.MIN_SEGMENT_SCORE", 0.0
    ).eval()
    batch = tiny_batch(3, annotated=False)
    together = maps(model(batch))
    alone = [maps(model([entry]))[0] for entry in batch]
    # Convolutions of another batch size may round differently: a few pixels on a tie.
    for a, b in zip(together, alone, strict=True):
        assert (a != b).float().mean() < 0.005
    assert torch.equal(maps(model(batch))[0], together[0])
    other = dict(batch[0], seed=123)
    assert not torch.equal(maps(model([other]))[0], alone[0])


def test_return_steps_decodes_intermediate_predictions():
    model = build("MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS", 5).eval()
    batch = tiny_batch(annotated=False)
    batch[0]["return_steps"] = 3
    first, second = model(batch)
    assert [step["timestep"] for step in first["steps"]] == [999, 599, 199]
    assert torch.equal(first["steps"][-1]["panoptic_seg"][0], first["panoptic_seg"][0])
    assert "steps" not in second


def test_padding_is_cut_away():
    """A photo smaller than the square: the result shows the photo, not the padding."""
    padding = ("MODEL.LDMSEG.IMAGE_ENCODER.PADDING", "mean")
    model = build("MODEL.LDMSEG.POSTPROCESS.MIN_SEGMENT_SCORE", 0.0, *padding).eval()
    entry = tiny_batch(1, annotated=False)[0]
    entry["image"] = entry["image"][:, :48]
    entry["height"] = 48
    cut = maps(model([entry]))[0]
    padded = dict(entry, image=torch.nn.functional.pad(entry["image"], (0, 0, 0, 16), value=127))
    padded["height"] = 64
    whole = maps(model([padded]))[0]
    # 127 is not exactly the mean of 127.5: nearly the same network input.
    assert (cut != whole[:48]).float().mean() < 0.02


def test_more_segments_than_ids_become_void_with_a_warning(caplog):
    model = build("MODEL.LDMSEG.NUM_BITS", 2, "MODEL.LDMSEG.ID_ASSIGNMENT", "random").train()
    batch = tiny_batch(1)
    batch[0]["segment_ids"] = (
        torch.arange(64).view(8, 8).repeat_interleave(8, 0).repeat_interleave(8, 1)
    )
    with caplog.at_level(logging.WARNING):
        model(batch)
    assert "60 segments in 1 of 1 images became void" in caplog.text


def test_missing_segment_ids_and_large_photos_raise():
    model = build().train()
    with pytest.raises(KeyError, match="segment_ids"):
        model(tiny_batch(annotated=False))
    big = tiny_batch(1)
    big[0]["image"] = torch.zeros(3, 80, 64, dtype=torch.uint8)
    with pytest.raises(ValueError, match="larger than INPUT.LDMSEG.IMAGE_SIZE 64"):
        model(big)


@pytest.mark.parametrize(
    "key,value,message",
    [
        ("MODEL.LDMSEG.DIFFUSION.DECODED_LOSS_BALANCE", 1.5, "DECODED_LOSS_BALANCE must be from 0"),
        ("MODEL.LDMSEG.DIFFUSION.SEGMENT_BALANCE", -0.1, "SEGMENT_BALANCE must be from 0"),
        ("MODEL.LDMSEG.ID_ASSIGNMENT", "sorted", "random"),
        ("MODEL.LDMSEG.DIFFUSION.PREDICTION_TYPE", "x0", "epsilon"),
        ("MODEL.LDMSEG.SAMPLER.NAME", "Euler", "DDIM"),
        ("INPUT.LDMSEG.IMAGE_SIZE", 66, "multiple of"),
        ("INPUT.LDMSEG.IMAGE_SIZE", 68, "denoiser's levels"),
        ("MODEL.LDMSEG.NUM_BITS", 1, "must be 2..16"),
    ],
)
def test_wrong_config_values_name_the_key(key, value, message):
    with pytest.raises(ValueError, match=message) as error:
        build(key, value)
    assert key in str(error.value)


def test_weights_of_another_autoencoder_are_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"autoencoder.encoder.0.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(ValueError, match="MODEL.LDMSEG.AUTOENCODER.WEIGHTS"):
        build("MODEL.LDMSEG.AUTOENCODER.WEIGHTS", str(path))
    with pytest.raises(FileNotFoundError, match="missing.pth"):
        build("MODEL.LDMSEG.AUTOENCODER.WEIGHTS", str(tmp_path / "missing.pth"))
