import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ldmseg_d2.modeling.depth_normalization import DepthNormalization

METRES = st.floats(0.125, 1000.0, width=32)
# Near and far limit of "metric".
RANGES = st.tuples(st.floats(0.125, 4.0), st.floats(5.0, 1000.0))


@given(
    depth=st.lists(METRES, min_size=1, max_size=30),
    limits=RANGES,
    scale=st.sampled_from(["linear", "log"]),
)
def test_metric_depth_comes_back_within_its_range(depth, limits, scale):
    normalization = DepthNormalization("metric", limits, scale)
    metres = torch.tensor([depth])
    normalized, valid = normalization.normalize(metres)
    assert bool(valid.all()) and float(normalized.abs().max()) <= 1
    expected = metres.clamp(*limits)
    torch.testing.assert_close(
        normalization.denormalize(normalized), expected, rtol=1e-4, atol=1e-6 * limits[1]
    )


def test_metric_steps_are_equal_differences_or_equal_ratios():
    ends = torch.tensor([[1.0, 4.0, 16.0]])
    linear, _ = DepthNormalization("metric", (1.0, 16.0), "linear").normalize(ends)
    torch.testing.assert_close(linear, torch.tensor([[-1.0, -0.6, 1.0]]))
    log, _ = DepthNormalization("metric", (1.0, 16.0), "log").normalize(ends)
    torch.testing.assert_close(log, torch.tensor([[-1.0, 0.0, 1.0]]))


@given(seed=st.integers(0, 2**31), scale=st.sampled_from(["linear", "log"]))
def test_relative_depth_is_what_numpys_quantiles_say(seed, scale):
    metres = np.random.default_rng(seed).uniform(0.5, 20.0, (9, 11)).astype(np.float32)
    metres[0, :5] = 0  # invalid: takes no part in the quantiles
    normalized, valid = DepthNormalization("relative", scale=scale).normalize(
        torch.from_numpy(metres)
    )
    assert np.array_equal(valid.numpy(), metres > 0)
    values = np.log(metres[metres > 0]) if scale == "log" else metres[metres > 0]
    near, far = np.quantile(values, [0.02, 0.98])
    expected = np.clip(2 * (values - near) / (far - near) - 1, -1, 1)
    np.testing.assert_allclose(normalized.numpy()[metres > 0], expected, atol=1e-5)
    assert not normalized.numpy()[metres == 0].any()


@given(scale=st.floats(0.25, 8.0), shift=st.floats(0.0, 10.0))
def test_relative_depth_forgets_scale_and_shift(scale, shift):
    metres = torch.linspace(1.0, 9.0, 64).view(8, 8)
    normalization = DepthNormalization("relative")
    expected, _ = normalization.normalize(metres)
    torch.testing.assert_close(
        normalization.normalize(metres * scale + shift)[0], expected, atol=1e-4, rtol=0
    )


def test_relative_depth_comes_back_as_a_share():
    normalization = DepthNormalization("relative")
    shares = normalization.denormalize(torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 2.0]))
    torch.testing.assert_close(shares, torch.tensor([0.0, 0.0, 0.5, 0.75, 1.0, 1.0]))


@pytest.mark.parametrize("kind", ["relative", "metric"])
@pytest.mark.parametrize("scale", ["linear", "log"])
def test_invalid_pixels_are_zero_and_marked(kind, scale):
    metres = torch.tensor([[0.0, -1.0, float("inf"), float("nan"), 2.0, 4.0]])
    normalized, valid = DepthNormalization(kind, (1.0, 8.0), scale).normalize(metres)
    assert valid.tolist() == [[False, False, False, False, True, True]]
    assert normalized[~valid].tolist() == [0.0] * 4
    assert bool(torch.isfinite(normalized).all())
    nothing, valid = DepthNormalization(kind, (1.0, 8.0), scale).normalize(torch.zeros(2, 3))
    assert not valid.any() and not nothing.any()


@given(metres=METRES, scale=st.sampled_from(["linear", "log"]))
def test_a_flat_picture_is_finite(metres, scale):
    """Both quantiles are one value, to which a small number may be too small to be added."""
    normalized, valid = DepthNormalization("relative", scale=scale).normalize(
        torch.full((3, 4), metres)
    )
    assert bool(valid.all()) and bool(torch.isfinite(normalized).all())
    assert len(normalized.unique()) == 1 and float(normalized.abs().max()) <= 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("absolute",), "DEPTH.NORMALIZATION is 'absolute'; allowed: relative, metric"),
        (("metric", (0.5, 80.0), "sqrt"), "DEPTH.SCALE is 'sqrt'; allowed: linear, log"),
        (("metric", (0.0, 80.0)), "DEPTH.RANGE is"),
        (("metric", (5.0, 2.0)), "0 < near < far"),
        (("metric", (1.0, 2.0, 3.0)), "takes two metres"),
    ],
)
def test_wrong_values_name_their_keys(arguments, message):
    with pytest.raises(ValueError, match=message):
        DepthNormalization(*arguments).normalize(torch.ones(1, 1))
    with pytest.raises(ValueError, match=message):
        DepthNormalization(*arguments).denormalize(torch.ones(1, 1))
