"""Which timesteps training draws, and the one-step regression."""

import pytest
import torch
from detectron2.modeling import build_model
from tiny import tiny_batch, tiny_config

from ldmseg_d2.diffusion import high_noise_timesteps
from ldmseg_d2.meta_arch.batching import SampleRandomness
from ldmseg_d2.meta_arch.noise import NoiseOptions

DIFFUSION = "MODEL.LDMSEG.DIFFUSION"
STEPS = "MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS"
REGRESSION = (f"{DIFFUSION}.REGRESSION", True, STEPS, 1)


def build(*opts):
    torch.manual_seed(0)
    return build_model(tiny_config("scenes/ldmseg_scenes64.yaml", *opts))


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 4.0])
def test_high_noise_has_the_density_it_says(power):
    count, bins = 200_000, 20
    u = torch.rand(count, generator=torch.Generator().manual_seed(0))
    t = high_noise_timesteps(u, 1000, power)
    assert t.dtype == torch.int64 and 0 <= int(t.min()) and int(t.max()) <= 999
    edges = torch.arange(bins + 1) * 50
    expected = count * ((edges[1:] / 1000) ** power - (edges[:-1] / 1000) ** power)
    seen = torch.histc(t.float(), bins, 0, 1000)
    # Chi-square with 19 degrees of freedom: 43.8 is passed once in 1,000 times.
    assert float(((seen - expected) ** 2 / expected).sum()) < 43.8


def test_the_ends_of_the_interval_are_timesteps():
    u = torch.tensor([0.0, 1 - 2**-24])
    assert high_noise_timesteps(u, 1000, 2.0).tolist() == [0, 999]
    assert high_noise_timesteps(torch.ones(1), 10, 3.0).tolist() == [9]
    with pytest.raises(ValueError, match="TIMESTEP_POWER must be above 0, got 0"):
        high_noise_timesteps(u, 1000, 0.0)


def test_timesteps_are_each_samples_own():
    entries = [{"sample_seed": seed} for seed in (3, 8, 5)]

    def draw(options, entries):
        return options.timesteps(1000, SampleRandomness(entries, torch.device("cpu"))).tolist()

    high = NoiseOptions("high_noise", 2.0)
    together = draw(high, entries)
    assert together == [draw(high, [entry])[0] for entry in entries]
    # "uniform" draws what it always drew.
    own = [torch.Generator().manual_seed(entry["sample_seed"]) for entry in entries]
    expected = [int(torch.randint(1000, (), generator=g)) for g in own]
    assert draw(NoiseOptions(), entries) == expected


def test_a_regression_is_a_direct_mse_at_zero():
    model = build(
        *REGRESSION, "MODEL.LDMSEG.ID_ASSIGNMENT", "ordered", f"{DIFFUSION}.LOSS_WEIGHTING",
        "min_snr",
    ).train()  # fmt: skip
    batch = tiny_batch()
    loss = model(batch)["loss_diffusion"]
    images = torch.stack([(entry["image"] - 127.5) / 127.5 for entry in batch])
    ids = model.tasks[0].assign_ids(
        torch.stack([entry["segment_ids"] for entry in batch]),
        SampleRandomness(batch, model.device),
        predict=None,
    )
    target = model.autoencoder.normalize(model.autoencoder.encode(ids).mean)
    condition = model.encode_images(images)
    told = torch.zeros(2, dtype=torch.int64)
    output = model.denoiser(
        torch.zeros_like(target), torch.tensor([999, 999]), condition, task=told
    )
    torch.testing.assert_close(loss, ((output - target) ** 2).mean())


@pytest.mark.parametrize("assignment", ["random", "matched", "matched_positional"])
def test_a_regression_gives_one_result(assignment):
    model = build(
        *REGRESSION, "MODEL.LDMSEG.ID_ASSIGNMENT", assignment,
        "MODEL.LDMSEG.POSTPROCESS.MIN_SEGMENT_SCORE", 0.0,
    )  # fmt: skip
    sum(model.train()(tiny_batch()).values()).backward()
    model.eval()
    entry = tiny_batch(1, annotated=False)[0]
    maps = [
        model([{**entry, "seed": seed}])[0]["panoptic_seg"][0] for seed in range(3)
    ]  # whatever the noise would have been
    assert torch.equal(maps[0], maps[1]) and torch.equal(maps[0], maps[2])
    model.num_inference_steps = 4
    with pytest.raises(ValueError, match="set num_inference_steps to 1, it is 4"):
        model([entry])
    model.num_inference_steps = 1
    # Given parts come back.
    given = torch.where(tiny_batch(1)[0]["segment_ids"] == 1, 77, 0)
    completed = model([{**entry, "known_ids": given}])[0]["panoptic_seg"][0]
    assert bool((completed[given == 77] == 77).all())


@pytest.mark.parametrize(
    "key,value,message",
    [
        (STEPS, 2, "needs MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS 1, not 2"),
        (f"{DIFFUSION}.PREDICTION_TYPE", "epsilon", "PREDICTION_TYPE 'sample', not 'epsilon'"),
        (f"{DIFFUSION}.SELF_CONDITIONING", True, "SELF_CONDITIONING False"),
        ("MODEL.LDMSEG.SAMPLER.TIMESTEP_SPACING", "leading", "TIMESTEP_SPACING 'trailing'"),
        (f"{DIFFUSION}.TIMESTEP_POWER", -1.0, "TIMESTEP_POWER must be above 0, got -1"),
        (f"{DIFFUSION}.TIMESTEP_SAMPLING", "late", "allowed: uniform, high_noise"),
    ],
)
def test_keys_that_do_not_fit_are_named(key, value, message):
    with pytest.raises(ValueError, match=message):
        build(*REGRESSION, key, value)


def test_high_noise_trains():
    model = build(f"{DIFFUSION}.TIMESTEP_SAMPLING", "high_noise").train()
    assert torch.isfinite(model(tiny_batch())["loss_diffusion"])


def test_a_standardised_autoencoder_loads_without_its_statistics(tmp_path):
    standardised = build()
    path = tmp_path / "autoencoder.pth"
    torch.save({"model": standardised.autoencoder.state_dict()}, path)
    fixed = build(
        "MODEL.LDMSEG.AUTOENCODER.WEIGHTS", str(path),
        "MODEL.LDMSEG.AUTOENCODER.NORMALIZATION", "fixed",
        "MODEL.LDMSEG.AUTOENCODER.SCALING_FACTOR", 0.18215,
    )  # fmt: skip
    ids = tiny_batch()[0]["segment_ids"].unsqueeze(0)
    raw = standardised.autoencoder.encode(ids).mean
    latents = fixed.autoencoder.normalize(fixed.autoencoder.encode(ids).mean)
    torch.testing.assert_close(latents, 0.18215 * raw)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_self_aligned_samples_see_their_own_prediction_and_learn_the_truth(prediction_type):
    """The loss of a step with share 1 is that of x_t made of the model's prediction at T - 1."""
    opts = ("MODEL.LDMSEG.ID_ASSIGNMENT", "ordered", f"{DIFFUSION}.MASKED_LOSS", False)
    opts += (f"{DIFFUSION}.PREDICTION_TYPE", prediction_type)
    model = build(*opts, f"{DIFFUSION}.SELF_ALIGNED_PROB", 1.0).train()
    batch = [{**entry, "sample_seed": 3 + i} for i, entry in enumerate(tiny_batch())]
    seen = []
    hook = model.denoiser.register_forward_pre_hook(
        lambda module, args: seen.append((args[0].clone(), args[1]))
    )
    loss = model(batch)["loss_diffusion"]
    hook.remove()
    (pure, last), (x_t, t) = seen
    assert set(last.tolist()) == {999}

    alphas = model.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
    a, s = alphas.sqrt(), (1 - alphas).sqrt()
    images = torch.stack([(entry["image"] - 127.5) / 127.5 for entry in batch])
    condition = model.encode_images(images)
    told = torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        prediction = model.predict_from_noise(pure, condition, told)
    # What is left of x_t is standard normal noise of its own, not that of the prediction.
    fresh = (x_t - a * prediction) / s
    assert abs(float(fresh.mean())) < 0.1 and 0.9 < float(fresh.std()) < 1.1
    assert not torch.allclose(fresh, pure, atol=0.5)

    ids = torch.stack([entry["segment_ids"] for entry in batch])
    ids = model.tasks[0].assign_ids(ids, SampleRandomness(batch, model.device), predict=None)
    x0 = model.autoencoder.normalize(model.autoencoder.encode(ids).mean)
    epsilon = (x_t - a * x0) / s
    target = {"epsilon": epsilon, "sample": x0, "v_prediction": a * epsilon - s * x0}
    output = model.denoiser(x_t, t, condition, task=told)
    error = ((output - target[prediction_type]) ** 2).mean(dim=(1, 2, 3))
    torch.testing.assert_close(loss, (error * model.timestep_weights[t]).mean())


def test_share_of_self_aligned_samples():
    scheduler = build("MODEL.LDMSEG.ID_ASSIGNMENT", "ordered").scheduler
    count = 2000
    entries = [{"sample_seed": seed} for seed in range(count)]
    x0, noise = torch.zeros(count, 1, 1, 1), torch.full((count, 1, 1, 1), 7.0)
    t = torch.full((count,), 500)

    def align(share, **kwargs):
        options = NoiseOptions(self_aligned_prob=share)
        return options.self_aligned(
            noise, x0, t, scheduler=scheduler,
            randomness=SampleRandomness(entries, torch.device("cpu")), **kwargs,
        )  # fmt: skip

    # 0 draws nothing and asks for no prediction: the paper's training is what it was.
    assert align(0.0, predict=None) is noise
    changed = (align(0.25, predict=lambda: x0 + 1) != noise).sum()
    assert abs(int(changed) - 500) < 100  # 5 standard deviations


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_outside_0_to_1_is_named(share):
    with pytest.raises(ValueError, match="SELF_ALIGNED_PROB is a share of the samples"):
        build(f"{DIFFUSION}.SELF_ALIGNED_PROB", share)
