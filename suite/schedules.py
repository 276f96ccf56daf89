"""Noise schedules (what a network was trained on) and grids of levels (where a sampler asks it).

A schedule holds one sigma a training timestep; for a variance-preserving one sigma = sqrt(1 / alpha_bar - 1).
A grid is a descending list of floats that ends at 0.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from operator import mul
from typing import TypeVar, get_args

from torch import Tensor

from suite.paths import FLOW, VE, Path
from suite.request import SpacingName

Level = TypeVar("Level", float, Tensor)
SPACINGS: tuple[str, ...] = get_args(SpacingName)
TINY = 2.0**-24  # stands in for alpha_bar = 0, as in diffusers: sigma is then 4096, large and finite


@dataclass(frozen=True)
class Schedule:
    """The noise level of every training timestep.

    Attributes:
        name: of its kind, for messages.
        path: the path its levels lie on.
        sigmas: ascending, one for each training timestep 0 .. N-1.
        shared: how much of the noise, in variance, all frames of a clip have in common.
    """

    name: str
    path: Path
    sigmas: tuple[float, ...]
    shared: float = 0.0

    def timestep(self, sigma: float) -> float:
        """Fractional training timestep of a level: N sigma on the flow path, else linear in log sigma."""
        if self.path is FLOW:
            return sigma * len(self.sigmas)
        if sigma <= self.sigmas[0]:
            return 0.0
        if sigma >= self.sigmas[-1]:  # zero terminal SNR may hold several timesteps at the top level
            return len(self.sigmas) - 1.0
        i = bisect_right(self.sigmas, sigma)
        low, high = self.sigmas[i - 1], self.sigmas[i]
        return min(i - 1 + math.log(sigma / low) / math.log(high / low), i)

    def sigma(self, timestep: float) -> float:
        """Level of a fractional training timestep, the inverse of `timestep`."""
        if self.path is FLOW:
            return timestep / len(self.sigmas)
        i = min(max(int(timestep), 0), len(self.sigmas) - 2)
        weight = min(max(timestep - i, 0.0), 1.0)
        return float(self.sigmas[i] ** (1 - weight) * self.sigmas[i + 1] ** weight)


def _from_betas(name: str, betas: Sequence[float]) -> Schedule:
    return _from_alpha_bars(name, accumulate((1 - beta for beta in betas), mul))


def _from_alpha_bars(name: str, alpha_bars: Iterable[float]) -> Schedule:
    return Schedule(name, VE, tuple(math.sqrt((1 - a) / a) for a in (max(a, TINY) for a in alpha_bars)))


def _linspace(start: float, end: float, count: int) -> list[float]:
    return [start + (end - start) * i / max(count - 1, 1) for i in range(count)]


def linear(timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """Betas on a line. Source: Ho et al. 2020, arXiv 2006.11239, section 4."""
    return _from_betas("linear", _linspace(beta_start, beta_end, timesteps))


def scaled_linear(timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Schedule:
    """Square roots of the betas on a line. Source: Rombach et al. 2022, arXiv 2112.10752, as released."""
    return _from_betas("scaled_linear", [b * b for b in _linspace(beta_start**0.5, beta_end**0.5, timesteps)])


def cosine(timesteps: int = 1000, beta_max: float = 0.999) -> Schedule:
    """alpha_bar = cos^2. Source: Nichol & Dhariwal 2021, arXiv 2102.09672, equation 17."""

    def bar(i: int) -> float:
        return math.cos((i / timesteps + 0.008) / 1.008 * math.pi / 2) ** 2

    return _from_betas("cosine", [min(1 - bar(i + 1) / bar(i), beta_max) for i in range(timesteps)])


def sigmoid(timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """Betas on a logistic curve from -6 to 6. Source: Xu et al. 2022 (GeoDiff), arXiv 2203.02923."""
    curve = [1 / (1 + math.exp(-u)) for u in _linspace(-6, 6, timesteps)]
    return _from_betas("sigmoid", [beta_start + (beta_end - beta_start) * c for c in curve])


def flow(timesteps: int = 1000) -> Schedule:
    """Sigma = 1/N .. 1 on the rectified-flow path. Source: Liu et al. 2022, arXiv 2209.03003."""
    return Schedule("flow", FLOW, tuple((i + 1) / timesteps for i in range(timesteps)))


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "linear": linear,
    "scaled_linear": scaled_linear,
    "cosine": cosine,
    "sigmoid": sigmoid,
    "flow": flow,
}


def make(
    name: str, *, zero_terminal_snr: bool = False, shared: float = 0.0, **options: float
) -> Schedule:
    """Makes a schedule by name.

    Args:
        name: one of SCHEDULES.
        zero_terminal_snr: whether to rescale it so that its last level holds no signal.
        shared: as of `Schedule`.
        options: what that schedule's function takes.

    Raises:
        ValueError: the name is unknown, or shared is outside [0, 1).
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule is {name!r}; it must be one of {', '.join(SCHEDULES)}")
    if not 0 <= shared < 1:
        raise ValueError(f"shared is {shared}; it must be at least 0 and below 1")
    schedule = SCHEDULES[name](**options)
    schedule = _without_signal_at_the_end(schedule) if zero_terminal_snr else schedule
    return replace(schedule, shared=shared)


def _without_signal_at_the_end(schedule: Schedule) -> Schedule:
    """Shifts and scales sqrt(alpha_bar) so that its last value is 0 and its first stays.

    A flow schedule ends at zero SNR already and is returned as it is.

    Source: Lin et al. 2023, arXiv 2305.08891, algorithm 1.
    """
    if schedule.path is FLOW:
        return schedule
    signals = [(1 + sigma * sigma) ** -0.5 for sigma in schedule.sigmas]
    first, last = signals[0], signals[-1]
    bars = [((signal - last) * first / (first - last)) ** 2 for signal in signals]
    return _from_alpha_bars(f"{schedule.name}, zero terminal SNR", bars)


def _beta_ppf(p: float, a: float) -> float:
    """Quantile of the symmetric beta distribution, by bisection on its power series (DLMF 8.17.7)."""
    if p > 0.5:
        return 1 - _beta_ppf(1 - p, a)
    whole = math.gamma(a) ** 2 / math.gamma(2 * a)
    low, high = 0.0, 0.5
    for _ in range(50):
        x = (low + high) / 2
        term, total = 1.0, 0.0
        for n in range(50):
            total += term / (a + n)
            term *= (1 - a + n) * x / (n + 1)
        low, high = (x, high) if total * x**a < p * whole else (low, x)
    return (low + high) / 2


def indices(count: int, steps: int, spacing: str, offset: int = 0) -> list[float]:
    """Spaces `steps` of a schedule's timesteps 0 .. count-1, descending.

    Args:
        count: training timesteps of the schedule.
        steps: how many to choose.
        spacing: "leading" (whole strides from 0, so it starts below the top), "linspace" (both ends) or
            "trailing" (strides from the top).
        offset: added to each of "leading" (Stable Diffusion takes 1).

    Source: Lin et al. 2023, arXiv 2305.08891, table 2.
    """
    if spacing == "leading":
        return [float(i * (count // steps) + offset) for i in reversed(range(steps))]
    if spacing == "linspace":
        return _linspace(count - 1, 0, steps)
    return [round(count - i * count / steps) - 1.0 for i in range(steps)]


def shifted(u: Level, shift: float) -> Level:
    """Moves a fraction towards noise, 0 and 1 apart. Source: Esser et al. 2024, arXiv 2403.03206, eq. 23."""
    return u * shift / (u * (shift - 1) + 1)


def levels(
    schedule: Schedule,
    steps: int,
    spacing: str = "trailing",
    *,
    shift: float = 1.0,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> list[float]:
    """Chooses the noise levels at which a sampler asks for the clean signal.

    Args:
        schedule: the one the network was trained on.
        steps: number of levels above 0.
        spacing: one of SPACINGS. The first three space training timesteps; "karras" (arXiv 2206.00364,
            eq. 5, rho 7), "exponential" and "beta" (Lee et al. 2024, arXiv 2407.12173) space sigma itself;
            "shifted" is "trailing" without rounding, pushed towards noise by `shift`.
        shift: for "shifted"; 1 leaves the grid even, 3 suits 1024 x 1024 pictures.
        sigma_min: lowest level of "karras", "exponential" and "beta"; the schedule's lowest if None.
        sigma_max: their highest level; the schedule's highest if None.

    Returns:
        `steps` descending levels and a final 0.0.

    Raises:
        ValueError: steps, spacing or shift are not allowed, or levels would repeat.
    """
    count = len(schedule.sigmas)
    if spacing not in SPACINGS:
        raise ValueError(f"spacing is {spacing!r}; it must be one of {', '.join(SPACINGS)}")
    if not 1 <= steps <= count:
        raise ValueError(f"num_inference_steps is {steps}; it must be from 1 to {count}")
    if not shift > 0:
        raise ValueError(f"shift is {shift}; it must be above 0")
    low = schedule.sigmas[0] if sigma_min is None else sigma_min
    high = schedule.sigmas[-1] if sigma_max is None else sigma_max
    ramp = _linspace(0.0, 1.0, steps)
    if spacing == "karras":
        grid = [root**7 for root in (high ** (1 / 7) + r * (low ** (1 / 7) - high ** (1 / 7)) for r in ramp)]
    elif spacing == "exponential":
        grid = [high * (low / high) ** r for r in ramp]
    elif spacing == "beta":
        grid = [low + (high - low) * _beta_ppf(1 - r, 0.6) for r in ramp]
    else:
        even = [count * shifted(1 - i / steps, shift) - 1 for i in range(steps)]
        chosen = even if spacing == "shifted" else indices(count, steps, spacing)
        grid = [schedule.sigma(index + (schedule.path is FLOW)) for index in chosen]  # flow: 1/N is index 0
    if any(level <= lower for level, lower in pairwise(grid)):
        told = f"with shift {shift} " if spacing == "shifted" else ""
        advice = "use fewer steps" + (" or a larger shift" if told else "")
        raise ValueError(f"{steps} steps of spacing {spacing!r} {told}repeat a level; {advice}")
    return [*grid, 0.0]


def noised(path: Path, x0: Tensor, sigma: float | Tensor, eps: Tensor) -> Tensor:
    """Noises a clean signal to any level in one go: alpha(sigma) x0 + sigma eps.

    Args:
        path: VE or FLOW.
        x0: (B, C, *S) float32, clean.
        sigma: one level, or a (B,) tensor of them.
        eps: (B, C, *S) float32, unit Gaussian.

    Returns:
        (B, C, *S) float32.
    """
    if isinstance(sigma, Tensor):
        sigma = sigma.view(-1, *[1] * (x0.ndim - 1))
        return path.alpha(sigma) * x0 + sigma * eps
    return path.alpha(sigma) * x0 + sigma * eps
