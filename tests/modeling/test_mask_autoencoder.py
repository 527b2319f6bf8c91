import pytest
import torch

from ldmseg_d2.ids import encode_bits
from ldmseg_d2.modeling.mask_autoencoder import MaskAutoencoder, Posterior

TINY = {
    "num_bits": 4,
    "encoder_channels": 8,
    "decoder_channels": 32,
    "downsample_factor": 4,
    "num_layers": 1,
}
VARIANTS = [
    {"encoder": "conv", "decoder": "transposed_conv", "head": "id_logits", "num_upsamplings": 1},
    {"encoder": "conv", "decoder": "pixel_shuffle", "head": "factored"},
    {"encoder": "pixel_unshuffle", "decoder": "pixel_shuffle", "head": "factored"},
    {"encoder": "pixel_unshuffle", "decoder": "transposed_conv", "head": "factored"},
]


@pytest.fixture(scope="module")
def published(reference):
    autoencoder = MaskAutoencoder().eval()
    autoencoder.load_state_dict(
        {key[3:]: value for key, value in reference.items() if key.startswith("ae.")}
    )
    return autoencoder


@torch.no_grad()
def test_published_weights_encode_as_the_reference(published, reference):
    ids = reference["ids"].long()
    assert torch.equal(encode_bits(ids, 7), reference["bits"])
    mean = published.encode(ids).mean
    torch.testing.assert_close(mean, reference["latent_mean"], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        published.normalize(mean), reference["scaled_latents"], atol=1e-4, rtol=0
    )


@torch.no_grad()
def test_published_weights_decode_as_the_reference(published, reference):
    torch.testing.assert_close(
        published.decode(reference["latent_mean"]), reference["recon_logits"], atol=1e-4, rtol=0
    )


def test_the_papers_autoencoder_has_2_02_million_parameters():
    assert sum(p.numel() for p in MaskAutoencoder().parameters()) == 2_023_208


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("variational", [True, False])
def test_every_variant_has_the_promised_shapes_and_gradients(variant, variational):
    autoencoder = MaskAutoencoder(**{**TINY, **variant}, variational=variational)
    ids = torch.randint(16, (2, 16, 24))
    head_output, posterior = autoencoder(ids)
    assert posterior.mean.shape == (2, 4, 4, 6)
    assert head_output.shape == (2, 16 if variant["head"] == "id_logits" else 5, 16, 24)
    assert autoencoder.id_logits(head_output).shape == (2, 16, 16, 24)
    head_output.square().mean().backward()
    missing = [n for n, p in autoencoder.named_parameters() if p.grad is None]
    assert not missing


def test_factored_logits_are_codes_times_bits():
    autoencoder = MaskAutoencoder(**TINY, encoder="pixel_unshuffle", decoder="pixel_shuffle",
                                  head="factored")  # fmt: skip
    head = torch.randn(1, 5, 2, 2)
    logits = autoencoder.id_logits(head)
    for k in range(1, 16):
        expected = sum(head[0, b] * (1 if k >> b & 1 else -1) for b in range(4))
        torch.testing.assert_close(logits[0, k], expected)
    torch.testing.assert_close(logits[0, 0], head[0, 4])


@pytest.mark.parametrize("normalization", ["fixed", "standardize"])
def test_denormalize_inverts_normalize(normalization):
    autoencoder = MaskAutoencoder(**TINY, normalization=normalization)
    for _ in range(3):
        autoencoder(torch.randint(16, (4, 16, 16)))  # moves the running statistics
    z = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(
        autoencoder.denormalize(autoencoder.normalize(z)), z, atol=1e-5, rtol=1e-4
    )


def test_standardized_latents_have_unit_variance():
    torch.manual_seed(0)
    autoencoder = MaskAutoencoder(**TINY, normalization="standardize", scaling_factor=1.0)
    ids = torch.randint(16, (16, 16, 16))
    for _ in range(400):
        with torch.no_grad():
            autoencoder(ids)
    latents = autoencoder.normalize(autoencoder.encode(ids).mean)
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(4), atol=0.02, rtol=0)
    torch.testing.assert_close(latents.var(dim=(0, 2, 3)), torch.ones(4), atol=0.1, rtol=0)


def test_latent_noise_is_there_in_training_only():
    autoencoder = MaskAutoencoder(**TINY, variational=False, latent_noise=0.5)
    ids = torch.randint(16, (1, 16, 16))
    assert not torch.equal(autoencoder(ids)[0], autoencoder(ids)[0])
    autoencoder.eval()
    assert torch.equal(autoencoder(ids)[0], autoencoder(ids)[0])


def test_posterior_kl_is_torchs():
    mean, logvar = torch.randn(2, 1, 3, 2, 2).unbind(0)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * logvar).exp()), torch.distributions.Normal(0, 1)
    ).mean()
    torch.testing.assert_close(Posterior(mean, logvar).kl(), expected)


@pytest.mark.parametrize(
    "wrong,message",
    [
        ({"encoder": "vit"}, "ENCODER is 'vit'; allowed: conv, pixel_unshuffle"),
        ({"head": "softmax"}, "HEAD"),
        ({"downsample_factor": 6}, "power of 2"),
        ({"num_upsamplings": 4}, "NUM_UPSAMPLINGS must be 0..3"),
    ],
)
def test_wrong_values_raise_and_name_the_key(wrong, message):
    with pytest.raises(ValueError, match=message):
        MaskAutoencoder(**wrong)
