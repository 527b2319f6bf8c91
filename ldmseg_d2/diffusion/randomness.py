"""Training's random numbers, each sample's its own: they depend on no other sample or process."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class SampleRandomness:
    """What training draws for the samples of a batch.

    Where every input has a ``sample_seed``, each sample's numbers come from a generator of its
    own: they depend neither on how a batch is split over processes and micro-batches nor on what
    was drawn before. Inputs without the key share torch's global generator.
    """

    def __init__(self, batched_inputs: Sequence[dict], device: torch.device) -> None:
        """
        Args:
            batched_inputs: dicts, perhaps with ``sample_seed``, an int.
            device: where the numbers are drawn.
        """
        self.device = device
        self.generators: list[torch.Generator | None] = [None] * len(batched_inputs)
        if all("sample_seed" in entry for entry in batched_inputs):
            seeds = [entry["sample_seed"] for entry in batched_inputs]
            self.generators = [torch.Generator(device=device).manual_seed(seed) for seed in seeds]

    def of_samples(self, indices: Sequence[int]) -> "SampleRandomness":
        """The same generators, of some samples of the batch."""
        part = copy.copy(self)
        part.generators = [self.generators[index] for index in indices]
        return part

    def randn(self, *shape: int) -> Tensor:
        """(B, *shape) standard normal."""
        return self._draw(lambda **where: torch.randn(shape, **where))

    def rand(self, *shape: int) -> Tensor:
        """(B, *shape) uniform in [0, 1)."""
        return self._draw(lambda **where: torch.rand(shape, **where))

    def randint(self, high: int, *shape: int) -> Tensor:
        """(B, *shape) int64, uniform in 0..high - 1."""
        return self._draw(lambda **where: torch.randint(high, shape, **where))

    def _draw(self, draw: Callable[..., Tensor]) -> Tensor:
        return torch.stack([draw(generator=g, device=self.device) for g in self.generators])
