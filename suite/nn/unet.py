"""A U-Net that predicts from noisy latents, the noise level and text.

Convolutions, self- and cross-attention, skips between the sizes. One of pictures grows into one of clips: it
sees every frame as a picture, and between these looks attends through time.

Source: Ronneberger et al. 2015, arXiv 1505.04597; Dhariwal and Nichol 2021, arXiv 2105.05233 (adaptive group
normalisation); Rombach et al. 2021, arXiv 2112.10752 (cross-attention to text); Blattmann et al. 2023,
arXiv 2304.08818 (layers of time between those of pictures).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.nn.autoencoder import fold, unfold
from suite.nn.layers import Attention, Conditioner, conv, norm, timestep_features, zeroed

TURNS = 4  # of the circles on which a frame's place in its clip is told


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


class AttendInTime(nn.Module):
    """Positions attend to themselves in the other frames, or to all positions of all frames jointly."""

    def __init__(self, width: int, joint: bool) -> None:
        """Takes the channels, and whether to attend jointly."""
        super().__init__()
        self.joint = joint
        self.code = nn.Linear(2 * TURNS + 1, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.attention = Attention(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), zeroed(nn.Linear(2 * width, width)))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B * frames, width, *S) to the same."""
        width, places = x.shape[1], x[0, 0].numel()
        h = x.reshape(-1, frames, width, places).movedim(2, -1)  # (B, T, N, width)
        h = h + self.code(moments(frames, x))[:, None]
        h = h.flatten(1, 2) if self.joint else h.transpose(1, 2).flatten(0, 1)
        moved = self.attention(self.norms[0](h))
        moved = moved + self.mlp(self.norms[1](h + moved))
        if self.joint:
            moved = moved.view(-1, frames, places, width)
        else:
            moved = moved.view(-1, places, frames, width).transpose(1, 2)
        seen: Tensor = x + moved.movedim(-1, 2).reshape(x.shape)
        return seen


class Stage(nn.Module):
    """A block, attention where the level has it, and attention in time in a network of clips."""

    def __init__(self, block: Block, attend: Attend | None, in_time: AttendInTime | None) -> None:
        """Takes the parts."""
        super().__init__()
        self.block, self.attend, self.in_time = block, attend, in_time

    def forward(self, x: Tensor, vector: Tensor, context: Tensor, mask: Tensor, frames: int) -> Tensor:
        """(B * frames, width_in, *S), their vectors, the context of B to (B * frames, width, *S)."""
        x = self.block(x, vector)
        x = x if self.attend is None else self.attend(x, context, mask)
        return x if self.in_time is None else self.in_time(x, frames)


class UNet(nn.Module):
    """Encoder and decoder over `len(widths)` sizes of space, joined by skip connections."""

    def __init__(self, channels: int = 16, widths: tuple[int, ...] = (160, 320), blocks: int = 2,
                 attention: tuple[bool, ...] = (True, True), context_width: int = 384, patch: int = 1,
                 positions: int = 16, head: int = 0, dims: int = 2, time: tuple[str, ...] = (),
                 gain: bool = False, stride: bool = False) -> None:
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
            time: of a network of clips, how each level attends in time: "alone", "joint" or "none".
            gain: whether each channel also passes by the network, times a factor that the condition sets: the
                noise in latents of more channels than the first level has does not fit through it.
            stride: whether it reads how far down in noise its answer is to lead.
        """
        super().__init__()
        if not set(time) <= {"alone", "joint", "none"} or len(time) not in (0, len(widths)):
            raise ValueError(f"time is {list(time)}; it must say alone, joint or none of each of the widths")
        self.config: dict[str, Any] = {
            "channels": channels, "widths": list(widths), "blocks": blocks, "attention": list(attention),
            "context_width": context_width, "patch": patch, "positions": positions, "head": head,
            "dims": dims, **({"time": list(time)} if time else {}), **({"gain": True} if gain else {}),
            **({"stride": True} if stride else {})}
        self.factor, self.patch, self.positions = patch * 2 ** (len(widths) - 1), patch, positions
        folded = channels * patch ** dims
        vector = 2 * widths[0]
        self.condition = Conditioner(context_width, vector, vector)

        def stage(level: int, width_in: int) -> Stage:
            attend = Attend(widths[level], vector) if attention[level] else None
            moves = bool(time) and time[level] != "none"
            in_time = AttendInTime(widths[level], time[level] == "joint") if moves else None
            return Stage(Block(dims, width_in, widths[level], vector), attend, in_time)

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
        self.moment = zeroed(nn.Linear(2 * TURNS + 1, vector)) if time else None
        self.gain = zeroed(nn.Linear(vector, channels)) if gain else None
        self.stride = zeroed(nn.Linear(vector, vector, bias=False)) if stride else None

    def grown(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a network without time, gain or stride, and those as they begin here, without effect."""
        new = ("moment.", "gain.", "stride.")
        own = {k: v for k, v in self.state_dict().items() if ".in_time." in k or k.startswith(new)}
        return {**own, **state}

    def forward(
        self, x: Tensor, timestep: Tensor, context: Tensor, mask: Tensor, stride: Tensor | None = None
    ) -> Tensor:
        """Predicts in the terms the Denoiser was told.

        Args:
            x: (B, C, *S), noisy latents; each size of S a multiple of `factor`. Of clips, (B, C, T, *S).
            timestep: (B,) float, 0 to 1000.
            context: (B, L, D), text features.
            mask: (B, L) bool, true at real tokens.
            stride: (B,) float, by how much of the timestep the answer is to lead on; None is 0, the tangent.

        Returns: as x.
        """
        vector, tokens = self.condition(timestep, context, mask)
        if self.stride is not None and stride is not None:
            far, none = (timestep_features(of, vector.shape[1]) for of in (stride, torch.zeros_like(stride)))
            vector = vector + self.stride((far - none).to(vector.dtype))
        frames = 1
        if self.moment is not None:
            frames = x.shape[2]
            x = x.transpose(1, 2).flatten(0, 1)
            vector = (vector[:, None] + self.moment(moments(frames, x))).flatten(0, 1)
        made = self._frames(x, vector, tokens, mask, frames)
        return made if self.moment is None else made.view(-1, frames, *made.shape[1:]).transpose(1, 2)

    def _frames(self, x: Tensor, vector: Tensor, tokens: Tensor, mask: Tensor, frames: int) -> Tensor:
        """(B * frames, C, *S), their vectors (B * frames, V), the context of B to (B * frames, C, *S)."""
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
                x = stage(x, vector, tokens, mask, frames)
                skips.append(x)
        x = self.middle(x, vector, tokens, mask, frames)
        for level, stages in enumerate(self.up):
            if level:
                x = self.larger[level - 1](x)
            for stage in stages:
                x = stage(torch.cat([x, skips.pop()], dim=1), vector, tokens, mask, frames)
        x = unfold(self.leave(x), self.patch)
        if self.head is not None and self.finish is not None:
            x = x + self.finish(F.silu(self.head(torch.cat([given, x], dim=1), vector)))
        if self.gain is not None:
            x = x + self.gain(vector).view(*given.shape[:2], *[1] * (given.dim() - 2)) * given
        return x


def place(x: Tensor, period: int) -> list[Tensor]:
    """Where each position lies: cosine and sine of half a turn over `period` a dimension, each (B, 1, *S)."""
    codes = []
    for dim, size in enumerate(x.shape[2:], start=2):
        shape = [1] * x.dim()
        shape[dim] = size
        angle = (torch.arange(size, device=x.device) + 0.5).mul(torch.pi / period).view(shape)
        codes += [f(angle).to(x.dtype).expand(x.shape[0], 1, *x.shape[2:]) for f in (torch.cos, torch.sin)]
    return codes


def moments(frames: int, like: Tensor) -> Tensor:
    """Where each frame lies in its clip: (frames, 2 * TURNS + 1), on circles and from -1 to 1."""
    share = (torch.arange(frames, device=like.device) + 0.5) / frames
    angles = 2 * torch.pi * share[:, None] * torch.arange(1, TURNS + 1, device=like.device)
    return torch.cat([angles.cos(), angles.sin(), 2 * share[:, None] - 1], 1).to(like.dtype)
