"""The loops that drive samplers: to the end, call by call, or many in one batch.

Only `.send` stands inside `try`: a StopIteration that escapes a network must not pass for the sampler's end
(PEP 479).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from suite.samplers import Sampler

Denoise = Callable[[Tensor, float | Tensor], Tensor]
Y = TypeVar("Y")
R = TypeVar("R")


class Kept(Generic[Y, R]):
    """A generator to loop over whose result is kept: `value`, once the loop has run to its end."""

    value: R

    def __init__(self, steps: Generator[Y, None, R]) -> None:
        self.steps = steps

    def __iter__(self) -> Iterator[Y]:
        self.value = yield from self.steps


@dataclass(frozen=True)
class Step:
    """One call of the network.

    Attributes:
        index: of the call, from 0.
        steps: calls in all, 0 where the caller of `trace` did not say.
        x: (B, C, *S) float32, what the network was shown.
        sigma: the level of x.
        denoised: (B, C, *S) float32, the clean estimate there.
    """

    index: int
    steps: int
    x: Tensor
    sigma: float
    denoised: Tensor


def trace(sampler: Sampler, denoise: Denoise, *, steps: int = 0) -> Generator[Step, None, Tensor]:
    """Drives a sampler call by call; closing the generator cancels it.

    Args:
        sampler: just made, not yet started.
        denoise: (x, sigma) -> clean estimate.
        steps: calls in all, to be told in each Step (`samplers.calls` knows).

    Yields:
        a Step after each call.

    Returns:
        (B, C, *S) float32, the sampler's result.

    Raises:
        FloatingPointError: an estimate holds NaN or infinity.
    """
    index, done, x, sigma = 0, *advance(sampler, None)
    while not done:
        denoised = _checked(denoise(x, sigma), x, sigma)
        yield Step(index, steps, x, sigma, denoised)
        done, x, sigma = advance(sampler, denoised)
        index += 1
    return x


def sample(sampler: Sampler, denoise: Denoise) -> Tensor:
    """Drives a sampler to its end.

    Args:
        sampler: just made, not yet started.
        denoise: (x, sigma) -> clean estimate.

    Returns:
        (B, C, *S) float32, the sampler's result.

    Raises:
        FloatingPointError: an estimate holds NaN or infinity.
    """
    done, x, sigma = advance(sampler, None)
    while not done:
        denoised = _checked(denoise(x, sigma), x, sigma)
        done, x, sigma = advance(sampler, denoised)
    return x


def serve(samplers: Sequence[Sampler], denoise: Denoise) -> list[Tensor]:
    """Drives many samplers, each at its own level, with one batched call for all.

    A sampler that is done keeps its rows in the batch until the last one is, so that row i is the same
    request's in every call and what the denoiser holds for each row (the prompts) stays in step.

    Args:
        samplers: just made; their x agree in (C, *S) and may differ in batch size and number of steps.
        denoise: (x (B, C, *S), sigma (B,)) -> clean estimate, B the sum of the samplers' batches.

    Returns:
        each sampler's result.
    """
    states = [advance(sampler, None) for sampler in samplers]
    while not all(done for done, _, _ in states):
        sizes = [x.shape[0] for _, x, _ in states]
        x = torch.cat([x for _, x, _ in states])
        sigmas = [sigma for (_, _, sigma), size in zip(states, sizes, strict=True) for _ in range(size)]
        denoised = denoise(x, torch.tensor(sigmas, dtype=torch.float32, device=x.device))
        for i, part in enumerate(torch.split(denoised, sizes)):
            done, x, sigma = states[i]
            if not done:
                finished, x, level = advance(samplers[i], _checked(part, x, sigma))
                states[i] = (finished, x, sigma if finished else level)
    return [x for _, x, _ in states]


def advance(sampler: Sampler, denoised: Tensor | None) -> tuple[bool, Tensor, float]:
    """Sends a sampler the estimate (None starts it) and returns (done, x, sigma)."""
    try:
        x, sigma = next(sampler) if denoised is None else sampler.send(denoised)
    except StopIteration as stop:
        return True, stop.value, 0.0
    return False, x, sigma


def _checked(denoised: Tensor, x: Tensor, sigma: float) -> Tensor:
    """The estimate in the precision of the state, whichever the network has, and finite."""
    denoised = denoised.to(x.dtype)
    if torch.compiler.is_compiling() or math.isfinite(float(denoised.sum())):
        return denoised  # finite terms, and a sixth of the cost of looking at each; a sum may overflow
    if not bool(torch.isfinite(denoised).all()):
        raise FloatingPointError(
            f"the network returned NaN or infinity at noise level {sigma:.4g}; nothing was saved. "
            "Try float32 (dtype='float32'), a lower guidance_scale, or another model."
        )
    return denoised
