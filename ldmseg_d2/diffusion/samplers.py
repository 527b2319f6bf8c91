"""What the sampling loop need not know of diffusers' schedulers: scales, state, noise, jumps."""

import copy
from collections.abc import Sequence

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    SchedulerMixin,
)
from torch import Tensor

from .inpainting import KnownLatents, Visit, plain_visits

# Their step depends on x_t, t and the output alone; all others keep what came before.
_WITHOUT_HISTORY = (DDIMScheduler, DDPMScheduler)
_DRAWS_NOISE = (DDPMScheduler, LCMScheduler)


class Sampler:
    """A scheduler in one sampling run, in the terms of the paper.

    Whatever the scheduler computes with, here x_t = a x0 + s epsilon with a^2 = alphas_cumprod[t]
    and s^2 = 1 - a^2, and t is a whole number: that is what the network has learnt.

    Attributes:
        timesteps: (K,) int64, one for each pass of the network: K = N, with "Heun" 2 N - 1.
    """

    def __init__(
        self,
        scheduler: SchedulerMixin,
        num_inference_steps: int,
        *,
        device: torch.device,
        known: KnownLatents | None = None,
    ) -> None:
        """
        Args:
            scheduler: what :func:`build_scheduler` gives; a run leaves its timesteps in it.
            num_inference_steps: steps N.
            device: of the timesteps.
            known: what is given.

        Raises:
            ValueError: more steps than the scheduler has timesteps, or less than one.
        """
        self.scheduler = scheduler
        self.known = known
        self.num_steps = num_inference_steps
        self.device = device
        self._check()
        self._start(scheduler, 0)
        self.timesteps = scheduler.timesteps.long()
        if (self.timesteps[:: scheduler.order].diff() >= 0).any():
            self._raise(f"fewer than {num_inference_steps}, for this TIMESTEP_SPACING")
        self._jumping = None
        if known is not None and known.method == "repaint" and not self._forgets:
            # After a jump the history starts anew, but not that of samples that do not jump.
            self._jumping = copy.deepcopy(scheduler)

    def visits(self) -> list[Visit]:
        """The steps of the loop."""
        order = self.scheduler.order
        if self.known is None:
            return plain_visits(self.num_steps, order)
        return self.known.visits(self.num_steps, order)

    def step(
        self,
        output: Tensor,
        x_t: Tensor,
        visit: Visit,
        generators: Sequence[torch.Generator] | None,
    ) -> Tensor:
        """x at the next timestep, by the scheduler's own ``step``.

        Args:
            output: (B, C, h, w) of the network at x_t.
            x_t: (B, C, h, w).
            visit: which step of the loop.
            generators: one per sample, or None.
        """
        if self._jumping is None:
            if self.known is not None and visit.is_again:
                generators = self.known.own_generators(generators, self.known.has_known)
            return self._advance(self.scheduler, output, x_t, visit.index, generators)
        if visit.jumps_from is not None:
            self._start(self._jumping, visit.index)
        jumps = self.known.has_known
        own = self.known.own_generators(generators, jumps)
        new = self._advance(self._jumping, output, x_t, visit.index, own)
        if visit.is_again:
            return new
        own = self.known.own_generators(generators, ~jumps)
        return self.known.hold(new, self._advance(self.scheduler, output, x_t, visit.index, own))

    @property
    def _forgets(self) -> bool:
        return isinstance(self.scheduler, _WITHOUT_HISTORY)

    def _start(self, scheduler: SchedulerMixin, index: int) -> None:
        """Forget what came before; the next step is that of timesteps[index]."""
        scheduler.set_timesteps(self.num_steps, device=self.device)
        passes = scheduler.order * self.num_steps - (scheduler.order - 1)
        if isinstance(scheduler, HeunDiscreteScheduler):
            # Its linspace spacing has fractions, at which no network was trained.
            whole = scheduler.timesteps[::2].round()[: self.num_steps]
            scheduler.set_timesteps(timesteps=whole.tolist(), device=self.device)
        # For 62 numbers of steps, 61 the least, trailing spacing is given a further one, at t = -1.
        scheduler.timesteps = scheduler.timesteps[:passes]
        if not self._forgets:
            scheduler.set_begin_index(index)

    @staticmethod
    def _advance(
        scheduler: SchedulerMixin,
        output: Tensor,
        x_t: Tensor,
        index: int,
        generators: Sequence[torch.Generator] | None,
    ) -> Tensor:
        t = scheduler.timesteps[index]
        if isinstance(scheduler, DPMSolverMultistepScheduler):
            # It gives x the precision of the output, which is low under autocast.
            output = output.to(x_t.dtype)
        if isinstance(scheduler, HeunDiscreteScheduler):
            # It steps in x_t / a = x0 + sigma epsilon; 1 / a = sqrt(sigma^2 + 1).
            now, then = (scheduler.sigmas[i].square().add(1).sqrt() for i in (index, index + 1))
            return scheduler.step(output, t, x_t * now).prev_sample / then
        if generators is not None and isinstance(scheduler, _DRAWS_NOISE):
            return scheduler.step(output, t, x_t, generator=list(generators)).prev_sample
        return scheduler.step(output, t, x_t).prev_sample

    def _check(self) -> None:
        length = self.scheduler.config.num_train_timesteps
        if not 1 <= self.num_steps <= length:
            self._raise(f"1 to NUM_TRAIN_TIMESTEPS, which is {length}")

    def _raise(self, allowed: str) -> None:
        raise ValueError(
            f"MODEL.LDMSEG.SAMPLER.NUM_INFERENCE_STEPS is {self.num_steps}; allowed: {allowed}"
        )
