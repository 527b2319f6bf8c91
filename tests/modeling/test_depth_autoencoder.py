import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ldmseg_d2.modeling.depth_autoencoder import DepthAutoencoder, DepthNormalization

SCALES = st.sampled_from(["linear", "log"])
# Near and far limit of "metric".
RANGES = st.tuples(st.floats(0.125, 4.0), st.floats(5.0, 1000.0))


@given(
    depth=st.lists(st.floats(0.125, 1000.0, width=32), min_size=1, max_size=30),
    limits=RANGES,
    scale=SCALES,
)
def test_metric_depth_comes_back_within_its_range(depth, limits, scale):
    normalization = DepthNormalization("metric", limits, scale)
    metres = torch.tensor([depth])
    normalized, valid = normalization.normalize(metres)
    assert bool(valid.all()) and float(normalized.abs().max()) <= 1
    torch.testing.assert_close(
        normalization.denormalize(normalized),
        metres.clamp(*limits),
        rtol=1e-4,
        atol=1e-6 * limits[1],
    )


@given(seed=st.integers(0, 2**31), scale=SCALES, zoom=st.floats(0.25, 8.0))
def test_relative_depth_is_what_numpys_quantiles_say(seed, scale, zoom):
    metres = np.random.default_rng(seed).uniform(0.5, 20.0, (9, 11)).astype(np.float32)
    metres[0, :5] = 0  # invalid: takes no part in the quantiles
    normalization = DepthNormalization("relative", scale=scale)
    normalized, valid = normalization.normalize(torch.from_numpy(metres))
    assert np.array_equal(valid.numpy(), metres > 0)
    values = np.log(metres[metres > 0]) if scale == "log" else metres[metres > 0]
    near, far = np.quantile(values, [0.02, 0.98])
    expected = np.clip(2 * (values - near) / (far - near) - 1, -1, 1)
    np.testing.assert_allclose(normalized.numpy()[metres > 0], expected, atol=1e-5)
    # Scale is forgotten; what comes back is a share.
    zoomed, _ = normalization.normalize(torch.from_numpy(metres) * zoom)
    torch.testing.assert_close(zoomed, normalized, atol=1e-4, rtol=0)
    torch.testing.assert_close(normalization.denormalize(normalized), (normalized + 1) / 2)


@pytest.mark.parametrize("kind", ["relative", "metric"])
@pytest.mark.parametrize("scale", ["linear", "log"])
def test_invalid_pixels_are_zero_and_a_flat_picture_is_finite(kind, scale):
    normalization = DepthNormalization(kind, (1.0, 8.0), scale)
    metres = torch.tensor([[0.0, -1.0, float("inf"), float("nan"), 2.0, 4.0]])
    normalized, valid = normalization.normalize(metres)
    assert valid.tolist() == [[False, False, False, False, True, True]]
    assert normalized[~valid].tolist() == [0.0] * 4
    assert bool(torch.isfinite(normalized).all())
    nothing, valid = normalization.normalize(torch.zeros(2, 3))
    assert not valid.any() and not nothing.any()
    for value in (0.125, 3.0, 1000.0):
        flat, valid = normalization.normalize(torch.full((3, 4), value))
        assert bool(valid.all()) and len(flat.unique()) == 1 and float(flat.abs().max()) <= 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("absolute",), "DEPTH.NORMALIZATION is 'absolute'; allowed: relative, metric"),
        (("metric", (0.5, 80.0), "sqrt"), "DEPTH.SCALE is 'sqrt'; allowed: linear, log"),
        (("metric", (5.0, 2.0)), "DEPTH.RANGE is.*0 < near < far"),
        (("metric", (1.0, 2.0, 3.0)), "takes two metres"),
    ],
)
def test_wrong_values_name_their_keys(arguments, message):
    with pytest.raises(ValueError, match=message):
        DepthNormalization(*arguments).normalize(torch.ones(1, 1))
    with pytest.raises(ValueError, match="DEPTH.AUTOENCODER.DOWNSAMPLE_FACTOR"):
        DepthAutoencoder(downsample_factor=3)


@pytest.fixture
def autoencoder():
    torch.manual_seed(0)
    return DepthAutoencoder(downsample_factor=4, latent_channels=6, channels=8, num_layers=1).eval()


def test_invalid_pixels_are_not_read_but_known_to_be_invalid(autoencoder):
    depth, valid = torch.zeros(1, 16, 24), torch.ones(1, 16, 24, dtype=torch.bool)
    valid[:, 3:9, 5:11] = False
    other = depth.where(valid, torch.tensor(float("nan")))
    latents = autoencoder.encode(depth, valid)
    assert latents.shape == (1, 6, 4, 6) and autoencoder.decode(latents).shape == (1, 16, 24)
    assert torch.equal(autoencoder.encode(other, valid), latents)
    assert not torch.equal(autoencoder.encode(depth, torch.ones_like(valid)), latents)


@torch.no_grad()
def test_training_follows_the_latents_mean_and_variance(autoencoder):
    depth, valid = torch.rand(4, 16, 16) * 2 - 1, torch.ones(4, 16, 16, dtype=torch.bool)
    raw = autoencoder.encode(depth, valid)
    autoencoder(depth, valid)
    assert not autoencoder.running_mean.any(), "only in training"
    autoencoder.train()(depth, valid)
    torch.testing.assert_close(autoencoder.running_mean, 0.02 * raw.mean((0, 2, 3)))
    torch.testing.assert_close(autoencoder.running_var, 0.98 + 0.02 * raw.var((0, 2, 3)))
