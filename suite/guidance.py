"""Classifier-free guidance and its variants: a denoiser made of two, cond and uncond, computed in one batch.

cfg: u + w (c - u) on the clean estimates c and u, which equals guiding eps, v or flow: all affine in them.

Source: Ho and Salimans 2022, arXiv 2207.12598; the variants at their functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from suite.denoiser import Denoiser
from suite.text import Conditioning

METHODS = ("none", "cfg", "cfg_zero", "apg")
_TINY = 1e-12

Denoise = Callable[[Tensor, "float | Tensor"], Tensor]


def rescaled(guided: Tensor, plain: Tensor, strength: float) -> Tensor:
    """Pulls the guided estimate's contrast back to the unguided one's.

    Args:
        guided: (B, C, *S) float32, clean estimate after guidance.
        plain: (B, C, *S) float32, conditional clean estimate.
        strength: 0 leaves `guided` as it is, 1 matches the standard deviation of `plain`.
    Returns: (B, C, *S) float32.
    Source: Lin et al. 2023, arXiv 2305.08891, equations 15 and 16; on the clean estimate, so the result does
        not depend on what the network predicts.
    """
    space = tuple(range(1, guided.ndim))
    ratio = plain.std(space, keepdim=True) / guided.std(space, keepdim=True).clamp_min(_TINY)
    return guided * (strength * ratio + (1 - strength))


def zero_star(x: Tensor, cond: Tensor, uncond: Tensor, scale: float | Tensor) -> Tensor:
    """Guides the velocity, the unconditional one first scaled to fit the conditional one.

    The velocity is dx / dsigma = (x - denoised) / sigma: of the flow on the flow path, eps on the VE path.

    Args:
        x: (B, C, *S), the state.
        cond: (B, C, *S), conditional clean estimate; `uncond` likewise.
        uncond: (B, C, *S).
        scale: guidance scale, a number or (B, 1, ...).
    Returns: (B, C, *S), clean estimate.
    Source: Fan et al. 2025 (CFG-Zero*), arXiv 2503.18886, equation 8 and algorithm 1.
    """
    space = tuple(range(1, x.ndim))
    to_cond, to_uncond = x - cond, x - uncond  # sigma times the velocities; sigma cancels below
    length = to_uncond.square().sum(space, keepdim=True).clamp_min(_TINY)
    fit = (to_cond * to_uncond).sum(space, keepdim=True) / length
    return x - fit * to_uncond - scale * (to_cond - fit * to_uncond)


def projected(
    cond: Tensor, difference: Tensor, scale: float | Tensor, eta: float = 0.0, norm_threshold: float = 0.0
) -> Tensor:
    """Guides with the part of the difference orthogonal to the conditional estimate, which saturates less.

    Args:
        cond: (B, C, *S), conditional clean estimate.
        difference: (B, C, *S), conditional minus unconditional, with momentum if any.
        scale: guidance scale, a number or (B, 1, ...).
        eta: share of the parallel part kept; 1 is plain guidance.
        norm_threshold: longest difference, in the Euclidean norm over an item; 0: no limit.
    Returns: (B, C, *S), clean estimate.
    Source: Sadat et al. 2024 (APG), arXiv 2410.02416, algorithm 1.
    """
    space = tuple(range(1, cond.ndim))
    if norm_threshold > 0:
        norm = difference.square().sum(space, keepdim=True).sqrt()
        difference = difference * (norm_threshold / norm.clamp_min(_TINY)).clamp_max(1)
    length = cond.square().sum(space, keepdim=True).clamp_min(_TINY)
    parallel = (difference * cond).sum(space, keepdim=True) / length * cond
    return cond + (scale - 1) * (difference - parallel + eta * parallel)


def guided(
    denoiser: Denoiser,
    cond: Conditioning,
    uncond: Conditioning | None,
    scale: float | Sequence[float],
    method: str = "cfg",
    *,
    rescale: float = 0.0,
    interval: tuple[float, float] = (0.0, 1.0),
    zero_steps: int = 1,
    momentum: float = -0.5,
    eta: float = 0.0,
    norm_threshold: float = 0.0,
) -> Denoise:
    """Makes the denoiser of one run; what a method remembers lives and dies with it, an item at a time.

    Args:
        denoiser: the network's.
        cond: what to draw, a row an item or one for all; `uncond` likewise.
        uncond: what to move away from; may be None where nothing is guided.
        scale: 1 is off and costs no second pass; one for all or one an item.
        method: one of `METHODS`; "none" is `cond` alone.
        rescale: strength of `rescaled`.
        interval: guide only at timesteps between these shares of the training schedule, 0 clean and 1 noise
            (Kynkäänniemi et al. 2024, arXiv 2404.07724, equation 5).
        zero_steps: cfg_zero: noise levels at the start of a run at which the velocity is taken as zero:
            the state stays and the network is not asked; not where a run starts part-way.
        momentum: apg: share of the last difference added to this one; negative pushes away from it.
        eta: apg, as of `projected`.
        norm_threshold: apg, as of `projected`.
    Returns: (x, sigma) to the clean estimate, float32.
    """
    if method not in METHODS:
        raise ValueError(f"guidance is {method!r}; it must be one of {', '.join(METHODS)}")
    if not 0 <= interval[0] <= interval[1] <= 1:
        raise ValueError(f"guidance interval is {interval}; it must be two numbers, 0 <= start <= stop <= 1")
    scales = [float(scale)] if isinstance(scale, int | float) else [float(w) for w in scale]
    if method == "none":
        scales = [1.0]
    if uncond is None and any(w != 1 for w in scales):
        raise ValueError(f"guidance scale is {scale}; without an unconditional prompt it must be 1")

    schedule = denoiser.schedule
    joint: Conditioning | None = None  # cond above uncond, made at the first call, which tells the batch
    seen: list[set[float]] = []
    last: Tensor | None = None

    def height(sigma: float) -> float:
        return schedule.timestep(sigma) / len(schedule.sigmas)

    def waits(item: int, sigma: float) -> bool:
        levels = seen[item]
        if len(levels) <= zero_steps:
            levels.add(sigma)
        return method == "cfg_zero" and len(levels) <= zero_steps and height(max(levels)) >= 0.96

    def pulls(item: int, sigma: float) -> bool:
        inside = interval == (0.0, 1.0) or interval[0] <= height(sigma) <= interval[1]
        return inside and scales[item % len(scales)] != 1

    def combine(x: Tensor, c: Tensor, u: Tensor, w: Tensor, rows: slice | list[int]) -> Tensor:
        nonlocal last
        if method == "cfg_zero":
            return zero_star(x, c, u, w)
        if method == "cfg":
            return u + w * (c - u)
        if last is None:
            last = torch.zeros(batch, *c.shape[1:], device=c.device)
        last[rows] = c - u + momentum * last[rows]
        return projected(c, last[rows], w, eta, norm_threshold)

    batch = 0

    def denoise(x: Tensor, sigma: float | Tensor) -> Tensor:
        nonlocal batch, joint, seen
        if joint is None:
            batch, seen = len(x), [set() for _ in x]
            joint = Conditioning.cat([_rows(part, batch) for part in (cond, uncond) if part]).to(x.device)
        if len(x) != batch:
            raise ValueError(f"{len(x)} states came to a denoiser made for {batch}; make one for each run")

        if not isinstance(sigma, Tensor) or not sigma.ndim:
            sigma = float(sigma)
        levels: list[float] = [sigma] * batch if isinstance(sigma, float) else sigma.tolist()
        frozen = [waits(i, level) for i, level in enumerate(levels)]
        if all(frozen):
            return x
        asked = [i for i, level in enumerate(levels) if pulls(i, level) and not frozen[i]]
        if not asked:
            result = denoiser(x, sigma, joint if len(joint) == batch else joint.select(range(batch)))
        else:
            everyone = len(asked) == batch
            rows = slice(None) if everyone else asked
            told = joint if everyone else joint.select([*range(batch), *(batch + i for i in asked)])
            level = sigma if isinstance(sigma, float) else torch.cat([sigma, sigma[rows]])
            both = denoiser(torch.cat([x, x[rows]]), level, told)
            result, c, u = both[:batch].clone(), both[:batch][rows], both[batch:]
            w = torch.tensor([scales[i % len(scales)] for i in asked], device=x.device)
            pulled = combine(x[rows].float(), c, u, w.view(-1, *[1] * (x.ndim - 1)), rows)
            result[rows] = rescaled(pulled, c, rescale) if rescale else pulled
        for i, still in enumerate(frozen):
            if still:
                result[i] = x[i]
        return result

    return denoise


def _rows(cond: Conditioning, batch: int) -> Conditioning:
    if len(cond) == batch:
        return cond
    if len(cond) != 1:
        raise ValueError(f"{batch} states came with {len(cond)} rows of conditioning")
    return cond.select([0] * batch)
