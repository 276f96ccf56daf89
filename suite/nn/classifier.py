"""A convolutional network from a signal to one vector in a text encoder's space, to name what is in it.

Shapes: B batch, C channels, *S space (one to three dimensions), N names, D width of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.nn.layers import CONVS

NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOLS = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


class Classifier(nn.Module):
    """Residual levels, each half the size of the one before, and a projection of a grid of cells.

    Attributes:
        centre: (D,) mean of the text of the names it was trained on, which tells none from another.
        scale: logarithm of the factor on cosines in the softmax over names.

    Source: He et al. 2015, arXiv 1512.03385, section 3.
    """

    centre: Tensor

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (48, 96, 192),
        stride: int = 4,
        grid: int = 4,
        text_width: int = 384,
        dims: int = 2,
    ) -> None:
        """Takes each level's width, the first one's stride, the cells a side and D."""
        super().__init__()
        self.config: dict[str, Any] = {
            "channels": channels, "widths": list(widths), "stride": stride, "grid": grid,
            "text_width": text_width, "dims": dims,
        }  # fmt: skip
        layers: list[nn.Module] = []
        for level, width in enumerate(widths):
            before, step = (widths[level - 1], 2) if level else (channels, stride)
            first = CONVS[dims](before, width, 2 * step - 1, step, step - 1, bias=False)
            layers += [first, NORMS[dims](width), nn.ReLU(), Block(dims, width)]
        self.levels = nn.Sequential(*layers)
        self.out = nn.Linear(widths[-1] * grid**dims, text_width)
        self.register_buffer("centre", torch.zeros(text_width))
        self.scale = nn.Parameter(torch.tensor(2.5))

    def features(self, x: Tensor) -> Tensor:
        """(B, C, *S) in [-1, 1] to (B, widths[-1]), the mean over space."""
        found: Tensor = self.levels(x).flatten(2).mean(-1)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) in [-1, 1] to unit vectors (B, D)."""
        cells = POOLS[self.config["dims"]](self.levels(x), self.config["grid"])
        return F.normalize(self.out(cells.flatten(1)), dim=-1)

    def logits(self, x: Tensor, names: Tensor) -> Tensor:
        """(B, C, *S) in [-1, 1] and the text of names (N, D) to (B, N).

        Source: Radford et al. 2021, arXiv 2103.00020, figure 3, with the text side fixed.
        """
        found: Tensor = self.scale.exp() * self(x) @ F.normalize(names - self.centre, dim=-1).T
        return found


class Block(nn.Module):
    """Two convolutions, added to what came in."""

    def __init__(self, dims: int, width: int) -> None:
        """Takes the dimensions of space and the number of channels."""
        super().__init__()
        last = NORMS[dims](width)
        nn.init.zeros_(last.weight)
        convs = [CONVS[dims](width, width, 3, 1, 1, bias=False) for _ in range(2)]
        self.body = nn.Sequential(convs[0], NORMS[dims](width), nn.ReLU(), convs[1], last)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, *S) to the same."""
        return F.relu(x + self.body(x))
