import pytest
import torch
from diffusers import DDIMScheduler

from ldmseg_d2.diffusion import (
    build_scheduler,
    predicted_x0,
    prediction_target,
    timestep_loss_weights,
)

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


def test_schedule_and_loss_weights_are_the_references(reference):
    scheduler = build_scheduler("DDIM")
    torch.testing.assert_close(scheduler.alphas_cumprod, reference["alphas_cumprod"])
    torch.testing.assert_close(
        timestep_loss_weights(scheduler), reference["loss_weights"], atol=1e-4, rtol=1e-4
    )
    noisy = scheduler.add_noise(
        reference["scaled_latents"], reference["noise"], reference["add_noise_t"]
    )
    torch.testing.assert_close(noisy, reference["noisy"], atol=1e-4, rtol=0)


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
    # |x0 error|^2 over |output error|^2: epsilon 1/SNR, sample 1, v (1 - alphas_cumprod).
    per_output = {"epsilon": 1 / snr, "sample": torch.ones(1000), "v_prediction": 1 / (1 + snr)}
    weights = timestep_loss_weights(scheduler, gamma=5.0)
    torch.testing.assert_close(
        weights / per_output[prediction_type], snr.clamp(max=5.0), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_predicted_x0_inverts_the_target(prediction_type):
    generator = torch.Generator().manual_seed(0)
    scheduler = build_scheduler("DDIM", prediction_type=prediction_type)
    x0, noise = torch.randn(2, 4, 3, 2, 2, generator=generator).unbind(0)
    t = torch.tensor([0, 250, 600, 999])
    x_t = scheduler.add_noise(x0, noise, t)
    output = prediction_target(scheduler, x0, noise, t)
    torch.testing.assert_close(predicted_x0(scheduler, output, x_t, t), x0, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_predicted_x0_is_diffusers(prediction_type):
    generator = torch.Generator().manual_seed(0)
    ours = build_scheduler("DDIM", prediction_type=prediction_type)
    theirs = DDIMScheduler.from_config(ours.config)
    theirs.set_timesteps(10)
    output, x_t = torch.randn(2, 1, 3, 2, 2, generator=generator).unbind(0)
    for t in (999, 499, 99):
        torch.testing.assert_close(
            predicted_x0(ours, output, x_t, torch.tensor([t])),
            theirs.step(output, t, x_t).pred_original_sample,
        )


def test_zero_terminal_snr():
    scheduler = build_scheduler("DDIM", prediction_type="sample", rescale_betas_zero_snr=True)
    assert scheduler.alphas_cumprod[-1] < 1e-6
    with pytest.raises(ValueError, match="sample"):
        build_scheduler("DDIM", rescale_betas_zero_snr=True)


def test_unknown_names_raise():
    with pytest.raises(ValueError, match="allowed: DDIM, DDPM, DPMSolver"):
        build_scheduler("Euler")
    with pytest.raises(ValueError, match="min_snr, uniform"):
        timestep_loss_weights(build_scheduler("DDIM"), weighting="linear")
