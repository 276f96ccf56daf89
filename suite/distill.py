"""`suite distill`: a model learns where many guided steps lead, and takes them in one, two or four.

It is trained as any model is, by its teacher's recipe; what differs is what it is shown. Its network also
reads the stride: the noise level down to which its estimate is to lead (no stride is the tangent, so that any
number of steps stays possible). Guidance is part of what it learns.

Source: Frans et al. 2024, arXiv 2410.12557 (networks that read the stride); Meng et al. 2022, arXiv
2210.03142 (guidance folded in); the strides' ends are the teacher's own, as in Salimans and Ho 2022, arXiv
2202.00512.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from suite import drive, samplers, storage
from suite.denoiser import FEW, Denoiser
from suite.guidance import guided
from suite.noise import gaussian
from suite.schedules import levels, make
from suite.text import Conditioning

FINE = 16  # steps of the teacher, a multiple of each of FEW
POINTS = 3  # of these, at which the tangent is learned, too
TRAINED = {"steps": 1000, "batch": 4, "learning_rate": 3e-4, "warmup": 50}  # instead of the recipe's [train]


@dataclass(frozen=True)
class Lesson:
    """Strides of a teacher.

    Attributes:
        states: (N, C, *S), where they begin.
        sigma: (N,), the levels there.
        until: (N,), the levels where they end.
        wanted: (N, C, *S), the clean estimates by which Euler's step gets there.
        cond: N rows.
    """

    states: Tensor
    sigma: Tensor
    until: Tensor
    wanted: Tensor
    cond: Conditioning


class Teacher:
    """A model to learn from, asked as its defaults say."""

    def __init__(self, model: str, device: torch.device | str = "cpu") -> None:
        """Loads its network; ModelError if it cannot be found."""
        network, told = storage.load(storage.find(model), None, device)
        self.denoiser = Denoiser(network, make(**told["schedule"]), told["prediction"])
        asked = told.get("defaults", {})
        self.scale = float(asked.get("guidance_scale", 1.0))
        spacing, shift = asked.get("spacing", "trailing"), float(asked.get("shift", 1.0))
        self.grids = {n: levels(self.denoiser.schedule, n, spacing, shift=shift) for n in (*FEW, FINE)}

    @torch.no_grad()
    def lesson(
        self,
        like: Tensor,
        cond: Conditioning,
        empty: Conditioning,
        told: Sequence[bool],
        generator: torch.Generator,
    ) -> Lesson:
        """Draws captions in many steps, and cuts what happened into strides.

        Args:
            like: (B, C, *S), the shape of what is drawn.
            cond: B rows.
            empty: one row, that of the empty caption, from which guidance leads away.
            told: of each row whether it is captioned; those that are not take no guidance.
            generator: of the noise, on the CPU.
        """
        batch, grid = len(like), self.grids[FINE]
        scales = [self.scale if kept else 1.0 for kept in told]
        denoise = guided(self.denoiser, cond, empty.select([0] * batch), scales)
        x = gaussian(like.shape, generator, self.denoiser.schedule.shared).to(like.device)
        steps = drive.Kept(drive.trace(samplers.euler(grid[0] * x, grid), denoise))
        seen = list(steps)
        at = {grid[-1]: steps.value, **{step.sigma: step.x for step in seen}}
        strides = [stride for n in FEW for stride in pairwise(self.grids[n])]
        begins = [at[high] for high, _ in strides]
        wanted = [at[high] - (at[high] - at[low]) * (high / (high - low)) for high, low in strides]
        for i in torch.randperm(FINE, generator=generator)[:POINTS].tolist():
            strides.append((seen[i].sigma, seen[i].sigma))
            begins.append(seen[i].x)
            wanted.append(seen[i].denoised)
        sigma, until = torch.tensor(strides).repeat_interleave(batch, 0).unbind(1)
        rows = cond.select([*range(batch)] * len(strides))
        return Lesson(torch.cat(begins), sigma, until, torch.cat(wanted), rows)


def distillation_loss(denoiser: Denoiser, lesson: Lesson) -> Tensor:
    """Squared error of a network's estimates, in the terms of what it predicts: (N,)."""
    c_out = torch.tensor([denoiser.coefficients(level)[2] for level in lesson.sigma.tolist()])
    made = denoiser(lesson.states, lesson.sigma, lesson.cond, lesson.until)
    return ((made - lesson.wanted).flatten(1) / c_out.to(made.device)[:, None]).square().mean(1)


def recipe_of(recipe: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The recipe by which a model is distilled, from that of its training.

    Args:
        recipe: as `suite.train.read_recipe` gives it; its table `[distill]` says what is other in `[train]`.
        model: the teacher, a name or folder; the student starts as it.
    """
    few = {"num_inference_steps": max(FEW), "guidance_scale": 1.0}
    return {
        **recipe,
        "network": {**recipe["network"], "stride": True},
        "defaults": {**recipe.get("defaults", {}), **few},
        "train": {**recipe["train"], **TRAINED, **recipe.get("distill", {}), "init": model, "teacher": model},
    }
