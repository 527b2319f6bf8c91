import pytest
import torch

from ldmseg_d2.diffusion import build_scheduler, diffusion_loss, timestep_loss_weights

SHAPE = (3, 2, 4, 4)


def make(prediction_type="epsilon"):
    scheduler = build_scheduler("DDIM", prediction_type=prediction_type)
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, *SHAPE, generator=generator).unbind(0)
    return scheduler, timestep_loss_weights(scheduler), x0, noise, torch.tensor([3, 400, 990])


@pytest.mark.parametrize("weigh_cells", [False, True])
def test_loss_is_the_weighted_masked_mean(weigh_cells):
    scheduler, weights, x0, noise, t = make()
    valid, cells = torch.rand(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(1)).unbind(0)
    valid = valid > 0.4
    result = diffusion_loss(
        lambda x_t, t, previous: 0.5 * x_t, x0, t, noise,
        scheduler=scheduler, weights=weights, valid=valid,
        cell_weights=cells if weigh_cells else None,
    )  # fmt: skip
    total = count = 0.0
    for b in range(3):
        a = scheduler.alphas_cumprod[t[b]]
        x_t = a.sqrt() * x0[b] + (1 - a).sqrt() * noise[b]
        for cell in torch.nonzero(valid[b, 0]).tolist():
            for c in range(2):
                error = 0.5 * x_t[c][tuple(cell)] - noise[b, c][tuple(cell)]
                weight = weights[t[b]] * (cells[b, 0][tuple(cell)] if weigh_cells else 1)
                total += float(weight * error**2)
                count += 1
    torch.testing.assert_close(float(result.loss), total / count, rtol=1e-4, atol=1e-6)


def test_a_perfect_network_has_no_loss_and_gives_x0():
    for prediction_type in ("epsilon", "sample", "v_prediction"):
        scheduler, weights, x0, noise, t = make(prediction_type)
        target = {
            "epsilon": noise,
            "sample": x0,
            "v_prediction": scheduler.get_velocity(x0, noise, t),
        }[prediction_type]
        result = diffusion_loss(
            lambda *_, target=target: target, x0, t, noise, scheduler=scheduler, weights=weights
        )
        assert float(result.loss) == 0
        torch.testing.assert_close(result.x0, x0, atol=1e-3, rtol=1e-3)


def test_nothing_valid_gives_zero_not_nan():
    scheduler, weights, x0, noise, t = make()
    scale = torch.ones((), requires_grad=True)
    result = diffusion_loss(
        lambda x_t, *_: scale * x_t, x0, t, noise, scheduler=scheduler, weights=weights,
        valid=torch.zeros(3, 1, 4, 4, dtype=torch.bool),
    )  # fmt: skip
    result.loss.backward()
    assert float(result.loss.detach()) == 0 and float(scale.grad) == 0


def test_self_conditioning_sees_the_first_prediction_only_where_chosen():
    scheduler, weights, x0, noise, t = make("sample")
    seen = []

    def denoise(x_t, t, previous):
        seen.append(previous.clone())
        return x_t + 1

    chosen = torch.tensor([True, False, True])
    diffusion_loss(
        denoise, x0, t, noise, scheduler=scheduler, weights=weights, self_conditioning_mask=chosen
    )
    assert len(seen) == 2 and seen[0].abs().max() == 0
    x_t = scheduler.add_noise(x0, noise, t)
    torch.testing.assert_close(seen[1][chosen], (x_t + 1)[chosen])
    assert seen[1][~chosen].abs().max() == 0
