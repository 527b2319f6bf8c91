import pytest
import torch
from detectron2.modeling import build_model
from tiny import DEPTH_AUTOENCODER, tiny_config, tiny_multitask_batch

from ldmseg_d2.modeling.depth_normalization import DepthNormalization

SCALE = ("MODEL.LDMSEG.DEPTH.SCALE", "linear")
RELATIVE = (*SCALE, "MODEL.LDMSEG.DEPTH.NORMALIZATION", "relative")
METRIC = (*SCALE, "MODEL.LDMSEG.DEPTH.RANGE", (1.0, 10.0))


def build(*opts):
    torch.manual_seed(0)
    return build_model(tiny_config(DEPTH_AUTOENCODER, *opts))


def depth_inputs(num=2):
    """As the mapper makes them for a model that sees no photo."""
    keys = ("depth", "height", "width", "file_name", "image_id")
    return [{key: entry[key] for key in keys} for entry in tiny_multitask_batch(num)]


def test_loss_is_the_mean_error_of_valid_pixels():
    model = build(*RELATIVE).train()
    batch = depth_inputs()
    batch[1]["depth"] = batch[1]["depth"][:, :40]  # the rest of the square is padding
    decoded = []
    model.autoencoder.register_forward_hook(lambda module, args, output: decoded.append(output))
    losses = model(batch)
    assert set(losses) == {"loss_depth"}
    total, count = 0.0, 0
    for output, entry in zip(decoded[0], batch, strict=True):
        depth, valid = DepthNormalization("relative").normalize(entry["depth"])
        height, width = depth.shape
        error = (output[:height, :width] - depth).abs()[valid]
        total, count = total + float(error.detach().sum()), count + len(error)
    assert count < 64 * 104
    assert float(losses["loss_depth"].detach()) == pytest.approx(total / count, rel=1e-5)
    losses["loss_depth"].backward()
    assert all(p.grad is not None for p in model.parameters())
    # The other end of the network; its residual blocks begin as zero and pass on what they get.
    assert bool(model.autoencoder.encoder[1].weight.grad.any())


def test_nothing_valid_teaches_nothing():
    batch = depth_inputs(1)
    batch[0]["depth"] = torch.zeros(64, 64)
    model = build().train()
    loss = model(batch)["loss_depth"]
    loss.backward()
    assert float(loss) == 0
    assert not any(p.grad.any() for p in model.parameters())


def test_two_pictures_are_learnt_and_come_back_in_metres():
    """Also at another size than the networks see, and with values outside the range clipped."""
    model = build(*METRIC).train()
    batch = depth_inputs()
    batch[1]["depth"][40:, 40:] = 30.0
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        model(batch)["loss_depth"].backward()
        optimizer.step()
    model.eval()
    batch[0].update(height=128, width=32)
    with torch.no_grad():
        outputs = model(batch)
    assert [set(output) for output in outputs] == [{"depth"}, {"depth"}]
    assert outputs[0]["depth"].shape == (128, 32) and outputs[1]["depth"].shape == (64, 64)
    assert outputs[0]["depth"].dtype == torch.float32
    truth = batch[1]["depth"]
    error = (outputs[1]["depth"] - truth.clamp(max=10.0)).abs()[truth > 0]
    # The picture's own deviation is about 3 m.
    assert float(error.mean()) < 0.4
    truth = batch[0]["depth"].repeat_interleave(2, 0)[:, ::2]
    error = (outputs[0]["depth"] - truth).abs()[truth > 0]
    assert float(error.mean()) < 0.4


def test_missing_depth_names_the_keys_that_load_it():
    (entry,) = depth_inputs(1)
    del entry["depth"]
    with pytest.raises(KeyError, match="0.png.*DEPTH_ROOTS.*ANNOTATIONS_AT_TEST"):
        build()([entry])


def test_wrong_normalization_names_its_key():
    with pytest.raises(ValueError, match="MODEL.LDMSEG.DEPTH.NORMALIZATION is 'absolute'"):
        build("MODEL.LDMSEG.DEPTH.NORMALIZATION", "absolute")
