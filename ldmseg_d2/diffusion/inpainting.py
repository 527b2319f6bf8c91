"""Ways to put known latents back while the rest is sampled: the mask is completed, not replaced.

All of them are the ordinary sampling loop with one line more; see :func:`sample_latents`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from .schedule import add_noise

INPAINTING_METHODS = ("fixed", "noised", "x0", "repaint")
# Those whose known cells, or jumps, draw noise of their own.
_NEEDS_NOISE = ("noised", "repaint")


class Visit(NamedTuple):
    """One step of the sampling loop."""

    index: int  # of the timestep in scheduler.timesteps
    jumps_from: int | None  # RePaint: the index whose x_t is noised to this step's level first
    is_again: bool  # RePaint: this step has been made before
    is_first_of: int | None  # the step 0..N - 1 that begins here for the first time


class KnownLatents:
    """The known latents of a batch, and how they enter the sampling loop.

    "fixed"
        clean known cells stand in for the noisy ones at every step (LDMSeg, arXiv 2401.10227):
        the network sees them as they are.
    "noised"
        known cells are noised to the step's level before every forward: x_t is everywhere what the
        network saw in training (RePaint, arXiv 2201.09865, eq. 8a).
    "x0"
        known cells are pasted into the x0 prediction only, and the step is computed from that: they
        keep their own trajectory from the starting noise.
    "repaint"
        as "noised", and the loop jumps back up and samples again, so that known and new cells
        grow together (RePaint, section 4.2).
    """

    def __init__(
        self,
        latents: Tensor,
        mask: Tensor,
        *,
        method: str = "fixed",
        generators: Sequence[torch.Generator] | None = None,
        jump_length: int = 5,
        resamples: int = 3,
    ) -> None:
        """
        Args:
            latents: (B, C, h, w) clean latents, read where ``mask``.
            mask: (B, 1 or C, h, w) bool, cells that are given; all False in a sample without.
            method: one of ``INPAINTING_METHODS``.
            generators: one per sample; needed by "noised" and "repaint".
            jump_length, resamples: of "repaint": steps of a jump, and how often each stretch is
                sampled; see :func:`repaint_visits`.

        Raises:
            ValueError: unknown method, shapes that do not fit, or no generators where needed.
        """
        if method not in INPAINTING_METHODS:
            raise ValueError(
                f"MODEL.LDMSEG.SAMPLER.INPAINTING is {method!r}; "
                f"allowed: {', '.join(INPAINTING_METHODS)}"
            )
        if method in _NEEDS_NOISE and generators is None:
            raise ValueError(
                f"MODEL.LDMSEG.SAMPLER.INPAINTING {method!r} draws noise: give one generator per "
                "sample"
            )
        channels = {1, latents.shape[1]}
        fits = mask.ndim == 4 and mask.shape[0] == latents.shape[0] and mask.shape[1] in channels
        if not fits or mask.shape[2:] != latents.shape[2:] or mask.dtype != torch.bool:
            raise ValueError(
                f"known_mask {tuple(mask.shape)} {mask.dtype} does not fit known_latents "
                f"{tuple(latents.shape)}: expected (B, 1 or C, h, w) bool"
            )
        self.latents = latents
        self.mask = mask
        self.method = method
        self.generators = generators
        self.jump_length = jump_length
        self.resamples = resamples
        # Samples without known cells draw nothing here and do not jump: they come out as they
        # would in a batch without any.
        self.has_known = mask.flatten(1).any(dim=1)  # [B]

    def visits(self, num_steps: int, order: int = 1) -> list[Visit]:
        """The steps of the loop; more than ``num_steps`` for "repaint".

        Args:
            num_steps: N.
            order: see :func:`passes_of`.
        """
        if self.method != "repaint":
            return plain_visits(num_steps, order)
        return passes_of(
            repaint_visits(num_steps, self.jump_length, self.resamples), num_steps, order
        )

    def into_x_t(self, x_t: Tensor, t: Tensor, scheduler: SchedulerMixin) -> Tensor:
        """Known cells of the network's input at timestep t (a scalar tensor)."""
        if self.method == "x0":
            return x_t
        known = self.latents
        if self.method in _NEEDS_NOISE:
            known = add_noise(scheduler, known, self._noise(), t.expand(len(known)))
        return torch.where(self.mask, known, x_t)

    def into_x0(self, x0: Tensor) -> Tensor:
        """Known cells of a prediction."""
        return torch.where(self.mask, self.latents, x0)

    def jump(self, x_t: Tensor, visit: Visit, scheduler: SchedulerMixin) -> Tensor:
        """Noise x from the level of ``visit.jumps_from`` to that of ``visit.index``.

        The forward process over several steps, RePaint's algorithm 1, line 10: x_t ~
        N(sqrt(r) x_s, (1 - r) I) with r = alphas_cumprod[t] / alphas_cumprod[s], s < t.
        """
        timesteps = scheduler.timesteps.long()
        alpha = scheduler.alphas_cumprod[timesteps[visit.index]]
        if visit.jumps_from < len(timesteps):
            previous = scheduler.alphas_cumprod[timesteps[visit.jumps_from]]
        else:  # after the last step
            previous = getattr(scheduler, "final_alpha_cumprod", torch.ones(()))
        ratio = (alpha / previous).to(x_t)
        return self.hold(ratio.sqrt() * x_t + (1 - ratio).sqrt() * self._noise(), x_t)

    def hold(self, new: Tensor, old: Tensor) -> Tensor:
        """``new`` for the samples with known cells, ``old`` for the others."""
        return torch.where(self.has_known.view(-1, 1, 1, 1), new, old)

    @staticmethod
    def own_generators(
        generators: Sequence[torch.Generator] | None, chosen: Tensor
    ) -> Sequence[torch.Generator] | None:
        """The generators of the chosen samples (B,) bool, and stand-ins for the others."""
        if generators is None:
            return None
        pairs = zip(generators, chosen.tolist(), strict=True)
        return [g if own else torch.Generator(device=g.device) for g, own in pairs]

    def _noise(self) -> Tensor:
        """(B, C, h, w) standard normal, 0 for samples without known cells."""
        noise = torch.zeros_like(self.latents)
        for row in torch.nonzero(self.has_known)[:, 0].tolist():
            g = self.generators[row]
            noise[row] = torch.randn(noise.shape[1:], generator=g, device=g.device)
        return noise


def plain_visits(num_steps: int, order: int = 1) -> list[Visit]:
    """Every step once, from noise to the mask; ``order``: see :func:`passes_of`."""
    return passes_of([Visit(i, None, False, i) for i in range(num_steps)], num_steps, order)


def passes_of(visits: list[Visit], num_steps: int, order: int) -> list[Visit]:
    """From steps to passes of the network.

    Args:
        visits: whose index counts steps.
        num_steps: N.
        order: passes of a step, 1 or 2. The second one of step i is at the timestep of step i + 1;
            the last step has none.
    """
    if order == 1:
        return visits
    passes = []
    for visit in visits:
        jumps_from = None if visit.jumps_from is None else order * visit.jumps_from
        passes.append(visit._replace(index=order * visit.index, jumps_from=jumps_from))
        if visit.index < num_steps - 1:
            passes.append(Visit(order * visit.index + 1, None, visit.is_again, None))
    return passes


def repaint_visits(num_steps: int, jump_length: int, resamples: int) -> list[Visit]:
    """RePaint's schedule (arXiv 2201.09865, section 4.2 and appendix): down, up, down again.

    Where the steps that are left, q, are a multiple of ``jump_length`` below
    ``num_steps - jump_length``, the loop goes back up by ``jump_length`` steps, in one jump with
    the same distribution as as many single ones, ``resamples - 1`` times.

    Args:
        num_steps: N.
        jump_length: j >= 1; with j >= N there is no jump, which leaves "noised".
        resamples: r >= 1; 1: no jump.

    Returns:
        N + (r - 1) j ceil((N - j) / j) visits.

    Raises:
        ValueError: a number below 1.
    """
    if jump_length < 1 or resamples < 1:
        raise ValueError(
            f"RePaint's jump length and resamples are at least 1, got {jump_length} and {resamples}"
        )
    jumps_left = dict.fromkeys(range(0, num_steps - jump_length, jump_length), resamples - 1)
    visits: list[Visit] = []
    index, jumps_from, deepest = 0, None, -1
    while index < num_steps:
        is_again = index <= deepest
        visits.append(Visit(index, jumps_from, is_again, None if is_again else index))
        deepest = max(deepest, index)
        index, jumps_from = index + 1, None
        if jumps_left.get(num_steps - index, 0) > 0:
            jumps_left[num_steps - index] -= 1
            index, jumps_from = index - jump_length, index
    return visits
