import pytest
import torch
from test_schedule import PREDICTION_TYPES

from ldmseg_d2.diffusion import build_scheduler, diffusion_loss, timestep_loss_weights

B, C, H, W = 3, 2, 4, 4


def make(prediction_type="epsilon"):
    """The scheduler and weights of a loss, and x0, t and noise."""
    scheduler = build_scheduler("DDPM", prediction_type=prediction_type)
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, B, C, H, W, generator=generator)
    arguments = {"scheduler": scheduler, "weights": timestep_loss_weights(scheduler)}
    return arguments, x0, torch.tensor([3, 400, 990]), noise


@pytest.mark.parametrize("channels", [1, C])
@pytest.mark.parametrize("masked, weighted, inpainting, self_conditioned",
    [(False,) * 4, (True, False, True, True), (False, True, True, False), (True,) * 4])  # fmt: skip
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_loss_is_the_weighted_masked_mean(
    prediction_type, masked, weighted, inpainting, self_conditioned, channels
):
    """Against a loop over all values, for the network x_t / 2 + 0.3 condition + 0.1 previous."""
    arguments, x0, t, noise = make(prediction_type)
    generator = torch.Generator().manual_seed(1)
    valid, cells, known = torch.rand(3, B, channels, H, W, generator=generator)
    valid, known, chosen = valid > 0.4, known > 0.6, torch.tensor([True, False, True])
    modes: list[bool] = []
    condition = torch.randn(B, C, H, W, generator=generator)

    def denoise(x_t, t, previous, *, condition):
        assert (previous is not None) == self_conditioned
        modes.append(torch.is_grad_enabled())
        return 0.5 * x_t + 0.3 * condition + (0.1 * previous if self_conditioned else 0)

    result = diffusion_loss(
        denoise, x0, t, noise, conditions={"condition": condition}, **arguments,
        valid=valid if masked else None, cell_weights=cells if weighted else None,
        known=known if inpainting else None,
        self_conditioning_mask=chosen if self_conditioned else None,
    )  # fmt: skip

    assert modes == ([False, True] if self_conditioned else [True])
    total, count = 0.0, 0
    for b, c, y, x in torch.cartesian_prod(*map(torch.arange, (B, C, H, W))).tolist():
        cell = (b, c if channels > 1 else 0, y, x)
        alpha = float(arguments["scheduler"].alphas_cumprod[t[b]])
        a, s = alpha**0.5, (1 - alpha) ** 0.5
        clean, epsilon = float(x0[b, c, y, x]), float(noise[b, c, y, x])
        x_t = clean if inpainting and known[cell] else a * clean + s * epsilon
        output = 0.5 * x_t + 0.3 * float(condition[b, c, y, x])
        if self_conditioned and chosen[b]:
            first = {
                "epsilon": (x_t - s * output) / a,
                "sample": output,
                "v_prediction": a * x_t - s * output,
            }[prediction_type]
            output += 0.1 * first
        velocity = a * epsilon - s * clean
        target = {"epsilon": epsilon, "sample": clean, "v_prediction": velocity}[prediction_type]
        weight = float(arguments["weights"][t[b]]) * (float(cells[cell]) if weighted else 1)
        if (inpainting and known[cell]) or (masked and not valid[cell]):
            assert result.error[b, c, y, x] == 0
            continue
        count += 1
        total += weight * (output - target) ** 2
        expected = pytest.approx(weight * (output - target) ** 2, rel=1e-3, abs=1e-4)
        assert float(result.error[b, c, y, x]) == expected
    assert int(result.num_valid) == count
    assert float(result.loss) == pytest.approx(total / count, rel=1e-4)


def test_nothing_valid_gives_zero_not_nan():
    arguments, x0, t, noise = make()
    scale = torch.ones((), requires_grad=True)
    result = diffusion_loss(
        lambda x_t, *_: scale * x_t, x0, t, noise, conditions={}, **arguments,
        valid=torch.zeros(B, 1, H, W, dtype=torch.bool),
    )  # fmt: skip
    result.loss.backward()
    assert float(result.loss.detach()) == 0 and float(scale.grad) == 0
