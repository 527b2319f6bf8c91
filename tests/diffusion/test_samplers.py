"""All samplers: against diffusers' own loops, closed forms, and one another."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ldmseg_d2.config import BETA_SCHEDULES, PREDICTION_TYPES, SAMPLERS, TIMESTEP_SPACINGS
from ldmseg_d2.diffusion import (
    add_noise,
    build_scheduler,
    initial_noise,
    network_passes,
    predicted_x0,
    sample_latents,
)
from ldmseg_d2.diffusion.samplers import Sampler

SHAPE = (2, 4, 4)
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
# Made here from diffusers' classes and the defaults of the config, not by build_scheduler.
THEIRS = {
    "DDIM": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    "DDPM": (DDPMScheduler, {"clip_sample": False}),
    "DPMSolver++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "UniPC": (UniPCMultistepScheduler, {}),
    "LCM": (LCMScheduler, {"original_inference_steps": 1000}),
    "Heun": (HeunDiscreteScheduler, {}),
}
CPU = torch.device("cpu")


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def denoise(x_t, t, previous):
    """Nonlinear, different at every timestep and every cell's neighbour."""
    out = torch.tanh(x_t + x_t.roll(1, dims=3)) * (0.2 + t.view(-1, 1, 1, 1) / 1000)
    return out if previous is None else out + 0.1 * previous


def sample(
    scheduler, *, seeds=(0,), steps=5, network=denoise, previous=True, shape=SHAPE, **kwargs
):
    own = generators(*seeds)
    return sample_latents(
        network, initial_noise(shape, own), scheduler=scheduler, num_inference_steps=steps,
        self_conditioning=previous, generators=own, **kwargs,
    )  # fmt: skip


def cases():
    for name in SAMPLERS:
        for spacing in ("trailing",) if name == "LCM" else TIMESTEP_SPACINGS:
            yield name, spacing


@pytest.mark.parametrize("prediction", PREDICTION_TYPES)
@pytest.mark.parametrize("steps", [1, 2, 4, 20])
@pytest.mark.parametrize("name,spacing", list(cases()))
def test_loop_is_diffusers_own(name, spacing, steps, prediction):
    """The loop as diffusers' pipelines write it, in the scheduler's own scale."""
    cls, arguments = THEIRS[name]
    if name != "LCM":
        arguments = {**arguments, "timestep_spacing": spacing}
    theirs = cls(**BETAS, **arguments, num_train_timesteps=1000, prediction_type=prediction)
    theirs.set_timesteps(steps)
    if name == "Heun":  # the network has learnt whole timesteps
        theirs.set_timesteps(timesteps=np.round(theirs.timesteps[::2].numpy()).tolist())
    own = generators(7)
    x = initial_noise(SHAPE, own)
    # Of unit variance at the network, for every scheduler.
    x = x / theirs.scale_model_input(torch.ones(()), theirs.timesteps[0])
    outputs = []
    kwargs = {"generator": own[0]} if name in ("DDPM", "LCM") else {}
    for t in theirs.timesteps:
        seen = theirs.scale_model_input(x, t)
        outputs.append(denoise(seen, t.expand(1), None))
        x = theirs.step(outputs[-1], t, x, **kwargs).prev_sample
    # The last x0 prediction, from the definition of what is predicted.
    alpha = theirs.alphas_cumprod[theirs.timesteps[-1].long()]
    expected = {
        "epsilon": (seen - (1 - alpha).sqrt() * outputs[-1]) / alpha.sqrt(),
        "sample": outputs[-1],
        "v_prediction": alpha.sqrt() * seen - (1 - alpha).sqrt() * outputs[-1],
    }[prediction]
    ours = build_scheduler(name, prediction_type=prediction, timestep_spacing=spacing)
    result = sample(ours, seeds=(7,), steps=steps, previous=False)
    torch.testing.assert_close(result, expected, atol=2e-4, rtol=2e-4)
    assert len(outputs) == network_passes(name, steps)


@pytest.mark.parametrize("prediction", PREDICTION_TYPES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_is_the_prediction_at_the_last_timestep(name, prediction):
    noise = initial_noise(SHAPE, generators(3, 4))
    t = torch.full((2,), 999)
    scheduler = build_scheduler("DDIM", prediction_type=prediction)
    expected = predicted_x0(scheduler, denoise(noise, t, None), noise, t)
    found = sample(
        build_scheduler(name, prediction_type=prediction), seeds=(3, 4), steps=1, previous=False
    )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("beta_schedule", BETA_SCHEDULES)
@pytest.mark.parametrize("name,spacing", list(cases()))
def test_a_network_that_knows_the_answer_is_believed(name, spacing, beta_schedule, zero_snr):
    """x0 predicted as a constant, written as each prediction type: the constant comes out."""
    if zero_snr and name == "Heun":
        return
    answer = torch.linspace(-2, 2, 32).view(1, *SHAPE)
    for prediction in PREDICTION_TYPES[1:] if zero_snr else PREDICTION_TYPES:
        scheduler = build_scheduler(
            name, prediction_type=prediction, timestep_spacing=spacing,
            beta_schedule=beta_schedule, rescale_betas_zero_snr=zero_snr,
        )  # fmt: skip

        def network(x_t, t, previous, scheduler=scheduler, prediction=prediction):
            alpha = scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
            epsilon = (x_t - alpha.sqrt() * answer) / (1 - alpha).sqrt()
            velocity = alpha.sqrt() * epsilon - (1 - alpha).sqrt() * answer
            return {"epsilon": epsilon, "sample": answer, "v_prediction": velocity}[prediction]

        for steps in (1, 2, 4, 10):
            found = sample(scheduler, steps=steps, network=network)
            # epsilon divides by a = 5e-5 at the start of a cosine schedule.
            loose = prediction == "epsilon" and "cos" in beta_schedule and steps == 1
            tolerance = 0.05 if loose else 2e-3
            torch.testing.assert_close(found, answer, atol=tolerance, rtol=0)


MEAN, DEVIATION = 0.5, 0.6


def gaussian_network(scheduler):
    """The exact posterior mean of x0 for data ~ N(MEAN, DEVIATION^2)."""

    def network(x_t, t, previous):
        alpha = scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
        gain = alpha.sqrt() * DEVIATION**2 / (alpha * DEVIATION**2 + 1 - alpha)
        return MEAN + gain * (x_t - alpha.sqrt() * MEAN)

    return network


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "LCM"])
def test_many_steps_draw_from_the_data(name, zero_snr):
    if zero_snr and name == "Heun":
        return
    scheduler = build_scheduler(name, prediction_type="sample", rescale_betas_zero_snr=zero_snr)
    network = gaussian_network(scheduler)
    # First-order steps need more of them.
    steps = {"DDIM": 100, "DDPM": 250}.get(name, 25)
    found = sample(scheduler, steps=steps, network=network, shape=(1, 128, 128), previous=False)
    # The last prediction is the mean of what x0 may be: less spread than the data's.
    alpha = scheduler.alphas_cumprod[1000 // steps - 1].item()
    kept = alpha * DEVIATION**2 / (alpha * DEVIATION**2 + 1 - alpha)
    assert found.mean() == pytest.approx(MEAN, abs=0.03)
    assert found.std() == pytest.approx(DEVIATION * kept**0.5, rel=0.03)


def test_second_order_is_ahead_at_few_steps():
    """Against the exact solution of the probability flow ODE for Gaussian data."""
    noise = initial_noise((1, 32, 32), generators(0))
    errors = {}
    for name in ("DDIM", "DPMSolver++", "UniPC", "Heun"):
        scheduler = build_scheduler(name, prediction_type="sample")
        network = gaussian_network(scheduler)
        first, last = (scheduler.alphas_cumprod[t] for t in (999, 99))
        # x_t stays as many standard deviations from the mean as it begins.
        deviations = (noise - first.sqrt() * MEAN) / (first * DEVIATION**2 + 1 - first).sqrt()
        x = last.sqrt() * MEAN + (last * DEVIATION**2 + 1 - last).sqrt() * deviations
        exact = network(x, torch.tensor([99]), None)
        few = sample(scheduler, steps=10, network=network, shape=(1, 32, 32), previous=False)
        errors[name] = float((few - exact).abs().mean())
    assert max(errors["DPMSolver++"], errors["UniPC"], errors["Heun"]) < errors["DDIM"] / 3


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_lcm_noises_its_prediction_anew(steps):
    """Mean and variance of the chain x0 -> a x0 + s noise -> posterior mean, in closed form."""
    scheduler = build_scheduler("LCM", prediction_type="sample")
    network = gaussian_network(scheduler)
    found = sample(scheduler, steps=steps, network=network, shape=(1, 128, 128), previous=False)
    mean = variance = None
    for t in [999 - i * 1000 // steps for i in range(steps)]:
        alpha = scheduler.alphas_cumprod[t].item()
        x_mean = 0.0 if mean is None else alpha**0.5 * mean
        x_variance = 1.0 if mean is None else alpha * variance + 1 - alpha
        gain = alpha**0.5 * DEVIATION**2 / (alpha * DEVIATION**2 + 1 - alpha)
        mean = MEAN + gain * (x_mean - alpha**0.5 * MEAN)
        variance = gain**2 * x_variance
    assert found.mean() == pytest.approx(mean, abs=0.02)
    assert found.std() == pytest.approx(variance**0.5, rel=0.03)


@settings(max_examples=30, deadline=None)
@given(
    case=st.sampled_from(list(cases())),
    prediction=st.sampled_from(PREDICTION_TYPES),
    steps=st.integers(1, 12),
    seeds=st.lists(st.integers(0, 99), min_size=2, max_size=4, unique=True),
)
def test_a_sample_does_not_depend_on_its_batch(case, prediction, steps, seeds):
    scheduler = build_scheduler(case[0], prediction_type=prediction, timestep_spacing=case[1])
    together = sample(scheduler, seeds=seeds, steps=steps)
    for row, seed in enumerate(seeds):
        # The same scheduler: a run leaves nothing behind that the next one sees.
        alone = sample(scheduler, seeds=(seed,), steps=steps)
        torch.testing.assert_close(together[row : row + 1], alone)


@settings(max_examples=100, deadline=None)
@given(case=st.sampled_from(list(cases())), steps=st.integers(1, 999))
def test_timesteps(case, steps):
    """As many as asked for, whole, falling, in 0..T - 1; also where diffusers adds t = -1."""
    name, spacing = case
    scheduler = build_scheduler(name, timestep_spacing=spacing)
    found = Sampler(scheduler, steps, device=CPU).timesteps
    assert found.dtype == torch.int64 and len(found) == network_passes(name, steps)
    distinct = found[:: 2 if name == "Heun" else 1]
    assert len(distinct) == steps and (distinct.diff() < 0).all()
    assert 0 <= distinct.min() and distinct.max() <= 999
    if spacing == "trailing":
        assert distinct[0] == 999


@pytest.mark.parametrize("steps", [61, 103])
@pytest.mark.parametrize("name", SAMPLERS)
def test_no_step_at_a_negative_timestep(name, steps):
    seen = []

    def network(x_t, t, previous):
        seen.append(int(t[0]))
        return torch.tanh(x_t)

    scheduler = build_scheduler(name, prediction_type="sample")
    assert torch.isfinite(sample(scheduler, steps=steps, network=network)).all()
    assert len(set(seen)) == steps and min(seen) >= 0


@pytest.mark.parametrize("name", SAMPLERS)
def test_training_knows_nothing_of_a_sampling_run(name):
    """x_t = a x0 + s noise at any timestep, before and after."""
    scheduler = build_scheduler(name)
    x0, noise = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0, 417, 999])
    expected = DDPMScheduler(**BETAS).add_noise(x0, noise, t)
    assert torch.equal(add_noise(scheduler, x0, noise, t), expected)
    sample(scheduler, steps=3)
    assert torch.equal(add_noise(scheduler, x0, noise, t), expected)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_network_of_low_precision_leaves_x_t_as_precise_as_it_was(name):
    seen = []

    def network(x_t, t, previous):
        seen.append(x_t.dtype)
        return torch.tanh(x_t).bfloat16()

    sample(build_scheduler(name, prediction_type="sample"), steps=3, network=network)
    assert set(seen) == {torch.float32}


def test_callback_sees_every_step_of_heun_once():
    calls = []
    scheduler = build_scheduler("Heun")
    sample(scheduler, steps=4, callback=lambda i, t, x0: calls.append((i, t)))
    assert calls == [(0, 999), (1, 749), (2, 499), (3, 249)]


def test_cosine_is_squaredcos_cap_v2():
    """alphas_cumprod = f(t) / f(0), f(t) = cos^2((t / T + 0.008) / 1.008 pi / 2)."""
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    f = torch.cos((t + 0.008) / 1.008 * torch.pi / 2) ** 2
    expected = f / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    for name in ("cosine", "squaredcos_cap_v2"):
        found = build_scheduler("DDIM", beta_schedule=name).alphas_cumprod.double()
        # The last beta is cut at 0.999.
        torch.testing.assert_close(found[:-1], expected[:-1], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_zero_terminal_snr(name):
    build = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    if name == "Heun":
        with pytest.raises(ValueError, match=r"SAMPLER\.NAME 'Heun'.*RESCALE.*allowed.*DDIM, DDPM"):
            build_scheduler(name, **build)
        return
    assert build_scheduler(name, **build).alphas_cumprod[-1] < 1e-7
    with pytest.raises(ValueError, match="'sample' or 'v_prediction'"):
        build_scheduler(name, rescale_betas_zero_snr=True)


def test_what_does_not_exist_is_named():
    with pytest.raises(ValueError, match=r"SAMPLER\.NAME is 'Euler'; allowed: DDIM, .*Heun"):
        build_scheduler("Euler")
    with pytest.raises(ValueError, match=r"BETA_SCHEDULE is 'quadratic'; allowed: .*cosine"):
        build_scheduler("DDIM", beta_schedule="quadratic")
    with pytest.raises(ValueError, match=r"SPACING is 'karras'; allowed: trailing, leading"):
        build_scheduler("DDIM", timestep_spacing="karras")
    with pytest.raises(ValueError, match=r"'LCM' has its own spacing: allowed: trailing"):
        build_scheduler("LCM", timestep_spacing="leading")
    for steps in (0, 1001):
        with pytest.raises(ValueError, match=r"NUM_INFERENCE_STEPS is .*NUM_TRAIN_TIMESTEPS"):
            Sampler(build_scheduler("UniPC"), steps, device=CPU)
    with pytest.raises(ValueError, match="fewer than 1000"):
        Sampler(build_scheduler("UniPC", timestep_spacing="leading"), 1000, device=CPU)
