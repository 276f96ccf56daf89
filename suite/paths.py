"""The two paths from data to noise: x = alpha(sigma) x0 + sigma eps, with eps unit Gaussian.

VE (variance exploding, Karras et al. 2022, arXiv 2206.00364): alpha = 1, sigma from 0 to about 15 (4096 at
zero terminal SNR). A variance-preserving network lives here too: x_vp = x_ve / sqrt(1 + sigma^2).
FLOW (rectified flow, Liu et al. 2022, arXiv 2209.03003): alpha = 1 - sigma, sigma from 0 to 1. At sigma = 1
nothing of the data is left, which no finite VE level can say; hence two paths.
On both, dx/dsigma = (x - denoised) / sigma along the probability flow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

Level = TypeVar("Level", float, Tensor)


class Alpha(Protocol):
    """Signal scale at a noise level, for a float or elementwise for a tensor."""

    def __call__(self, sigma: Level, /) -> Level:
        """Returns alpha(sigma)."""
        ...


@dataclass(frozen=True)
class Path:
    """A path x = alpha(sigma) x0 + sigma eps.

    Attributes:
        name: "ve" or "flow".
        alpha: signal scale at a level.
    """

    name: str
    alpha: Alpha


def _ve(sigma: Level, /) -> Level:
    return 1.0 + 0.0 * sigma


def _flow(sigma: Level, /) -> Level:
    return 1.0 - sigma


VE = Path("ve", _ve)
FLOW = Path("flow", _flow)
