"""A diffusion transformer: patches attend to each other and the text jointly, modulated by the noise level.

Source: Peebles and Xie 2022, arXiv 2212.09748 (adaLN-zero); Esser et al. 2024, arXiv 2403.03206 (joint
attention); Chen et al. 2023, arXiv 2310.00426 (one modulation shared by all blocks, a learned offset each).
"""

from typing import Any

import torch
from torch import Tensor, nn

from suite.nn.autoencoder import fold, unfold
from suite.nn.layers import Attention, Conditioner, timestep_features, zeroed


class Block(nn.Module):
    """Attention over patches and text together, then a perceptron, both gated by the condition."""

    def __init__(self, width: int) -> None:
        """Takes the width of a token."""
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width, elementwise_affine=False) for _ in range(2)])
        self.attention = Attention(width)
        wide = 4 * width
        self.mlp = nn.Sequential(nn.Linear(width, wide), nn.GELU(approximate="tanh"), nn.Linear(wide, width))
        nn.init.xavier_uniform_(self.attention.out.weight)  # type: ignore[arg-type]
        self.offset = nn.Parameter(torch.zeros(6, width))

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor, modulation: Tensor) -> Tensor:
        """(B, N, width), text (B, L, width), (B, N + L) bool, (B, 6, width) to (B, N, width)."""
        scale_a, shift_a, gate_a, scale_m, shift_m, gate_m = (modulation + self.offset)[:, :, None].unbind(1)
        h = self.norms[0](x) * (1 + scale_a) + shift_a
        x = x + gate_a * self.attention(h, torch.cat([h, tokens], dim=1), mask)
        x = x + gate_m * self.mlp(self.norms[1](x) * (1 + scale_m) + shift_m)
        return x


class Transformer(nn.Module):
    """A stack of blocks over the patches of a latent of any number of dimensions."""

    def __init__(self, channels: int = 16, width: int = 384, depth: int = 12, patch: int = 1,
                 context_width: int = 384, dims: int = 2) -> None:
        """Builds it.

        Args:
            channels: of the latents.
            width: of a token, a multiple of 64 (or at most 64), and of 2 * dims.
            depth: number of blocks.
            patch: size of a patch in each dimension.
            context_width: D of the text features.
            dims: dimensions of space, 1 to 3.
        """
        super().__init__()
        self.config: dict[str, Any] = {"channels": channels, "width": width, "depth": depth, "patch": patch,
                                       "context_width": context_width, "dims": dims}
        self.factor = self.patch = patch
        self.width = width
        self.condition = Conditioner(context_width, width, width)
        self.enter = nn.Linear(channels * patch ** dims, width)
        self.modulation = zeroed(nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList([Block(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.last = zeroed(nn.Linear(width, 2 * width))
        self.leave = zeroed(nn.Linear(width, channels * patch ** dims))

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Predicts in the terms the Denoiser was told; arguments and result are `UNet.forward`'s."""
        vector, tokens = self.condition(timestep, context, mask)
        folded = fold(x, self.patch)
        h = self.enter(folded.flatten(2).transpose(1, 2)) + places(folded, self.width)
        seen = torch.cat([mask.new_ones(h.shape[:2]), mask], dim=1)
        modulation = self.modulation(vector).unflatten(1, (6, -1))
        for block in self.blocks:
            h = block(h, tokens, seen, modulation)
        scale, shift = self.last(vector)[:, None].chunk(2, dim=-1)
        h = self.leave(self.norm(h) * (1 + scale) + shift)
        return unfold(h.transpose(1, 2).reshape(folded.shape), self.patch)


def places(x: Tensor, width: int) -> Tensor:
    """Sinusoidal codes of the positions of `x` (B, C, *S): (N, width), equal shares for each dimension."""
    axes = [torch.arange(size, device=x.device) for size in x.shape[2:]]
    grid = torch.meshgrid(*axes, indexing="ij")
    share = 2 * (width // (2 * len(grid)))
    codes = torch.cat([timestep_features(axis.flatten(), share) for axis in grid], dim=1)
    return nn.functional.pad(codes, (0, width - codes.shape[1])).to(x.dtype)
