"""Samplers as coroutines: each yields (x, sigma), is sent the clean estimate there, and returns the final x.

The state moves along x = alpha(sigma) x0 + sigma eps (see paths), and each sampler is written once for both
paths: with h the gain in log(alpha / sigma), all that is needed is k = e^-h, which is 0 where h is infinite.
A sampler calls no network: `drive` has the loops that do. Levels are Python floats, descend and end at 0.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Generator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from suite.paths import Alpha, Path

Sampler = Generator[tuple[Tensor, float], Tensor, Tensor]
Draw = Callable[[Tensor], Tensor]


def euler(x: Tensor, sigmas: Sequence[float]) -> Sampler:
    """Euler steps along dx/dsigma = (x - denoised) / sigma; the same as deterministic DDIM.

    Args:
        x: (B, C, *S) float32, noisy at sigmas[0].
        sigmas: descending levels.

    Source: Song et al. 2020 (DDIM), arXiv 2010.02502, eq. 13; Karras et al. 2022, arXiv 2206.00364, sec. 3.
    """
    for sigma, sigma_next in pairwise(sigmas):
        x = torch.lerp((yield x, sigma), x, sigma_next / sigma)
    return x


def ancestral(x: Tensor, sigmas: Sequence[float], *, alpha: Alpha, noise: Draw, eta: float = 1.0) -> Sampler:
    """Euler ancestral, DDPM (eta = 1) and DDIM(eta): step down further, then add fresh noise.

    Args:
        x: (B, C, *S) float32, noisy at sigmas[0].
        sigmas: descending levels.
        alpha: the path's signal scale.
        noise: draws unit Gaussian noise shaped like its argument.
        eta: 0 adds no noise (Euler), 1 as much as the forward process holds between two levels (DDPM).

    Source: Ho et al. 2020, arXiv 2006.11239, eq. 7; Song et al. 2020, arXiv 2010.02502, eq. 12 and 16.
    """
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        up = _fresh(sigma, sigma_next, alpha, eta)
        x = _towards(x, denoised, sigma, sigma_next, alpha, up)
        x = torch.add(x, noise(x), alpha=up) if up else x
    return x


def ddim(x: Tensor, sigmas: Sequence[float], *, alpha: Alpha, noise: Draw, eta: float = 0.0) -> Sampler:
    """`ancestral` with the default of DDIM, eta = 0."""
    return ancestral(x, sigmas, alpha=alpha, noise=noise, eta=eta)


def ddpm(x: Tensor, sigmas: Sequence[float], *, alpha: Alpha, noise: Draw) -> Sampler:
    """`ancestral` with eta = 1, the DDPM posterior with its smaller variance."""
    return ancestral(x, sigmas, alpha=alpha, noise=noise, eta=1.0)


def heun(x: Tensor, sigmas: Sequence[float]) -> Sampler:
    """Heun's second-order steps, Euler into 0. Source: Karras et al. 2022, arXiv 2206.00364, algorithm 1."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        x_next = torch.lerp(denoised, x, sigma_next / sigma)
        if sigma_next > 0:
            away, half = x_next - (yield x_next, sigma_next), (sigma_next - sigma) / 2
            x = torch.add(torch.lerp(denoised, x, 1 + half / sigma), away, alpha=half / sigma_next)
        else:
            x = x_next
    return x


def dpm2(x: Tensor, sigmas: Sequence[float]) -> Sampler:
    """Midpoint steps, the middle in log sigma. Source: Lu et al. 2022 (DPM-Solver-2), arXiv 2206.00927."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        if sigma_next > 0:
            middle = math.sqrt(sigma * sigma_next)
            x_middle = torch.lerp(denoised, x, middle / sigma)
            away = x_middle - (yield x_middle, middle)
            x = torch.add(x, away, alpha=(sigma_next - sigma) / middle)
        else:
            x = torch.lerp(denoised, x, sigma_next / sigma)
    return x


def dpmpp_2s(x: Tensor, sigmas: Sequence[float], *, alpha: Alpha) -> Sampler:
    """DPM-Solver++(2S): two levels of the grid make one second-order step, so a step costs one call.

    The last step, and the last two where the number is even, are of first order.

    Source: Lu et al. 2022, arXiv 2211.01095, algorithm 1.
    """
    i, last = 0, len(sigmas) - 1
    while i < last:
        denoised = yield x, sigmas[i]
        x_next = _towards(x, denoised, sigmas[i], sigmas[i + 1], alpha)
        i += 1
        if i < last - 1 or (i < last and sigmas[last] > 0):
            weight = _second_order_weight(sigmas[i - 1], sigmas[i], sigmas[i + 1], alpha)
            denoised = torch.lerp(denoised, (yield x_next, sigmas[i]), weight)
            x_next = _towards(x, denoised, sigmas[i - 1], sigmas[i + 1], alpha)
            i += 1
        x = x_next
    return x


def dpmpp_2m(x: Tensor, sigmas: Sequence[float], *, alpha: Alpha) -> Sampler:
    """DPM-Solver++(2M). Source: Lu et al. 2022, arXiv 2211.01095, algorithm 2."""
    return dpmpp_2m_sde(x, sigmas, alpha=alpha, noise=lambda x: x, eta=0.0)


def dpmpp_2m_sde(
    x: Tensor, sigmas: Sequence[float], *, alpha: Alpha, noise: Draw, eta: float = 1.0
) -> Sampler:
    """SDE-DPM-Solver++(2M), midpoint form; eta = 0 is DPM-Solver++(2M).

    Args:
        x: (B, C, *S) float32, noisy at sigmas[0].
        sigmas: descending levels.
        alpha: the path's signal scale.
        noise: draws unit Gaussian noise shaped like its argument.
        eta: 0 solves the ordinary, 1 the stochastic differential equation.

    Source: Lu et al. 2022, arXiv 2211.01095, section 4.3 and appendix.
    """
    past: Tensor | None = None
    h_past = math.inf
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        k = _shrink(sigma, sigma_next, alpha)
        h = -math.log(k) if k else math.inf
        if past is None or not k:
            estimate = denoised
        else:
            estimate = torch.lerp(past, denoised, 1 + h / h_past / 2)
        damping = k**eta
        x = _mixed(sigma_next / sigma * damping, x, alpha(sigma_next) * (1 - k * damping), estimate)
        if sigma_next and damping < 1:
            x = torch.add(x, noise(x), alpha=sigma_next * math.sqrt(1 - damping**2))
        past, h_past = denoised, h
    return x


def dpmpp_sde(x: Tensor, sigmas: Sequence[float], *, alpha: Alpha, noise: Draw, eta: float = 1.0) -> Sampler:
    """SDE-DPM-Solver++(2S): an ancestral step to the middle in log sigma, then one from the start to the end.

    Both ride on one Brownian motion in sigma, so their noises are correlated as its increments are.

    Args:
        x: (B, C, *S) float32, noisy at sigmas[0].
        sigmas: descending levels.
        alpha: the path's signal scale.
        noise: draws unit Gaussian noise shaped like its argument.
        eta: 0 adds no noise, 1 solves the stochastic differential equation.

    Source: Lu et al. 2022, arXiv 2211.01095; Brownian increments as in k-diffusion's sample_dpmpp_sde.
    """
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        if not sigma_next:
            return denoised
        middle = math.sqrt(sigma * sigma_next)
        up, up_next = _fresh(sigma, middle, alpha, eta), _fresh(sigma, sigma_next, alpha, eta)
        x_middle = _towards(x, denoised, sigma, middle, alpha, up)
        first = noise(x) if up else None
        x_middle = x_middle if first is None else torch.add(x_middle, first, alpha=up)
        weight = _second_order_weight(sigma, middle, sigma_next, alpha)
        denoised = torch.lerp(denoised, (yield x_middle, middle), weight)
        x = _towards(x, denoised, sigma, sigma_next, alpha, up_next)
        if first is not None:
            share = (sigma - middle) / (sigma - sigma_next)
            both = _mixed(math.sqrt(share), first, math.sqrt(1 - share), noise(x))
            x = torch.add(x, both, alpha=up_next)
    return x


def lms(x: Tensor, sigmas: Sequence[float]) -> Sampler:
    """Linear multistep of order 4 (Adams-Bashforth on an uneven grid), lower while the history is short.

    Source: Liu et al. 2022, arXiv 2202.09778, section 3; Hairer, Norsett & Wanner I, section III.5.
    """
    slopes: list[Tensor] = []
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = yield x, sigma
        slopes = [(x - denoised) / sigma, *slopes][:4]
        nodes = [past - sigma for past in sigmas[i::-1][:4]]
        moments = [(sigma_next - sigma) ** (k + 1) / (k + 1) for k in range(len(nodes))]
        for weight, slope in zip(_weights(nodes, moments), slopes, strict=True):
            x = torch.add(x, slope, alpha=weight)
    return x


def unipc(x: Tensor, sigmas: Sequence[float], *, alpha: Alpha, order: int = 2) -> Sampler:
    """UniPC with B(h) = e^h - 1: predict, and correct with the next estimate at no further call.

    Args:
        x: (B, C, *S) float32, noisy at sigmas[0].
        sigmas: descending levels.
        alpha: the path's signal scale.
        order: 1 to 3, of the predictor; the corrector adds one.

    Source: Zhao et al. 2023, arXiv 2302.04867, algorithms 5 and 6.
    """
    start, last, used, steps = x, 0.0, 0, len(sigmas) - 1
    past: list[tuple[float, Tensor]] = []  # (log SNR, estimate), newest first
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = yield x, sigma
        if past:
            x = _unipc(start, last, sigma, alpha, past[:used], denoised)
        log_snr = math.log(alpha(sigma) / sigma) if alpha(sigma) else -math.inf
        past = [(log_snr, denoised), *(p for p in past if math.isfinite(p[0]))][:order]
        used = min(len(past), steps - i)
        start, last = x, sigma
        x = _unipc(start, sigma, sigma_next, alpha, past[:used])
    return x


def _unipc(
    x: Tensor,
    sigma: float,
    sigma_next: float,
    alpha: Alpha,
    past: Sequence[tuple[float, Tensor]],
    ahead: Tensor | None = None,
) -> Tensor:
    """Steps from sigma to sigma_next: the predictor, or the corrector where the estimate ahead is known."""
    k = _shrink(sigma, sigma_next, alpha)
    (log_snr, denoised), older = past[0], past[1:]
    h = -math.log(k) if k else math.inf
    nodes = [(p - log_snr) / h for p, _ in older]
    slopes = [(estimate - denoised) / node for node, (_, estimate) in zip(nodes, older, strict=True)]
    if ahead is not None:
        nodes.append(1.0)
        slopes.append(ahead - denoised)
    moments, phi = [], (k - 1) / -h - 1  # moment n is n! phi_{n+1}(-h) h / B(h)
    for n in range(1, len(nodes) + 1):
        moments.append(phi * math.factorial(n) / (k - 1))
        phi = phi / -h - 1 / math.factorial(n + 1)
    weights = [0.5] if len(nodes) == 1 else _weights(nodes, moments)
    estimate = denoised
    for weight, slope in zip(weights, slopes, strict=True):
        estimate = torch.add(estimate, slope, alpha=weight)
    return _mixed(sigma_next / sigma, x, alpha(sigma_next) * (1 - k), estimate)


def lcm(x: Tensor, sigmas: Sequence[float], *, alpha: Alpha, noise: Draw) -> Sampler:
    """Consistency sampling: take the estimate whole, noise it to the next level.

    Args:
        x: (B, C, *S) float32, noisy at sigmas[0].
        sigmas: descending levels.
        alpha: the path's signal scale.
        noise: draws unit Gaussian noise shaped like its argument.

    Source: Song et al. 2023, arXiv 2303.01469, algorithm 1; Luo et al. 2023 (LCM), arXiv 2310.04378.
    """
    for sigma, sigma_next in pairwise(sigmas):
        x = yield x, sigma
        x = _mixed(alpha(sigma_next), x, sigma_next, noise(x)) if sigma_next else x
    return x


def _shrink(sigma: float, sigma_next: float, alpha: Alpha) -> float:
    """e^-h: by how much noise over signal shrinks from one level to the next."""
    return sigma_next * alpha(sigma) / (sigma * alpha(sigma_next))


def _fresh(sigma: float, sigma_next: float, alpha: Alpha, eta: float) -> float:
    """Standard deviation of the noise to add at sigma_next (DDIM eq. 16)."""
    return eta * sigma_next * math.sqrt(max(0.0, 1 - _shrink(sigma, sigma_next, alpha) ** 2))


def _towards(
    x: Tensor, denoised: Tensor, sigma: float, sigma_next: float, alpha: Alpha, up: float = 0.0
) -> Tensor:
    """Moves x to sigma_next on the line to `denoised`, leaving room for noise of standard deviation `up`."""
    ratio = math.sqrt(max(0.0, sigma_next**2 - up**2)) / sigma
    return _mixed(ratio, x, alpha(sigma_next) - ratio * alpha(sigma), denoised)


def _mixed(a: float, x: Tensor, b: float, y: Tensor) -> Tensor:
    """A x + b y in two operations, for each is a good part of what a step costs beside the network."""
    return torch.add(a * x, y, alpha=b)


def _second_order_weight(sigma: float, middle: float, sigma_next: float, alpha: Alpha) -> float:
    """1 / (2 r), r the middle's share of the log-SNR gained; r = 1 where the start holds no signal."""
    k, k_middle = _shrink(sigma, sigma_next, alpha), _shrink(sigma, middle, alpha)
    return math.log(k) / math.log(k_middle) / 2 if k else 0.5


def _weights(nodes: Sequence[float], moments: Sequence[float]) -> list[float]:
    """Solves sum_j w_j nodes_j^k = moments_k by expanding the Lagrange polynomial of each node."""
    weights = []
    for j, node in enumerate(nodes):
        polynomial = [1.0]
        for other in (*nodes[:j], *nodes[j + 1 :]):
            lower, higher = [0.0, *polynomial], [*polynomial, 0.0]
            polynomial = [(a - other * b) / (node - other) for a, b in zip(lower, higher, strict=True)]
        weights.append(sum(c * m for c, m in zip(polynomial, moments, strict=True)))
    return weights


SAMPLERS: dict[str, Callable[..., Sampler]] = {
    sampler.__name__: sampler
    for sampler in (
        euler, ancestral, ddim, ddpm, heun, dpm2, dpmpp_2s,
        dpmpp_2m, dpmpp_2m_sde, dpmpp_sde, lms, unipc, lcm,
    )
}  # fmt: skip


def make(
    name: str,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    path: Path,
    noise: Draw | None = None,
    eta: float | None = None,
) -> Sampler:
    """Makes a sampler by name and gives it just what it takes.

    Args:
        name: one of SAMPLERS.
        x: (B, C, *S) float32, noisy at sigmas[0].
        sigmas: descending levels.
        path: the path x lies on.
        noise: draws unit Gaussian noise shaped like its argument; needed by the stochastic ones.
        eta: how stochastic, for those that can be told; None is the sampler's own default.

    Raises:
        ValueError: the name is unknown, or the sampler lacks its noise, or it knows no eta.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler is {name!r}; it must be one of {', '.join(SAMPLERS)}")
    takes = inspect.signature(SAMPLERS[name]).parameters
    options: dict[str, Any] = {"alpha": path.alpha} if "alpha" in takes else {}
    if "noise" in takes:
        if noise is None:
            raise ValueError(f"sampler {name!r} is stochastic; it must be given noise")
        options["noise"] = noise
    if eta is not None and "eta" in takes:
        options["eta"] = eta
    elif eta:
        able = [n for n, s in SAMPLERS.items() if "eta" in inspect.signature(s).parameters]
        raise ValueError(
            f"eta is {eta} but sampler {name!r} takes none; leave it out or use {' or '.join(able)}"
        )
    return SAMPLERS[name](x, sigmas, **options)


def calls(name: str, sigmas: Sequence[float], path: Path) -> list[float]:
    """Returns the levels at which the named sampler will ask, in order, found by a dry run on one number."""
    return dry_run(make(name, torch.zeros(()), sigmas, path=path, noise=lambda x: x))


def dry_run(sampler: Sampler, answer: float = 0.0) -> list[float]:
    """Returns the levels at which a sampler asks, in order, if `answer` is every estimate it is sent."""
    asked = []
    try:
        x, sigma = next(sampler)
        while True:
            asked.append(sigma)
            x, sigma = sampler.send(torch.full_like(x, answer))
    except StopIteration:
        return asked
