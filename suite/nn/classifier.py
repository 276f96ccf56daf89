"""A convolutional network from a signal to one vector in a text encoder's space, to name what is in it.

Shapes: B batch, C channels, *S space (one to three dimensions), D width of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.nn.layers import CONVS, norm, zeroed


class Classifier(nn.Module):
    """Residual levels, each half the size of the one before, their mean, and a projection.

    Attributes:
        scale: logarithm of the factor on cosines, for their softmax.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (64, 128, 256),
        blocks: int = 1,
        stride: int = 4,
        text_width: int = 384,
        dims: int = 2,
    ) -> None:
        """Takes the width of each level, its residual blocks, the first convolution's stride and D."""
        super().__init__()
        self.config: dict[str, Any] = {
            "channels": channels, "widths": list(widths), "blocks": blocks, "stride": stride,
            "text_width": text_width, "dims": dims,
        }  # fmt: skip
        layers: list[nn.Module] = []
        last, step = channels, stride
        for width in widths:
            layers += [CONVS[dims](last, width, step, step), *(Residual(width, dims) for _ in range(blocks))]
            last, step = width, 2
        self.levels = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(last)
        self.out = nn.Linear(last, text_width)
        self.scale = nn.Parameter(torch.tensor(2.5))

    def features(self, x: Tensor) -> Tensor:
        """(B, C, *S) in [-1, 1], S multiples of the total stride, to (B, widths[-1])."""
        pooled: Tensor = self.norm(self.levels(x).flatten(2).mean(-1))
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) in [-1, 1] to unit vectors (B, D)."""
        return F.normalize(self.out(self.features(x)), dim=-1)

    def logits(self, x: Tensor, text: Tensor) -> Tensor:
        """(B, C, *S) and unit vectors of N names (N, D) to logits (B, N).

        Source: Radford et al. 2021, arXiv 2103.00020, section 2.3, with the text fixed.
        """
        found: Tensor = self.scale.exp() * self(x) @ text.T
        return found


class Residual(nn.Module):
    """Two convolutions after normalisation, added to what came in."""

    def __init__(self, width: int, dims: int) -> None:
        """Takes the width of the level and the dimensions of space."""
        super().__init__()
        first, second = (CONVS[dims](width, width, 3, 1, 1) for _ in range(2))
        self.layers = nn.Sequential(norm(width), nn.SiLU(), first, norm(width), nn.SiLU(), zeroed(second))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, *S) to the same shape."""
        added: Tensor = x + self.layers(x)
        return added
