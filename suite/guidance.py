"""Classifier-free guidance and its variants: a denoiser made of two, cond and uncond, computed in one batch.

cfg: u + w (c - u) on the clean estimates c and u, which equals guiding eps, v or flow: all affine in them.

Source: Ho and Salimans 2022, arXiv 2207.12598; the variants at their functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from suite.denoiser import Denoiser
from suite.drive import Denoise
from suite.request import GuidanceName
from suite.text import Conditioning

METHODS: tuple[str, ...] = get_args(GuidanceName)
MOMENTUM = -0.5  # of apg, at which the paper has its best results: pushes away from the last difference
_TINY = 1e-12


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
    Source: Fan et al. 2025 (CFG-Zero*), arXiv 2503.18886, equation 8. That the state stays in the first step
        is for whoever makes the sampler, by leaving out its first level.
    """
    space = tuple(range(1, x.ndim))
    to_cond, to_uncond = x - cond, x - uncond  # sigma times the velocities; sigma cancels below
    length = to_uncond.square().sum(space, keepdim=True).clamp_min(_TINY)
    fit = (to_cond * to_uncond).sum(space, keepdim=True) / length
    return x - fit * to_uncond - scale * (to_cond - fit * to_uncond)


def projected(cond: Tensor, difference: Tensor, scale: float | Tensor) -> Tensor:
    """Guides with the part of the difference orthogonal to the conditional estimate, which saturates less.

    Args:
        cond: (B, C, *S), conditional clean estimate.
        difference: (B, C, *S), conditional minus unconditional, with momentum if any.
        scale: guidance scale, a number or (B, 1, ...).
    Returns: (B, C, *S), clean estimate.
    Source: Sadat et al. 2024 (APG), arXiv 2410.02416, algorithm 1 with eta = 0 and no limit on the norm.
    """
    space = tuple(range(1, cond.ndim))
    length = cond.square().sum(space, keepdim=True).clamp_min(_TINY)
    parallel = (difference * cond).sum(space, keepdim=True) / length * cond
    return cond + (scale - 1) * (difference - parallel)


def guided(
    denoiser: Denoiser,
    cond: Conditioning,
    uncond: Conditioning | None,
    scale: float | Sequence[float],
    method: str = "cfg",
    *,
    rescale: float = 0.0,
    interval: tuple[float, float] = (0.0, 1.0),
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

    schedule, batch = denoiser.schedule, 0
    joint: Conditioning | None = None  # cond above uncond, made at the first call, which tells the batch
    last: Tensor | None = None

    def pulls(item: int, sigma: float) -> bool:
        if interval != (0.0, 1.0):
            height = schedule.timestep(sigma) / len(schedule.sigmas)
            if not interval[0] <= height <= interval[1]:
                return False
        return scales[item % len(scales)] != 1

    def combine(x: Tensor, c: Tensor, u: Tensor, w: Tensor, rows: slice | list[int]) -> Tensor:
        nonlocal last
        if method == "cfg_zero":
            return zero_star(x, c, u, w)
        if method == "cfg":
            return u + w * (c - u)
        if last is None:
            last = torch.zeros(batch, *c.shape[1:], device=c.device)
        last[rows] = c - u + MOMENTUM * last[rows]
        return projected(c, last[rows], w)

    def denoise(x: Tensor, sigma: float | Tensor) -> Tensor:
        nonlocal batch, joint
        if joint is None:
            batch = len(x)
            joint = Conditioning.cat([_rows(part, batch) for part in (cond, uncond) if part]).to(x.device)
        if len(x) != batch:
            raise ValueError(f"{len(x)} states came to a denoiser made for {batch}; make one for each run")

        if not isinstance(sigma, Tensor) or not sigma.ndim:
            sigma = float(sigma)
        levels: list[float] = [sigma] * batch if isinstance(sigma, float) else sigma.tolist()
        asked = [i for i, level in enumerate(levels) if pulls(i, level)]
        if not asked:
            return denoiser(x, sigma, joint if len(joint) == batch else joint.select(range(batch)))
        everyone = len(asked) == batch
        rows = slice(None) if everyone else asked
        told = joint if everyone else joint.select([*range(batch), *(batch + i for i in asked)])
        level = sigma if isinstance(sigma, float) else torch.cat([sigma, sigma[rows]])
        both = denoiser(torch.cat([x, x[rows]]), level, told)
        result, c, u = both[:batch].clone(), both[:batch][rows], both[batch:]
        w = torch.tensor([scales[i % len(scales)] for i in asked], device=x.device)
        pulled = combine(x[rows].float(), c, u, w.view(-1, *[1] * (x.ndim - 1)), rows)
        result[rows] = rescaled(pulled, c, rescale) if rescale else pulled
        return result

    return denoise


def _rows(cond: Conditioning, batch: int) -> Conditioning:
    if len(cond) == batch:
        return cond
    if len(cond) != 1:
        raise ValueError(f"{batch} states came with {len(cond)} rows of conditioning")
    return cond.select([0] * batch)
