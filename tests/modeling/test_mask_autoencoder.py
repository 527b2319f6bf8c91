import pytest
import torch

from ldmseg_d2.ids import encode_bits
from ldmseg_d2.modeling.mask_autoencoder import MaskAutoencoder, Posterior

TINY = {"num_bits": 4, "encoder_channels": 8, "decoder_channels": 32, "downsample_factor": 4}
VARIANTS = [
    {"encoder": "conv", "decoder": "transposed_conv", "head": "id_logits"},
    {"encoder": "conv", "decoder": "pixel_shuffle", "head": "factored", "num_layers": 1},
    {"encoder": "pixel_unshuffle", "decoder": "transposed_conv", "head": "factored"},
]


@pytest.fixture(scope="module")
def published(reference):
    autoencoder = MaskAutoencoder().eval()
    state = {key[3:]: value for key, value in reference.items() if key.startswith("ae.")}
    autoencoder.load_state_dict(state)
    return autoencoder


@torch.no_grad()
def test_published_weights_encode_and_decode_as_the_reference(published, reference):
    ids = reference["ids"].long()
    assert torch.equal(encode_bits(ids, 7), reference["bits"])
    mean = published.encode(ids).mean
    for found, key in (
        (mean, "latent_mean"),
        (published.normalize(mean), "scaled_latents"),
        (published.decode(reference["latent_mean"]), "recon_logits"),
    ):
        torch.testing.assert_close(found, reference[key], atol=1e-4, rtol=0)
    logits = published.decode_normalized(reference["sample_50_selfcond"])
    torch.testing.assert_close(logits, reference["logits"], atol=1e-4, rtol=1e-4)
    assert sum(p.numel() for p in published.parameters()) == 2_023_208, "the paper's 2 million"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("variational", [True, False])
def test_every_variant_has_the_promised_shapes_and_gradients(variant, variational):
    autoencoder = MaskAutoencoder(**{**TINY, **variant}, variational=variational)
    ids = torch.randint(16, (2, 16, 24))
    head_output, posterior = autoencoder(ids)
    assert posterior.mean.shape == (2, 4, 4, 6)
    assert head_output.shape == (2, 16 if variant["head"] == "id_logits" else 5, 16, 24)
    logits = autoencoder.id_logits(head_output)
    assert logits.shape == (2, 16, 16, 24)
    if variant["head"] == "factored":
        torch.testing.assert_close(logits[:, 0], head_output[:, 4])
        for k in range(1, 16):
            expected = sum(head_output[:, b] * (1 if k >> b & 1 else -1) for b in range(4))
            torch.testing.assert_close(logits[:, k], expected, atol=1e-5, rtol=1e-4)
    head_output.square().mean().backward()
    assert not [n for n, p in autoencoder.named_parameters() if p.grad is None]


def test_standardized_latents_have_unit_variance_and_come_back():
    torch.manual_seed(0)
    autoencoder = MaskAutoencoder(**TINY, normalization="standardize", scaling_factor=0.5)
    ids = torch.randint(16, (16, 16, 16))
    with torch.no_grad():
        raw = autoencoder.encode(ids).mean
        for _ in range(400):
            autoencoder.update_statistics(raw)
    latents = 2 * autoencoder.normalize(raw)
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(4), atol=0.02, rtol=0)
    torch.testing.assert_close(latents.var(dim=(0, 2, 3)), torch.ones(4), atol=0.1, rtol=0)
    back = autoencoder.denormalize(autoencoder.normalize(raw))
    torch.testing.assert_close(back, raw, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_latent_noise_is_there_in_training_only_and_in_units_of_the_deviation():
    autoencoder = MaskAutoencoder(**TINY, variational=False, latent_noise=0.5)
    ids = torch.randint(16, (1, 16, 16))
    assert not torch.equal(autoencoder(ids)[0], autoencoder(ids)[0])
    scales = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    latents = scales * torch.randn(4, 2, 64, 64)
    noise = autoencoder.add_latent_noise(latents) - latents
    torch.testing.assert_close(noise.std((0, 2, 3)), 0.5 * scales.flatten(), atol=0, rtol=0.05)
    autoencoder.eval()
    assert torch.equal(autoencoder(ids)[0], autoencoder(ids)[0])


def test_posterior_is_torchs_normal():
    mean, logvar = torch.randn(2, 1, 3, 2, 2)
    normal = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0, 1)).mean()
    torch.testing.assert_close(Posterior(mean, logvar).kl(), expected)
    torch.manual_seed(1)
    sample = Posterior(mean, logvar).sample()
    torch.manual_seed(1)
    torch.testing.assert_close(sample, mean + normal.stddev * torch.randn_like(mean))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"encoder": "vit"}, "ENCODER is 'vit'; allowed: conv, pixel_unshuffle"),
        ({"head": "softmax"}, "HEAD"),
        ({"normalization": "batch"}, "NORMALIZATION is 'batch'; allowed: fixed, standardize"),
        ({"downsample_factor": 6}, "DOWNSAMPLE_FACTOR must be a power of 2"),
    ],
)
def test_wrong_values_raise_and_name_the_key(wrong, message):
    with pytest.raises(ValueError, match=f"MODEL.LDMSEG.AUTOENCODER.{message}"):
        MaskAutoencoder(**wrong)
