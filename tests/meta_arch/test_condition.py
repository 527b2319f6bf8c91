"""The image encoder alone, and the condition that it makes for LDMSeg."""

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from tiny import CLASSES, JOINT, tiny_config, tiny_multitask_batch
from torch.nn import functional as F

from ldmseg_d2.meta_arch.batching import stack_images
from ldmseg_d2.meta_arch.condition import CellSupervision, condition_channels
from ldmseg_d2.modeling.class_head import CellHead

ENCODER = "MODEL.LDMSEG.IMAGE_ENCODER"
CELLS = (f"{ENCODER}.CELL_LOSS_WEIGHT", 1.0, f"{ENCODER}.CELL_LOSS_SUBDIVISION", 2)
PROBS = (*CELLS, f"{ENCODER}.CELL_PROBS", True)
ALONE = (*CELLS, "MODEL.META_ARCHITECTURE", "LDMSegImageEncoder")


def build(*opts):
    torch.manual_seed(0)
    return build_model(tiny_config(JOINT, *CLASSES, *opts))


def inputs(num=2):
    return [dict(entry, sample_seed=7) for entry in tiny_multitask_batch(num)]


def test_loss_and_semantic_map_are_those_of_the_cells():
    model, batch = build(*ALONE, f"{ENCODER}.PADDING", "mean"), inputs()
    batch[1]["image"], batch[1]["sem_seg"] = (
        batch[1][key][..., :40] for key in ("image", "sem_seg")
    )
    photos = torch.zeros(2, 3, 64, 64)
    for photo, entry in zip(photos, batch, strict=True):
        width = entry["image"].shape[-1]
        photo[..., :width] = (entry["image"] - model.pixel_mean) / model.pixel_std
    features = model.image_encoder(photos)
    logits = model.supervision.head(features)
    assert logits.shape == (2, 4, 2 * features.shape[2], 2 * features.shape[3])
    classes = torch.full((2, 64, 64), 255)
    classes[0], classes[1, :, :40] = batch[0]["sem_seg"], batch[1]["sem_seg"]
    pixels = logits.repeat_interleave(64 // logits.shape[2], 2)
    pixels = pixels.repeat_interleave(64 // logits.shape[3], 3)
    expected = F.cross_entropy(pixels, classes, ignore_index=255)
    losses = model.train()(batch)
    assert set(losses) == {"loss_cells"}
    torch.testing.assert_close(losses["loss_cells"], expected)

    batch[1].update(height=128, width=80)
    with torch.no_grad():
        outputs = model.eval()(batch)
    shapes = [tuple(output["sem_seg"].shape) for output in outputs]
    assert shapes == [(4, 64, 64), (4, 128, 80)]
    for output in outputs:
        torch.testing.assert_close(
            output["sem_seg"].sum(0), torch.ones(output["sem_seg"].shape[1:])
        )
    whole = F.interpolate(logits, size=(64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(outputs[0]["sem_seg"], whole[0].softmax(0))


def test_it_learns_two_pictures():
    model, batch = build(*ALONE).train(), inputs()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        model(batch)["loss_cells"].backward()
        optimizer.step()
    with torch.no_grad():
        outputs = model.eval()(batch)
    for output, entry in zip(outputs, batch, strict=True):
        labelled = entry["sem_seg"] != 255
        right = (output["sem_seg"].argmax(0) == entry["sem_seg"])[labelled]
        assert right.float().mean() > 0.95


@pytest.mark.parametrize("subdivision", [1, 2])
def test_the_condition_holds_the_probabilities_of_the_cells(subdivision):
    torch.manual_seed(0)
    head = CellHead(in_channels=5, num_classes=3, subdivision=subdivision)
    features = torch.randn(2, 5, 4, 4)
    assert CellSupervision(head, loss_weight=1.0).extend(features) is features
    supervision = CellSupervision(head, loss_weight=1.0, probs_in_condition=True)
    condition = supervision.extend(features)
    assert condition.shape == (2, 5 + 3 * subdivision**2, 4, 4)
    torch.testing.assert_close(condition[:, :5], features)
    probs = (condition[:, 5:] + 1) / 2
    for y in range(subdivision):
        for x in range(subdivision):
            part = y * subdivision + x
            logits = head(features)[:, :, y::subdivision, x::subdivision]
            torch.testing.assert_close(probs[:, part :: subdivision**2], logits.softmax(1))
    # The loss reads the features alone.
    batch = inputs()
    torch.testing.assert_close(
        supervision.losses(condition, batch, 64), supervision.losses(features, batch, 64)
    )


def test_ldmseg_sees_the_probabilities_and_cannot_bend_them():
    model, plain = build(*PROBS), build(*CELLS)
    cfg = tiny_config(JOINT, *CLASSES, *PROBS)
    extra = condition_channels(cfg) - 8
    assert extra == 4 * 2**2
    assert (
        model.denoiser.unet.conv_in.in_channels == plain.denoiser.unet.conv_in.in_channels + extra
    )
    losses = model.train()(inputs())
    assert losses.keys() == plain.train()(inputs()).keys()
    others = sum(value for name, value in losses.items() if name != "loss_cells")
    others.backward(retain_graph=True)
    assert model.supervision.head.conv.weight.grad is None
    assert any(p.grad.any() for p in model.image_encoder.parameters())
    losses["loss_cells"].backward()
    assert model.supervision.head.conv.weight.grad.any()
    with torch.no_grad():
        outputs = model.eval()(inputs())
    assert outputs[0]["sem_seg"].shape[1:] == (64, 64) and "panoptic_seg" in outputs[0]


@torch.no_grad()
def test_the_semantic_map_is_averaged_with_the_cells():
    batch = inputs()
    batch[1]["image"] = batch[1]["image"][..., :40]
    batch[1].update(height=128, width=80)
    found = {}
    for share in (0.0, 0.25, 1.0):
        model = build(*CELLS, f"{ENCODER}.CELL_SHARE", share).eval()
        found[share] = [output["sem_seg"] for output in model(batch)]
    alone = build(*ALONE).eval()
    alone.load_state_dict(model.state_dict(), strict=False)
    cells = [output["sem_seg"] for output in alone(batch)]
    for task, quarter, whole, cell in zip(*found.values(), cells, strict=True):
        torch.testing.assert_close(whole, cell)
        torch.testing.assert_close(quarter, 0.75 * task + 0.25 * cell)
        assert not torch.allclose(task, cell, atol=0.01)


def test_the_cells_know_no_void():
    supervision = build(*CELLS, f"{ENCODER}.CELL_SHARE", 0.25).supervision
    features = torch.randn(supervision.head.in_channels + 3, 4, 4)  # with further channels
    void = torch.zeros(5, 8, 8)
    void[0] = 1
    entry = {"image": torch.zeros(3, 64, 64)}
    mixed = supervision.mix(void, features, entry, side=64)
    torch.testing.assert_close(mixed[0], torch.full((8, 8), 0.75))
    torch.testing.assert_close(mixed.sum(0), torch.ones(8, 8))


def test_a_trained_encoder_is_taken_over(tmp_path):
    alone = build(*ALONE)
    for parameter in alone.parameters():
        torch.nn.init.normal_(parameter)
    path = str(tmp_path / "encoder.pth")
    torch.save({"model": alone.state_dict()}, path)
    model = build(*PROBS, f"{ENCODER}.WEIGHTS", path)
    taken = model.state_dict()
    assert alone.state_dict() and all(
        torch.equal(taken[key], value) for key, value in alone.state_dict().items()
    )
    # A checkpoint of the whole model brings its own encoder: the file is not even looked for.
    weights = ("MODEL.WEIGHTS", "whole.pth", f"{ENCODER}.WEIGHTS", "gone.pth")
    tiny = tiny_config(JOINT, *CLASSES, *PROBS)
    tiny.merge_from_list(list(weights))
    build_model(tiny)
    # But not what is frozen, which no checkpoint holds.
    tiny.MODEL.LDMSEG.IMAGE_ENCODER.FREEZE = True
    with pytest.raises(
        FileNotFoundError, match="IMAGE_ENCODER.WEIGHTS: .*gone.pth.* Train the enc"
    ):
        build_model(tiny)


def test_other_weights_are_refused_by_name(tmp_path):
    path = str(tmp_path / "other.pth")
    model = build(*CELLS)
    torch.save({"model": model.autoencoder.state_dict()}, path)
    with pytest.raises(ValueError, match=r"IMAGE_ENCODER.WEIGHTS .*other.pth: no weights of image"):
        build(*CELLS, f"{ENCODER}.WEIGHTS", path)
    torch.save({"model": build(f"{ENCODER}.CELL_LOSS_WEIGHT", 1.0).state_dict()}, path)
    with pytest.raises(ValueError, match=r"other.pth' do not fit the CellSupervision(.|\n)*head"):
        build(*CELLS, f"{ENCODER}.WEIGHTS", path)


def test_settings_that_need_the_layer():
    with pytest.raises(ValueError, match="CELL_LOSS_WEIGHT, which is 0: set it to 1.0"):
        build("MODEL.META_ARCHITECTURE", "LDMSegImageEncoder")
    with pytest.raises(ValueError, match="CELL_PROBS needs the layer of CELL_LOSS_WEIGHT"):
        build(f"{ENCODER}.CELL_PROBS", True)
    with pytest.raises(ValueError, match="CELL_SHARE needs the layer of CELL_LOSS_WEIGHT"):
        build(f"{ENCODER}.CELL_SHARE", 0.5)
    with pytest.raises(ValueError, match=r"CELL_SHARE must be in \[0, 1\], got 1.5"):
        build(*CELLS, f"{ENCODER}.CELL_SHARE", 1.5)


@pytest.mark.parametrize("padding", ["mean", "edge"])
def test_what_fills_a_photo_up(padding):
    photo = torch.randint(0, 255, (3, 20, 30), dtype=torch.uint8)
    mean, std = torch.full((3, 1, 1), 100.0), torch.full((3, 1, 1), 50.0)
    (square,) = stack_images([{"image": photo}], 32, mean, std, padding=padding)
    expected = np.pad(
        (photo.numpy() - 100.0) / 50.0,
        [(0, 0), (0, 12), (0, 2)],
        **({"mode": "edge"} if padding == "edge" else {"mode": "constant"}),
    )
    torch.testing.assert_close(square, torch.from_numpy(expected).float())


def test_padding_reaches_both_models_and_unknown_one_is_named():
    key = f"{ENCODER}.PADDING"
    entry = {**inputs(1)[0], "height": 40, "width": 64}
    entry["image"] = entry["image"][:, :40]
    for opts in (CELLS, ALONE):
        model = build(*opts, key, "edge").eval()
        seen = []
        model.image_encoder.register_forward_pre_hook(
            lambda _, args, seen=seen: seen.append(args[0])
        )
        with torch.no_grad():
            model([entry])
        assert torch.equal(seen[0][0, :, 40:], seen[0][0, :, 39:40].expand(-1, 24, -1))
    for opts in (CELLS, ALONE):
        with pytest.raises(ValueError, match="ENCODER.PADDING is 'zeros'; allowed: mean, edge"):
            build(*opts, key, "zeros")
