import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from ldmseg_d2.diffusion import (
    add_noise,
    build_scheduler,
    predicted_x0,
    prediction_target,
    timestep_loss_weights,
)

SAMPLERS = ("DDIM", "DDPM", "DPMSolver++", "UniPC")
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


@pytest.mark.parametrize("name", SAMPLERS)
def test_schedule_and_loss_weights_are_the_references(reference, name):
    scheduler = build_scheduler(name)
    torch.testing.assert_close(scheduler.alphas_cumprod, reference["alphas_cumprod"])
    weights = timestep_loss_weights(scheduler)
    torch.testing.assert_close(weights, reference["loss_weights"], atol=1e-4, rtol=1e-4)
    inputs = [reference[key] for key in ("scaled_latents", "noise", "add_noise_t")]
    for _ in range(2):  # before and after a sampling run
        noisy = add_noise(scheduler, *inputs)
        torch.testing.assert_close(noisy, reference["noisy"], atol=1e-4, rtol=0)
        scheduler.set_timesteps(3)


@pytest.mark.parametrize("steps", [50, 10])
def test_timesteps_are_the_references(reference, steps):
    scheduler = build_scheduler("DDIM")
    scheduler.set_timesteps(steps)
    assert torch.equal(scheduler.timesteps, reference[f"timesteps_{steps}"])


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_min_snr_weights_mean_the_same_error_of_x0(prediction_type):
    """Written for x0, the weight of every prediction type is min(SNR, gamma)."""
    scheduler = build_scheduler("DDIM", prediction_type=prediction_type)
    snr = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    # |output error|^2 over |x0 error|^2.
    ratio = {"epsilon": snr, "sample": torch.ones(1000), "v_prediction": 1 + snr}[prediction_type]
    weights = timestep_loss_weights(scheduler, gamma=5.0)
    torch.testing.assert_close(weights * ratio, snr.clamp(max=5.0), rtol=1e-4, atol=0)
    assert timestep_loss_weights(scheduler, weighting="uniform").eq(1).all()


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_targets_and_x0_are_diffusers(prediction_type):
    generator = torch.Generator().manual_seed(0)
    x0, noise, output = torch.randn(3, 4, 3, 2, 2, generator=generator)
    t = torch.tensor([0, 250, 600, 999])
    ours = build_scheduler("DDIM", prediction_type=prediction_type)
    theirs = DDPMScheduler.from_config(ours.config)
    x_t = add_noise(ours, x0, noise, t)
    assert torch.equal(x_t, theirs.add_noise(x0, noise, t))
    target = prediction_target(ours, x0, noise, t)
    velocity = theirs.get_velocity(x0, noise, t)
    expected = {"epsilon": noise, "sample": x0, "v_prediction": velocity}[prediction_type]
    torch.testing.assert_close(target, expected)
    torch.testing.assert_close(predicted_x0(ours, target, x_t, t), x0, atol=1e-4, rtol=1e-4)
    theirs = DDIMScheduler.from_config(ours.config)
    theirs.set_timesteps(1000)
    for row, step in enumerate(t):
        one = slice(row, row + 1)
        expected = theirs.step(output[one], step, x_t[one]).pred_original_sample
        found = predicted_x0(ours, output[one], x_t[one], t[one])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_unknown_names_raise():
    with pytest.raises(ValueError, match=r"SAMPLER.NAME is 'Euler'; allowed: DDIM, .*DPMSolver"):
        build_scheduler("Euler")
    with pytest.raises(ValueError, match="LOSS_WEIGHTING is 'linear'; allowed: min_snr, uniform"):
        timestep_loss_weights(build_scheduler("DDIM"), weighting="linear")
