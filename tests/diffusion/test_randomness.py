import torch

from ldmseg_d2.diffusion import SampleRandomness

CPU = torch.device("cpu")


def draw(randomness):
    return [randomness.randn(2, 3), randomness.rand(), randomness.randint(1000, 4)]


def test_a_samples_numbers_depend_on_its_seed_alone():
    entries = [{"sample_seed": seed} for seed in (4, 9, 4, 7)]
    whole = draw(SampleRandomness(entries, CPU))
    assert [tuple(values.shape) for values in whole] == [(4, 2, 3), (4,), (4, 4)]
    part = draw(SampleRandomness(entries, CPU).of_samples([3, 1]))
    for values, some in zip(whole, part):
        assert torch.equal(values[0], values[2]) and not torch.equal(values[0], values[1])
        assert torch.equal(some, values[[3, 1]])


def test_without_seeds_torchs_generator_decides():
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(draw(SampleRandomness([{}, {"sample_seed": 1}], CPU))[0])
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
