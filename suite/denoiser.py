"""A network, whatever it was trained to predict, as one clean estimate at a noise level sigma.

Every parameterisation is affine in the state: denoised = c_skip x + c_out network(c_in x, timestep), where
x = alpha x0 + sigma eps. A VP network is one on the VE path whose input is scaled by 1 / sqrt(1 + sigma^2).

Source: the form, Karras et al. 2022, arXiv 2206.00364, equation 7; v, Salimans and Ho 2022, arXiv 2202.00512,
appendix D; flow, Lipman et al. 2023, arXiv 2210.02747.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from suite.paths import VE
from suite.schedules import Schedule
from suite.text import Conditioning

FEW = (1, 2, 4)  # steps that a network which reads strides has learned
PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow", "edm")
_FADED = 2**-12  # alpha at which diffusers holds a zero terminal SNR; nearer to 0, eps says nothing of x0
_TINY = 1e-6

Network = Callable[..., Tensor]


class Denoiser:
    """The network's clean estimate; casts to the network's precision and back to float32."""

    def __init__(self, network: nn.Module | Network, schedule: Schedule, prediction: str) -> None:
        """Takes a network and what it was trained on.

        Args:
            network: (x (B, C, *S), timestep (B,), context (B, L, D), mask (B, L)) to (B, C, *S); perhaps
                also a stride (B,), in timesteps.
            schedule: path and levels of its training.
            prediction: what it gives: `epsilon` eps, `v_prediction` a eps - s x0 with a, s = alpha, sigma
                over their norm, `sample` x0, `flow` eps - x0, `edm` the F of Karras et al. for data of unit
                variance (its timestep is then ln(sigma / alpha) / 4).
        """
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction is {prediction!r}; it must be one of {', '.join(PREDICTIONS)}")
        self.network, self.schedule, self.prediction = network, schedule, prediction
        self.ends: Mapping[float, float] = {}

    def striding(self, grid: Sequence[float]) -> Denoiser:
        """The same, whose estimate at each level of a grid leads to the next one by Euler's step."""
        made = copy.copy(self)
        made.ends = dict(pairwise(grid))
        return made

    def coefficients(self, sigma: float) -> tuple[float, float, float, float]:
        """c_in, c_skip, c_out and the timestep at a level; finite on the whole path, both ends included."""
        alpha = self.schedule.path.alpha(sigma)
        norm = math.hypot(alpha, sigma)
        c_in = 1 / norm if self.schedule.path is VE else 1.0
        timestep = self.schedule.timestep(sigma)
        if self.prediction == "epsilon":
            return c_in, 1 / max(alpha, _FADED), -sigma / max(alpha, _FADED), timestep
        if self.prediction == "v_prediction":
            return c_in, alpha / norm**2, -sigma / norm, timestep
        if self.prediction == "sample":
            return c_in, 0.0, 1.0, timestep
        if self.prediction == "flow":
            return c_in, 1 / (alpha + sigma), -sigma / (alpha + sigma), timestep
        timestep = math.log(max(sigma, _TINY) / max(alpha, _TINY)) / 4
        return 1 / norm, alpha / norm**2, sigma / norm, timestep

    def __call__(
        self, x: Tensor, sigma: float | Tensor, cond: Conditioning, until: Tensor | None = None
    ) -> Tensor:
        """Estimates the clean signal.

        Args:
            x: (B, C, *S), the state on the schedule's path.
            sigma: its level, for all or (B,).
            cond: B rows, or one for all.
            until: (B,), of a network that reads strides, the levels to which its estimates are to lead;
                where it is None, those of the grid, or the tangent.

        Returns: (B, C, *S) float32.
        """
        batch, rows = x.shape[0], cond.tokens.shape[0]
        levels = len(sigma) if isinstance(sigma, Tensor) and sigma.ndim else 1
        if levels not in (1, batch) or rows not in (1, batch):
            raise ValueError(f"{batch} states came with {levels} levels and {rows} rows of conditioning")
        c_in: float | Tensor
        c_skip: float | Tensor
        c_out: float | Tensor
        if isinstance(sigma, Tensor) and sigma.ndim:
            told = [self.coefficients(level) for level in sigma.tolist()]
            columns = torch.tensor(told, dtype=torch.float32, device=x.device).unbind(1)
            c_in, c_skip, c_out = (column.view(-1, *[1] * (x.ndim - 1)) for column in columns[:3])
            timesteps = columns[3].expand(batch)
        else:
            c_in, c_skip, c_out, timestep = self.coefficients(float(sigma))
            timesteps = torch.full((batch,), timestep, dtype=torch.float32, device=x.device)
        x = x.float()
        dtype = self._dtype()
        tokens, mask = cond.tokens.to(x.device, dtype), cond.mask.to(x.device)
        if rows != batch:
            tokens, mask = tokens.expand(batch, -1, -1), mask.expand(batch, -1)
        if until is None and not isinstance(sigma, Tensor) and sigma in self.ends:
            until = torch.full((batch,), self.ends[sigma])
        strides = []
        if until is not None:
            ends = [self.schedule.timestep(level) for level in until.tolist()]
            strides = [timesteps - torch.tensor(ends, dtype=torch.float32, device=x.device)]
        predicted = self.network(_times(c_in, x).to(dtype), timesteps, tokens, mask, *strides).float()
        if isinstance(c_out, Tensor):
            return _times(c_skip, x) + c_out * predicted
        return torch.add(_times(c_skip, x), predicted, alpha=c_out)

    def _dtype(self) -> torch.dtype:
        parameters = self.network.parameters() if isinstance(self.network, nn.Module) else iter(())
        return next((p.dtype for p in parameters), torch.float32)


def _times(factor: float | Tensor, x: Tensor) -> Tensor:
    """Their product; x itself where the factor is 1, for an operation is a tenth of a step's overhead."""
    return x if isinstance(factor, float) and factor == 1 else factor * x
