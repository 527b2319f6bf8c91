import copy

import pytest
import torch
from tiny_model import TinyNet, tiny_config
from torch import nn

from ldmseg_d2.engine import ModelEMA


def test_average_in_closed_form():
    """With weights 1, 2, 3, ... the average is the sum of w_i (1 - d_i) prod_{j > i} d_j."""
    model = nn.Linear(1, 1, bias=False)
    ema = ModelEMA(model, decay=0.5)
    decays = [0.0, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 9 / 18, 0.5, 0.5, 0.5]
    expected = 0.0
    for i, decay in enumerate(decays):
        assert ema.current_decay() == pytest.approx(decay)
        with torch.no_grad():
            model.weight.fill_(i + 1)
        ema.update(model)
        expected = decay * expected + (1 - decay) * (i + 1)
        assert ema.module.weight.item() == pytest.approx(expected, rel=1e-6)
    assert ema.num_updates == len(decays)


@pytest.fixture
def tiny_net(tmp_path):
    return TinyNet(tiny_config(tmp_path))


def test_frozen_networks_are_shared_and_buffers_follow(tiny_net):
    ema = ModelEMA(tiny_net, decay=0.9)
    assert ema.module.autoencoder is tiny_net.autoencoder
    assert ema.module.head is not tiny_net.head
    before = copy.deepcopy(tiny_net.autoencoder.state_dict())
    for value in (7.0, 8.0):
        tiny_net.running_mean.fill_(value)
        ema.update(tiny_net)
        assert torch.equal(ema.module.running_mean, tiny_net.running_mean)
    for key, value in tiny_net.autoencoder.state_dict().items():
        assert torch.equal(value, before[key])
    keys = ema.state_dict()["model"].keys()
    assert keys == {k for k in tiny_net.state_dict() if not k.startswith("autoencoder.")}


def test_state_round_trip_and_reset(tiny_net, tmp_path):
    ema = ModelEMA(tiny_net, decay=0.9)
    for _ in range(3):
        with torch.no_grad():
            tiny_net.head.weight.normal_()
        ema.update(tiny_net)
    torch.save(ema.state_dict(), tmp_path / "ema.pth")
    other = ModelEMA(tiny_net, decay=0.9)
    other.load_state_dict(torch.load(tmp_path / "ema.pth", weights_only=True))
    assert other.num_updates == 3
    for ours, theirs in zip(other.module.parameters(), ema.module.parameters()):
        assert torch.equal(ours, theirs)
    assert not torch.equal(ema.module.head.weight, tiny_net.head.weight)
    ema.reset(tiny_net)
    assert ema.num_updates == 0
    assert torch.equal(ema.module.head.weight, tiny_net.head.weight)
