import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from ldmseg_d2.diffusion import build_scheduler, initial_noise, sample_latents

SHAPE = (2, 4, 4)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def denoise(x_t, t, previous):
    """A fixed nonlinear stand-in for the network, different at every timestep."""
    out = torch.tanh(x_t) * (t.view(-1, 1, 1, 1) / 1000)
    return out if previous is None else out + 0.1 * previous


@pytest.mark.parametrize("steps", [1, 4, 50])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_ddim_against_the_equation(steps, prediction_type):
    """The loop against DDIM's eq. 12 (eta = 0), written out with nothing of diffusers."""
    scheduler = build_scheduler("DDIM", prediction_type=prediction_type)
    noise = initial_noise(SHAPE, generators(0, 1))
    result = sample_latents(
        denoise, noise, scheduler=scheduler, num_inference_steps=steps, self_conditioning=True
    )
    alphas = scheduler.alphas_cumprod
    x, x0 = noise, torch.zeros_like(noise)
    for i in range(steps):
        t, t_next = 999 - i * (1000 // steps), 999 - (i + 1) * (1000 // steps)
        a, s = alphas[t].sqrt(), (1 - alphas[t]).sqrt()
        output = denoise(x, torch.full((2,), t), x0)
        if prediction_type == "epsilon":
            x0, epsilon = (x - s * output) / a, output
        elif prediction_type == "sample":
            x0, epsilon = output, (x - a * output) / s
        else:
            x0, epsilon = a * x - s * output, a * output + s * x
        if t_next >= 0:
            x = alphas[t_next].sqrt() * x0 + (1 - alphas[t_next]).sqrt() * epsilon
    torch.testing.assert_close(result, x0, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name,cls", [("DDIM", DDIMScheduler), ("DDPM", DDPMScheduler)])
def test_loop_is_diffusers_own(name, cls):
    scheduler = build_scheduler(name, prediction_type="sample")
    theirs = cls.from_config(scheduler.config)
    theirs.set_timesteps(10)
    noise = initial_noise(SHAPE, generators(0))
    x = noise
    generator = torch.Generator().manual_seed(5)
    for t in theirs.timesteps:
        output = denoise(x, t.expand(1), None)
        kwargs = {"generator": generator} if name == "DDPM" else {}
        step = theirs.step(output, t, x, **kwargs)
        x = step.prev_sample
    result = sample_latents(
        denoise, noise, scheduler=scheduler, num_inference_steps=10, self_conditioning=False,
        generators=generators(5),
    )  # fmt: skip
    torch.testing.assert_close(result, step.pred_original_sample)


@pytest.mark.parametrize("name", ["DDIM", "DDPM"])
def test_a_sample_does_not_depend_on_its_batch(name):
    def sample(*seeds):
        own = generators(*seeds)
        return sample_latents(
            denoise, initial_noise(SHAPE, own), scheduler=build_scheduler(name),
            num_inference_steps=5, self_conditioning=True, generators=own,
        )  # fmt: skip

    together = sample(3, 4, 5)
    torch.testing.assert_close(together[1:2], sample(4))
    assert not torch.allclose(together[0], together[1])


def test_known_cells_come_out_as_given_and_steer_the_rest():
    scheduler = build_scheduler("DDIM", prediction_type="sample")
    noise = initial_noise(SHAPE, generators(0))
    known = torch.full((1, *SHAPE), 0.7)
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[..., :2] = True
    seen = []

    def blur(x_t, t, previous):
        seen.append(x_t.clone())
        return x_t.mean(dim=(2, 3), keepdim=True).expand_as(x_t)

    arguments = {"scheduler": scheduler, "num_inference_steps": 4, "self_conditioning": False}
    result = sample_latents(blur, noise, known_latents=known, known_mask=mask, **arguments)
    keep = mask.expand_as(result)
    assert torch.equal(result[keep], known[keep])
    assert all(torch.equal(x[keep], known[keep]) for x in seen)
    free = sample_latents(blur, noise, **arguments)
    assert not torch.allclose(free[~keep], result[~keep])
    with pytest.raises(ValueError, match="together"):
        sample_latents(blur, noise, known_latents=known, **arguments)


def test_callback_sees_every_step():
    calls = []
    sample_latents(
        denoise,
        initial_noise(SHAPE, generators(0)),
        scheduler=build_scheduler("DDIM"),
        num_inference_steps=4,
        self_conditioning=False,
        callback=lambda i, t, x0: calls.append((i, t)),
    )
    assert calls == [(0, 999), (1, 749), (2, 499), (3, 249)]
