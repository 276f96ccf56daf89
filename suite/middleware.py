"""Samplers that wrap samplers: they edit what passes between a sampler and the network, whatever the method.

The state stays the sampler's own, so multistep histories and second-order stages need no care.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from suite.drive import advance
from suite.samplers import Sampler

GOLDEN = (5**0.5 - 1) / 2
REACH = 16  # a loop is shifted by up to this part of its size, either way
Edit = Callable[[Tensor, int], Tensor]  # of a tensor, in call number n


def start_at(levels: Sequence[float], strength: float) -> list[float]:
    """Returns the tail of a grid on which an edit of a given signal runs (image-to-image).

    Args:
        levels: descending, the last 0.
        strength: 1 runs every step from pure noise, 0.3 the last three in ten (rounded down).

    Raises:
        ValueError: strength is outside (0, 1] or leaves no step.
    """
    steps = len(levels) - 1
    if not 0 < strength <= 1:
        raise ValueError(f"strength is {strength}; it must be above 0 and at most 1")
    kept = int(steps * strength + 1e-9)  # 0.29 of 100 is 28.999999999999996
    if not kept:
        least = math.ceil(1e4 / steps) / 1e4
        raise ValueError(f"strength {strength} leaves none of {steps} steps; it must be at least {least:g}")
    return list(levels[steps - kept :])


def keep(sampler: Sampler, original: Tensor, mask: Tensor) -> Sampler:
    """Keeps a region (inpainting): there, the clean estimate is the original itself.

    The kept region then follows alpha(sigma) original + sigma eps exactly, whatever the level and the method,
    and ends at the original. Start x there from the noised original (`schedules.noised`).

    Args:
        sampler: just made, not yet started.
        original: (B, C, *S) float32, clean.
        mask: (B or 1, 1, *S) float32, 1 = repaint, 0 = keep; between, a mixture.
    """
    return _through(sampler, lambda x, _: x, lambda denoised, _: original + mask * (denoised - original))


def turned(x: Tensor, dims: Sequence[int], turn: int, sign: int = 1) -> Tensor:
    """Shifts x as `seamless` does in its call number `turn`; sign -1 shifts it back."""
    shares = [2 * ((turn + axis) * GOLDEN % 1) - 1 for axis in range(len(dims))]
    reaches = [max(1, x.shape[dim] // REACH) for dim in dims]
    shifts = [sign * round(share * reach) for share, reach in zip(shares, reaches, strict=True)]
    return torch.roll(x, shifts, tuple(dims))


def seamless(sampler: Sampler, dims: Sequence[int]) -> Sampler:
    """Makes the result tile or loop: the network sees it circularly shifted, by another amount in each call.

    The seam is thus inside what the network sees, and is drawn over; it stays near the edge, for a network
    that learned things in the middle draws none that is cut in halves. The shifts follow the golden ratio:
    evenly spread after any number of calls, and the same for every item of every batch, so no seed is needed.

    Args:
        sampler: just made, not yet started.
        dims: dimensions of x to close, (-1,) for a panorama, (-2, -1) for a tile, (2,) for a clip that loops.
    """
    return _through(sampler, lambda x, n: turned(x, dims, n), lambda x, n: turned(x, dims, n, -1))


def _through(sampler: Sampler, there: Edit, back: Edit) -> Sampler:
    """Edits each point that goes to the network, and each estimate that comes back."""
    call, (done, x, sigma) = 0, advance(sampler, None)
    while not done:
        denoised = yield there(x, call), sigma
        done, x, sigma = advance(sampler, back(denoised, call))
        call += 1
    return x
