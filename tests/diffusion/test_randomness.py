import torch
from tiny import tiny_batch

from ldmseg_d2.diffusion import SampleRandomness

CPU = torch.device("cpu")


def test_a_samples_numbers_are_its_own():
    batch = [{**entry, "sample_seed": 100 + i} for i, entry in enumerate(tiny_batch(3))]
    together = SampleRandomness(batch, CPU)
    drawn = [together.randn(2, 3), together.randint(1000), together.rand(), together.randint(9, 2)]
    assert [tuple(x.shape) for x in drawn] == [(3, 2, 3), (3,), (3,), (3, 2)]
    torch.manual_seed(5)
    for last in (SampleRandomness(batch[2:], CPU), SampleRandomness(batch, CPU).of_samples([2])):
        alone = [last.randn(2, 3), last.randint(1000), last.rand(), last.randint(9, 2)]
        for whole, one in zip(drawn, alone):
            assert torch.equal(whole[2:], one)


def test_without_the_key_the_global_generator_is_used():
    torch.manual_seed(3)
    drawn = SampleRandomness(tiny_batch(2), CPU).randn(4)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.randn(2, 4))
