import pytest
import torch

from ldmseg_d2.modeling.depth_autoencoder import DepthAutoencoder

SIZES = {"downsample_factor": 4, "latent_channels": 6, "channels": 8, "num_layers": 1}


@pytest.fixture
def autoencoder():
    torch.manual_seed(0)
    return DepthAutoencoder(**SIZES).eval()


def test_latents_have_the_masks_shape_and_come_back_at_the_maps_size(autoencoder):
    depth, valid = torch.rand(2, 16, 24) * 2 - 1, torch.rand(2, 16, 24) < 0.8
    latents = autoencoder.encode(depth, valid)
    assert latents.shape == (2, 6, 4, 6)
    assert autoencoder.decode(latents).shape == (2, 16, 24)
    torch.testing.assert_close(autoencoder.denormalize(autoencoder.normalize(latents)), latents)


def test_invalid_pixels_are_not_read_but_known_to_be_invalid(autoencoder):
    depth, valid = torch.zeros(1, 16, 16), torch.ones(1, 16, 16, dtype=torch.bool)
    valid[:, 3:9, 5:11] = False
    other = depth.where(valid, torch.tensor(float("nan")))
    latents = autoencoder.encode(depth, valid)
    assert torch.equal(autoencoder.encode(other, valid), latents)
    assert not torch.equal(autoencoder.encode(depth, torch.ones_like(valid)), latents)


@torch.no_grad()
def test_training_follows_the_latents_mean_and_variance(autoencoder):
    depth, valid = torch.rand(4, 16, 16) * 2 - 1, torch.ones(4, 16, 16, dtype=torch.bool)
    raw = autoencoder.encode(depth, valid)
    mean, variance = raw.mean((0, 2, 3)), raw.var((0, 2, 3))
    autoencoder(depth, valid)
    assert not autoencoder.running_mean.any(), "only in training"
    autoencoder.train()(depth, valid)
    torch.testing.assert_close(autoencoder.running_mean, 0.02 * mean)
    torch.testing.assert_close(autoencoder.running_var, 0.98 + 0.02 * variance)
    for _ in range(1000):
        autoencoder.update_statistics(raw)
    latents = autoencoder.normalize(raw)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(6), atol=1e-3, rtol=0)


def test_wrong_values_name_the_depth_autoencoders_key():
    with pytest.raises(ValueError, match="MODEL.LDMSEG.DEPTH.AUTOENCODER.NORMALIZATION"):
        DepthAutoencoder(**SIZES, normalization="batch")
