"""The sampler against DDIM's equation, diffusers' own loops and itself in other batches."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    UniPCMultistepScheduler,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from test_schedule import PREDICTION_TYPES, SAMPLERS

from ldmseg_d2.diffusion import (
    build_scheduler,
    initial_noise,
    predict_from_noise,
    sample_latents,
)

SHAPE = (2, 4, 4)
# Made here from diffusers' classes, not by build_scheduler.
THEIRS = {
    "DDIM": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    "DDPM": (DDPMScheduler, {"clip_sample": False}),
    "DPMSolver++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "UniPC": (UniPCMultistepScheduler, {}),
}
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def denoise(x_t, t, previous, *, condition=0.0):
    """Nonlinear, different at every timestep and every cell's neighbour."""
    out = torch.tanh(x_t + x_t.roll(1, dims=3)) * (0.2 + t.view(-1, 1, 1, 1) / 1000) + condition
    return out if previous is None else out + 0.1 * previous


def sample(scheduler, *, seeds=(0,), steps=5, network=denoise, previous=True, **kwargs):
    own = generators(*seeds)
    kwargs = {"conditions": {}, **kwargs}
    return sample_latents(
        network, initial_noise(SHAPE, own), scheduler=scheduler, num_inference_steps=steps,
        self_conditioning=previous, generators=own, **kwargs,
    )  # fmt: skip


@pytest.mark.parametrize("steps", [1, 4, 50])
@pytest.mark.parametrize("prediction", PREDICTION_TYPES)
def test_ddim_against_the_equation(steps, prediction):
    """The loop against DDIM's eq. 12 (eta = 0), written out with nothing of diffusers."""
    scheduler = build_scheduler("DDIM", prediction_type=prediction)
    condition = torch.linspace(-1, 1, 32).view(1, *SHAPE)
    result = sample(scheduler, seeds=(0, 1), steps=steps, conditions={"condition": condition})
    alphas = scheduler.alphas_cumprod
    x = initial_noise(SHAPE, generators(0, 1))
    x0 = torch.zeros_like(x)
    for i in range(steps):
        t, t_next = 999 - i * (1000 // steps), 999 - (i + 1) * (1000 // steps)
        a, s = alphas[t].sqrt(), (1 - alphas[t]).sqrt()
        output = denoise(x, torch.full((2,), t), x0, condition=condition)
        x0, epsilon = {
            "epsilon": ((x - s * output) / a, output),
            "sample": (output, (x - a * output) / s),
            "v_prediction": (a * x - s * output, a * output + s * x),
        }[prediction]
        if t_next >= 0:
            x = alphas[t_next].sqrt() * x0 + (1 - alphas[t_next]).sqrt() * epsilon
    torch.testing.assert_close(result, x0, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("prediction", PREDICTION_TYPES)
@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize("name", SAMPLERS)
def test_loop_is_diffusers_own(name, steps, prediction):
    cls, arguments = THEIRS[name]
    theirs = cls(
        **BETAS, **arguments, num_train_timesteps=1000, timestep_spacing="trailing",
        prediction_type=prediction,
    )  # fmt: skip
    theirs.set_timesteps(steps)
    own = generators(7)
    x = initial_noise(SHAPE, own)
    kwargs = {"generator": own[0]} if name == "DDPM" else {}
    for t in theirs.timesteps:
        seen, output = x, denoise(x, t.expand(1), None)
        x = theirs.step(output, t, x, **kwargs).prev_sample
    # The last x0 prediction, from the definition of what is predicted.
    alpha = theirs.alphas_cumprod[theirs.timesteps[-1].long()]
    expected = {
        "epsilon": (seen - (1 - alpha).sqrt() * output) / alpha.sqrt(),
        "sample": output,
        "v_prediction": alpha.sqrt() * seen - (1 - alpha).sqrt() * output,
    }[prediction]
    ours = build_scheduler(name, prediction_type=prediction)
    result = sample(ours, seeds=(7,), steps=steps, previous=False)
    torch.testing.assert_close(result, expected, atol=2e-4, rtol=2e-4)
    if steps == 1:
        noise = initial_noise(SHAPE, generators(7))
        guess = predict_from_noise(denoise, noise, conditions={}, scheduler=ours)
        torch.testing.assert_close(guess, result)


@settings(max_examples=25)
@given(
    name=st.sampled_from(SAMPLERS),
    prediction=st.sampled_from(PREDICTION_TYPES),
    steps=st.integers(1, 12),
    seeds=st.lists(st.integers(0, 99), min_size=2, max_size=4, unique=True),
)
def test_a_sample_depends_on_neither_its_batch_nor_earlier_runs(name, prediction, steps, seeds):
    scheduler = build_scheduler(name, prediction_type=prediction)
    together = sample(scheduler, seeds=seeds, steps=steps)
    for row, seed in enumerate(seeds):
        alone = sample(scheduler, seeds=(seed,), steps=steps)
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-4, rtol=1e-4)
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("name", SAMPLERS)
def test_known_cells_are_clean_at_every_step_and_steer_the_rest(name):
    scheduler = build_scheduler(name, prediction_type="sample")
    known, mask = torch.full((2, *SHAPE), 0.7), torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[0, ..., :2] = True
    keep, seen, calls = mask.expand(2, *SHAPE), [], []

    def blur(x_t, t, previous):
        seen.append(x_t[keep].clone())
        return x_t.mean(dim=(2, 3), keepdim=True).expand_as(x_t)

    arguments = {"seeds": (0, 1), "network": blur, "steps": 4}
    result = sample(
        scheduler, **arguments, known_latents=known, known_mask=mask,
        callback=lambda i, t, x0: calls.append((i, t, x0[keep])),
    )  # fmt: skip
    assert [call[:2] for call in calls] == [(0, 999), (1, 749), (2, 499), (3, 249)]
    for values in (result[keep], *seen, *(call[2] for call in calls)):
        assert torch.equal(values, known[keep])
    free = sample(scheduler, **arguments)
    assert not torch.allclose(free[0][~keep[0]], result[0][~keep[0]])
    torch.testing.assert_close(free[1], result[1])


@pytest.mark.parametrize("steps", [61, 103, 999])
@pytest.mark.parametrize("name", SAMPLERS)
def test_timesteps_fall_from_the_last_and_are_never_negative(name, steps):
    """diffusers adds one at t = -1 for 61 steps. A network of low precision leaves x_t its own."""
    seen = []

    def network(x_t, t, previous):
        seen.append(int(t[0]))
        assert x_t.dtype == torch.float32
        return torch.tanh(x_t).bfloat16()

    scheduler = build_scheduler(name, prediction_type="sample")
    for wrong in (0, 1001):
        with pytest.raises(ValueError, match=f"NUM_INFERENCE_STEPS is {wrong}; allowed: 1 to 1000"):
            sample(scheduler, steps=wrong)
    assert torch.isfinite(sample(scheduler, steps=steps, network=network, previous=False)).all()
    assert len(seen) == steps and seen[0] == 999 and seen[-1] >= 0
    assert all(a > b for a, b in zip(seen, seen[1:]))
