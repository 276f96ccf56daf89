"""Layers that more than one network uses; each works in one, two or three dimensions of space.

Shapes: B batch, C channels, *S space, N positions (the product of S), L context tokens, D features.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONVS: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def conv(dims: int, width_in: int, width_out: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    """A convolution over `dims` dimensions that keeps the size of space at stride 1."""
    return CONVS[dims](width_in, width_out, kernel, stride, kernel // 2)


def zeroed(module: nn.Module) -> nn.Module:
    """The same module with every parameter at zero, so that a residual branch starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def norm(width: int) -> nn.GroupNorm:
    """Group normalisation in groups of at least 8 channels, at most 32 groups."""
    return nn.GroupNorm(math.gcd(32, max(1, width // 8)), width)


def timestep_features(timestep: Tensor, width: int) -> Tensor:
    """Sinusoidal features of the noise level.

    Args:
        timestep: (B,) float, 0 (clean) to 1000 (noise).
        width: number of features, even.

    Returns: (B, width) float32.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5; Ho et al. 2020, arXiv 2006.11239, appendix B.
    """
    steps = torch.arange(width // 2, device=timestep.device)
    frequencies = torch.exp(steps * (-math.log(10000) / (width // 2)))
    angles = timestep.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Conditioner(nn.Module):
    """Noise level and text as one vector for modulation, and the text as tokens for attention."""

    def __init__(self, context_width: int, token_width: int, width: int) -> None:
        """Takes the width of the text features, of the tokens attended to and of the vector."""
        super().__init__()
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.tokens = nn.Linear(context_width, token_width)
        self.norm = nn.LayerNorm(token_width)
        self.pooled = nn.Linear(context_width, width)

    def forward(self, timestep: Tensor, context: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B,), (B, L, D), (B, L) bool to the vector (B, width) and the tokens (B, L, token_width)."""
        kept = mask[..., None].to(context.dtype)
        pooled = (context * kept).sum(1) / kept.sum(1).clamp(min=1)
        vector = self.time(timestep_features(timestep, self.width).to(context.dtype)) + self.pooled(pooled)
        return F.silu(vector), self.norm(self.tokens(context))


class Attention(nn.Module):
    """Multi-head attention of positions to a context, or to themselves where none is given."""

    def __init__(self, width: int, context_width: int | None = None, head: int = 64) -> None:
        """Takes the width of the positions, that of the context, and the width of a head."""
        super().__init__()
        self.heads = max(1, width // head)
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(context_width or width, 2 * width, bias=False)
        self.out = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """(B, N, width), (B, L, context_width) and its (B, L) bool mask to (B, N, width).

        Of B times T items of x, T on end share each of B contexts.
        """
        seen: Tensor = self.kv(x if context is None else context)
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = seen.view(*seen.shape[:2], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = F.layer_norm(q, q.shape[-1:]), F.layer_norm(k, k.shape[-1:])
        mask = None if mask is None else mask[:, None, None]
        if len(q) > len(k):
            frames = len(q) // len(k)
            k, v = k.repeat_interleave(frames, 0), v.repeat_interleave(frames, 0)
            mask = None if mask is None else mask.repeat_interleave(frames, 0)
        attended = F.scaled_dot_product_attention(q, k, v, mask)
        gathered: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return gathered


class FrameBlock(nn.Module):
    """A wide convolution over space of each channel, then a perceptron at each position.

    Source: Liu et al. 2022, arXiv 2201.03545 (ConvNeXt), in `dims` dimensions.
    """

    def __init__(self, width: int, dims: int = 1) -> None:
        """Takes the channels and the dimensions of space; the convolution sees 7 places, or 3 a side."""
        super().__init__()
        kernel = 7 if dims == 1 else 3
        self.mix = CONVS[dims](width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.body = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, *S) to the same."""
        h: Tensor = self.scale * self.body(self.norm(self.mix(x).movedim(1, -1)))
        return x + h.movedim(-1, 1)
