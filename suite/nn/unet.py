"""A U-Net that predicts from noisy latents, the noise level and text.

Convolutions, self- and cross-attention, skips between the sizes.

Source: Ronneberger et al. 2015, arXiv 1505.04597; Dhariwal and Nichol 2021, arXiv 2105.05233 (adaptive group
normalisation); Rombach et al. 2021, arXiv 2112.10752 (cross-attention to text).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.nn.autoencoder import fold, unfold
from suite.nn.layers import Attention, Conditioner, conv, norm, zeroed


class Block(nn.Module):
    """A residual block modulated by the condition's vector."""

    def __init__(self, dims: int, width_in: int, width: int, vector_width: int) -> None:
        """Takes the dimensions of space, the channels in and out and the width of the vector."""
        super().__init__()
        self.norm_in, self.conv_in = norm(width_in), conv(dims, width_in, width)
        self.modulation = zeroed(nn.Linear(vector_width, 2 * width))
        self.norm_out, self.conv_out = norm(width), zeroed(conv(dims, width, width))
        self.skip = conv(dims, width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """(B, width_in, *S) and (B, vector_width) to (B, width, *S)."""
        h = self.norm_out(self.conv_in(F.silu(self.norm_in(x))))
        scale, shift = self.modulation(vector).view(*h.shape[:1], -1, *[1] * (x.dim() - 2)).chunk(2, dim=1)
        x = self.skip(x) + self.conv_out(F.silu(h * (1 + scale) + shift))
        return x


class Attend(nn.Module):
    """Positions attend to each other, then to the text, then pass a small perceptron."""

    def __init__(self, width: int, context_width: int) -> None:
        """Takes the channels and the width of the text tokens."""
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])
        self.self_attention = Attention(width)
        self.cross_attention = Attention(width, context_width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), zeroed(nn.Linear(2 * width, width)))

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """(B, width, *S), (B, L, context_width), (B, L) bool to (B, width, *S)."""
        h: Tensor = x.flatten(2).transpose(1, 2)
        h = h + self.self_attention(self.norms[0](h))
        h = h + self.cross_attention(self.norms[1](h), context, mask)
        h = h + self.mlp(self.norms[2](h))
        return h.transpose(1, 2).view(x.shape)


class Stage(nn.Module):
    """A block, and attention where the level has it."""

    def __init__(self, block: Block, attend: Attend | None) -> None:
        """Takes the two parts."""
        super().__init__()
        self.block, self.attend = block, attend

    def forward(self, x: Tensor, vector: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """(B, width_in, *S) to (B, width, *S)."""
        x = self.block(x, vector)
        return x if self.attend is None else self.attend(x, context, mask)


class UNet(nn.Module):
    """Encoder and decoder over `len(widths)` sizes of space, joined by skip connections."""

    def __init__(self, channels: int = 16, widths: tuple[int, ...] = (160, 320), blocks: int = 2,
                 attention: tuple[bool, ...] = (True, True), context_width: int = 384, patch: int = 1,
                 positions: int = 16, head: int = 0, dims: int = 2) -> None:
        """Builds it for latents of `channels` channels over `dims` dimensions.

        Args:
            channels: of the latents.
            widths: channels of each level, finest first; space halves from one to the next.
            blocks: residual blocks a level.
            attention: whether a level attends to itself and to the text, as many as widths.
            context_width: D of the text features.
            patch: size of the patches of latents that become channels before the first level.
            positions: size of space, in patches, over which the position code turns by half.
            head: channels of a block outside the patches that corrects what comes of them, seeing the input
                as it is; 0 for none. Where the noise is low the patches' width would hold it back (the wide
                head of Zheng et al. 2025, arXiv 2510.11690).
            dims: dimensions of space, 1 to 3.
        """
        super().__init__()
        self.config: dict[str, Any] = {
            "channels": channels, "widths": list(widths), "blocks": blocks, "attention": list(attention),
            "context_width": context_width, "patch": patch, "positions": positions, "head": head,
            "dims": dims}
        self.factor, self.patch, self.positions = patch * 2 ** (len(widths) - 1), patch, positions
        folded = channels * patch ** dims
        vector = 2 * widths[0]
        self.condition = Conditioner(context_width, vector, vector)

        def stage(level: int, width_in: int) -> Stage:
            attend = Attend(widths[level], vector) if attention[level] else None
            return Stage(Block(dims, width_in, widths[level], vector), attend)

        self.enter = conv(dims, folded + 2 * dims, widths[0])
        skips, width = [widths[0]], widths[0]
        self.down, self.smaller = nn.ModuleList(), nn.ModuleList()
        for level in range(len(widths)):
            stages = nn.ModuleList()
            for _ in range(blocks):
                stages.append(stage(level, width))
                width = widths[level]
                skips.append(width)
            self.down.append(stages)
            if level < len(widths) - 1:
                self.smaller.append(conv(dims, width, width, stride=2))
                skips.append(width)
        self.middle = stage(len(widths) - 1, width)
        self.up, self.larger = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(widths))):
            stages = nn.ModuleList()
            for _ in range(blocks + 1):
                stages.append(stage(level, width + skips.pop()))
                width = widths[level]
            self.up.append(stages)
            if level:
                self.larger.append(nn.Sequential(nn.Upsample(scale_factor=2), conv(dims, width, width)))
        self.leave = nn.Sequential(norm(width), nn.SiLU(), zeroed(conv(dims, width, folded)))
        self.head = Block(dims, 2 * channels, head, vector) if head else None
        self.finish = zeroed(conv(dims, head, channels)) if head else None

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Predicts in the terms the Denoiser was told.

        Args:
            x: (B, C, *S), noisy latents; each size of S a multiple of `factor`.
            timestep: (B,) float, 0 to 1000.
            context: (B, L, D), text features.
            mask: (B, L) bool, true at real tokens.

        Returns: (B, C, *S).
        """
        vector, tokens = self.condition(timestep, context, mask)
        given = x
        x = fold(x, self.patch)
        x = self.enter(torch.cat([x, *place(x, self.positions)], dim=1))
        skips = [x]
        stages: Any  # to the type checker, what a ModuleList holds has no length
        for level, stages in enumerate(self.down):
            if level:
                x = self.smaller[level - 1](x)
                skips.append(x)
            for stage in stages:
                x = stage(x, vector, tokens, mask)
                skips.append(x)
        x = self.middle(x, vector, tokens, mask)
        for level, stages in enumerate(self.up):
            if level:
                x = self.larger[level - 1](x)
            for stage in stages:
                x = stage(torch.cat([x, skips.pop()], dim=1), vector, tokens, mask)
        x = unfold(self.leave(x), self.patch)
        if self.head is None or self.finish is None:
            return x
        corrected: Tensor = x + self.finish(F.silu(self.head(torch.cat([given, x], dim=1), vector)))
        return corrected


def place(x: Tensor, period: int) -> list[Tensor]:
    """Where each position lies: cosine and sine of half a turn over `period` a dimension, each (B, 1, *S)."""
    codes = []
    for dim, size in enumerate(x.shape[2:], start=2):
        shape = [1] * x.dim()
        shape[dim] = size
        angle = (torch.arange(size, device=x.device) + 0.5).mul(torch.pi / period).view(shape)
        codes += [f(angle).to(x.dtype).expand(x.shape[0], 1, *x.shape[2:]) for f in (torch.cos, torch.sin)]
    return codes
