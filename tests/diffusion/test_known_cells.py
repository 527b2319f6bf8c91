"""The ways to put known latents back, on a network that is one line."""

import pytest
import torch

from ldmseg_d2.config import SAMPLERS
from ldmseg_d2.diffusion import (
    INPAINTING_METHODS,
    build_scheduler,
    initial_noise,
    output_of_x0,
    predicted_x0,
    sample_latents,
)
from ldmseg_d2.diffusion.inpainting import KnownLatents, repaint_visits

SHAPE = (2, 4, 4)
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def denoise(x_t, t, previous):
    """Mixes neighbouring cells, differs at every timestep, and feels the previous prediction."""
    out = torch.tanh(x_t + x_t.roll(1, dims=3)) * (t.view(-1, 1, 1, 1) / 1000)
    return out if previous is None else out + 0.1 * previous


def left_half(*known_rows, batch):
    mask = torch.zeros(batch, 1, 4, 4, dtype=torch.bool)
    mask[list(known_rows), :, :, :2] = True
    return mask


def complete(seeds, mask, method, *, scheduler="DDPM", prediction="sample", steps=6, **kwargs):
    own = generators(*seeds)
    latents = torch.stack([torch.full(SHAPE, 0.1 * seed) for seed in seeds])
    return latents, sample_latents(
        kwargs.pop("denoise", denoise), initial_noise(SHAPE, own),
        scheduler=build_scheduler(scheduler, prediction_type=prediction),
        num_inference_steps=steps, self_conditioning=True, generators=own,
        known_latents=latents, known_mask=mask, inpainting=method,
        repaint_jump_length=2, repaint_resamples=3, **kwargs,
    )  # fmt: skip


@pytest.mark.parametrize("prediction", PREDICTION_TYPES)
@pytest.mark.parametrize("scheduler", SAMPLERS)
@pytest.mark.parametrize("method", INPAINTING_METHODS)
def test_known_cells_come_out_as_given_and_one_seed_gives_one_result(method, scheduler, prediction):
    mask = left_half(0, 1, batch=2)
    arguments = {"scheduler": scheduler, "prediction": prediction}
    latents, first = complete((3, 4), mask, method, **arguments)
    keep = mask.expand_as(first)
    assert torch.equal(first[keep], latents[keep])
    assert torch.isfinite(first).all()
    _, again = complete((3, 4), mask, method, **arguments)
    assert torch.equal(first, again)
    nothing = torch.zeros_like(mask)
    _, free = complete((3, 4), nothing, method, **arguments)
    assert not torch.allclose(free[~keep], first[~keep])


@pytest.mark.parametrize("scheduler", SAMPLERS)
@pytest.mark.parametrize("method", INPAINTING_METHODS)
def test_a_sample_depends_on_no_other_known_or_not(method, scheduler):
    _, together = complete((3, 4, 5), left_half(1, batch=3), method, scheduler=scheduler)
    _, alone = complete((4,), left_half(0, batch=1), method, scheduler=scheduler)
    torch.testing.assert_close(together[1:2], alone)
    own = generators(5)
    without = sample_latents(
        denoise, initial_noise(SHAPE, own),
        scheduler=build_scheduler(scheduler, prediction_type="sample"),
        num_inference_steps=6, self_conditioning=True, generators=own,
    )  # fmt: skip
    torch.testing.assert_close(together[2:], without)


@pytest.mark.parametrize("method", INPAINTING_METHODS)
def test_what_the_network_sees_of_the_known_cells(method):
    """Clean, or with the variance 1 - alphas_cumprod around a times the known value."""
    shape, seen = (1, 64, 64), []
    scheduler = build_scheduler("DDIM", prediction_type="sample")

    def record(x_t, t, previous):
        seen.append((int(t[0]), x_t.clone()))
        return torch.zeros_like(x_t)

    own = generators(0)
    sample_latents(
        record, initial_noise(shape, own), scheduler=scheduler, num_inference_steps=5,
        self_conditioning=False, generators=own, known_latents=torch.full((1, *shape), 2.0),
        known_mask=torch.ones(1, 1, 64, 64, dtype=torch.bool), inpainting=method,
        repaint_jump_length=2, repaint_resamples=2,
    )  # fmt: skip
    assert len(seen) == (9 if method == "repaint" else 5)
    # "x0" starts from noise without the trace of x0 that the forward process leaves at t = 999.
    tolerance = 0.2 if method == "x0" else 0.08
    for t, x_t in seen:
        if method == "fixed":
            assert torch.equal(x_t, torch.full_like(x_t, 2.0))
            continue
        alpha = scheduler.alphas_cumprod[t]
        assert x_t.mean() == pytest.approx(2 * alpha.sqrt().item(), abs=tolerance)
        assert x_t.std() == pytest.approx((1 - alpha).sqrt().item(), abs=0.05)


def test_the_step_after_pasting_into_x0_is_the_schedulers_own_for_that_x0():
    """DDIM with x0 known everywhere: x_{t-1} = a x0 + s epsilon, epsilon the starting noise."""
    seen = []

    def record(x_t, t, previous):
        seen.append((int(t[0]), x_t.clone()))
        return torch.zeros_like(x_t)

    latents, _ = complete(
        (7,), torch.ones(1, 1, 4, 4, dtype=torch.bool), "x0",
        scheduler="DDIM", prediction="v_prediction", steps=5, denoise=record,
    )  # fmt: skip
    alphas = build_scheduler("DDIM").alphas_cumprod
    # x_T is noise where the forward process would have left a trace of x0.
    epsilon = (seen[0][1] - alphas[999].sqrt() * latents) / (1 - alphas[999]).sqrt()
    for t, x_t in seen:
        expected = alphas[t].sqrt() * latents + (1 - alphas[t]).sqrt() * epsilon
        torch.testing.assert_close(x_t, expected, atol=1e-4, rtol=1e-4)


def test_jumps_follow_the_forward_process():
    """Noised in one jump: the mean and variance of the chain of single steps."""
    scheduler = build_scheduler("DDPM")
    scheduler.set_timesteps(10)
    shape = (1, 1, 200, 200)
    known = KnownLatents(
        torch.zeros(shape), torch.ones(shape, dtype=torch.bool), method="repaint",
        generators=generators(0), jump_length=3, resamples=2,
    )  # fmt: skip
    jump = next(v for v in known.visits(10) if v.jumps_from is not None)
    x = known.jump(torch.full(shape, 3.0), jump, scheduler)
    mean, variance = 3.0, 0.0
    low, high = scheduler.timesteps[jump.jumps_from], scheduler.timesteps[jump.index]
    for beta in scheduler.betas[low + 1 : high + 1].tolist():
        mean, variance = mean * (1 - beta) ** 0.5, variance * (1 - beta) + beta
    assert x.mean() == pytest.approx(mean, abs=0.02)
    assert x.var() == pytest.approx(variance, rel=0.03)


@pytest.mark.parametrize("scheduler", SAMPLERS)
def test_network_passes_of_repaint_are_at_the_jumps_level(scheduler):
    """Each pass is at a timestep of its own; after a jump up, x_t has that timestep's variance."""
    seen = []

    def record(x_t, t, previous):
        seen.append((int(t[0]), x_t.std().item()))
        return torch.zeros_like(x_t)  # all of x0 is known to be 0

    own, shape = generators(0), (1, 64, 64)
    sample_latents(
        record, initial_noise(shape, own),
        scheduler=build_scheduler(scheduler, prediction_type="sample"), num_inference_steps=5,
        self_conditioning=False, generators=own, known_latents=torch.zeros(1, *shape),
        known_mask=(torch.arange(64) < 1).expand(1, 1, 64, 64), inpainting="repaint",
        repaint_jump_length=2, repaint_resamples=2,
    )  # fmt: skip
    steps = [0, 1, 2, 1, 2, 3, 4, 3, 4]
    expected = [999 - 200 * i for i in steps]
    if scheduler == "Heun":
        pairs = [(t, t - 200) if t > 199 else (t,) for t in expected]
        expected = [t for pair in pairs for t in pair]
    assert [t for t, _ in seen] == expected
    alphas = build_scheduler("DDPM").alphas_cumprod
    for t, deviation in seen:
        assert deviation == pytest.approx((1 - alphas[t]).sqrt().item(), abs=0.05)


@pytest.mark.parametrize("steps,jump,resamples", [(10, 3, 2), (20, 5, 3), (7, 1, 4), (4, 9, 5)])
def test_repaint_schedule_is_the_papers(steps, jump, resamples):
    """Against the walk over q, the steps that are left, with single steps up and down."""
    walk, q = [], steps
    jumps = {k: resamples - 1 for k in range(0, steps - jump, jump)}
    while q > 0:
        q -= 1
        walk.append((q, "down"))
        if jumps.get(q, 0) > 0:
            jumps[q] -= 1
            for _ in range(jump):
                q += 1
                walk.append((q, "up"))
    visits = repaint_visits(steps, jump, resamples)
    assert [steps - 1 - v.index for v in visits] == [q for q, way in walk if way == "down"]
    assert sum(v.jumps_from is not None for v in visits) * jump == sum(w == "up" for _, w in walk)
    assert sorted({v.index for v in visits if not v.is_again}) == list(range(steps))
    assert len(visits) == steps + (resamples - 1) * jump * len(range(0, steps - jump, jump))


@pytest.mark.parametrize("prediction", PREDICTION_TYPES)
@pytest.mark.parametrize("t", [0, 500, 999])
def test_output_of_x0_inverts_predicted_x0(prediction, t):
    scheduler = build_scheduler("DDIM", prediction_type=prediction)
    x0, x_t = torch.randn(2, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([t])
    output = output_of_x0(scheduler, x0, x_t, timesteps)
    back = predicted_x0(scheduler, output, x_t, timesteps)
    torch.testing.assert_close(back, x0, atol=1e-4, rtol=1e-4)


def test_callback_is_called_once_for_each_step():
    calls = []
    complete(
        (1,), left_half(0, batch=1), "repaint", callback=lambda i, t, x0: calls.append(i)
    )  # fmt: skip
    assert calls == list(range(6))


def test_wrong_arguments_name_the_key():
    mask = left_half(0, batch=1)
    with pytest.raises(ValueError, match=r"SAMPLER\.INPAINTING is 'paste'.*fixed, noised"):
        complete((1,), mask, "paste")
    with pytest.raises(ValueError, match="one generator per sample"):
        KnownLatents(torch.zeros(1, *SHAPE), mask, method="noised")
    with pytest.raises(ValueError, match="does not fit known_latents"):
        complete((1,), mask[:, :, :3], "fixed")
    with pytest.raises(ValueError, match="at least 1"):
        repaint_visits(10, 0, 2)
