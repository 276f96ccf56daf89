"""What is diffused: the latents of a signal, of unit variance; the signal itself is one kind of them.

Shapes: B items, C channels, *S the signal's space (H W | L | T H W), `factor` times smaller in the latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

_SMALLEST = 8  # latents a side, below which a tile is mostly border
FRAMES = 8  # of a clip, encoded or decoded at once: more are slower, for what they take of memory


class Latent(Protocol):
    """The first stage of diffusion.

    Attributes:
        channels: of the latents.
        factor: how many times smaller they are in each dimension of space.
    """

    channels: int
    factor: int

    def encode(self, x: Tensor) -> Tensor:
        """(B, C, *S) in [-1, 1] to (B, channels, *S / factor) of unit variance."""

    def decode(self, z: Tensor) -> Tensor:
        """The inverse of `encode`, as near as it can."""

    def preview(self, z: Tensor) -> Tensor:
        """(B, channels, *S / factor) to a cheap, small estimate of the signal in [-1, 1]."""


def region(mask: Tensor, z: Tensor) -> Tensor:
    """Which latents z (1, channels, *s) a region (1, 1, *S) of the signal touches: (1, 1, *s), 0 or 1."""
    return F.interpolate(mask, z.shape[2:], mode="area").gt(0).to(z)


def factors(latent: Latent, space: int) -> tuple[int, ...]:
    """How many times smaller latents are in each of so many dimensions of the signal's space."""
    frames = isinstance(latent, FrameLatent)
    return (1,) * frames + (latent.factor,) * (space - frames)


class FrameLatent:
    """The latents of clips (B, C, T, H, W), each frame by itself those of a picture."""

    def __init__(self, pictures: Latent) -> None:
        """Takes the latents of pictures; `factor` is theirs, of height and width."""
        self.pictures, self.channels, self.factor = pictures, pictures.channels, pictures.factor

    def encode(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) in [-1, 1] to (B, channels, T, H / factor, W / factor)."""
        return self._each(self.pictures.encode, x)

    def decode(self, z: Tensor) -> Tensor:
        """The inverse of `encode`, as near as it can."""
        return self._each(self.pictures.decode, z)

    def preview(self, z: Tensor) -> Tensor:
        """(B, channels, T, h, w) to (B, C, T, h, w) in [-1, 1]."""
        return self._each(self.pictures.preview, z)

    @staticmethod
    def _each(call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        frames = x.transpose(1, 2).flatten(0, 1)
        made = torch.cat([call(part) for part in torch.split(frames, FRAMES)])
        return made.view(len(x), -1, *made.shape[1:]).transpose(1, 2)


class IdentityLatent:
    """Diffusion in the signal itself: encodes nothing."""

    def __init__(self, channels: int = 3) -> None:
        """Takes the channels of the signal."""
        self.channels, self.factor = channels, 1

    def encode(self, x: Tensor) -> Tensor:
        """Gives `x`, in float32."""
        return x.float()

    def decode(self, z: Tensor) -> Tensor:
        """Gives `z`, in float32."""
        return z.float()

    def preview(self, z: Tensor) -> Tensor:
        """Gives `z` within [-1, 1]."""
        return z.float().clamp(-1, 1)


class AutoencoderLatent:
    """An autoencoder's latents: z = (mean - shift) * scaling.

    Large inputs go through it in tiles whose overlaps are blended, large batches in slices, and what runs out
    of memory is tried again in smaller pieces.
    """

    def __init__(
        self,
        module: Any,
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
        *,
        tile: int | None = 64,
        overlap: float = 0.25,
        batch: int | None = None,
    ) -> None:
        """Wraps an autoencoder.

        Args:
            module: `encode(x)` to (mean, logvar), `decode(z)`, `factor`, `latent_channels`, perhaps
                `preview(z)`; all in its own, unscaled latents.
            scaling_factor: brings the latents to unit variance.
            shift_factor: their mean.
            tile: latents a side beyond which a signal is cut into tiles; None: only when memory runs out.
            overlap: of neighbouring tiles, a share of a tile.
            batch: items a call; None: all.
        """
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap is {overlap}; it must be at least 0 and less than 1")
        if (tile is not None and tile < 1) or (batch is not None and batch < 1):
            raise ValueError(f"tile is {tile} and batch is {batch}; each must be at least 1, or None")
        self.module, self.scaling_factor, self.shift_factor = module, scaling_factor, shift_factor
        self.tile, self.overlap, self.batch = tile, overlap, batch
        self.channels: int = module.latent_channels
        self.factor: int = module.factor

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """(B, C, *S) in [-1, 1] to (B, channels, *S / factor) float32: the posterior's mean."""
        if any(size % self.factor or not size for size in x.shape[2:]):
            size = " x ".join(str(n) for n in x.shape[2:])
            nearest = " x ".join(str(max(1, n // self.factor) * self.factor) for n in x.shape[2:])
            raise ValueError(f"size is {size}; each side must be a multiple of {self.factor} (try {nearest})")
        mean = self._run(lambda part: self.module.encode(part)[0], x, self.factor, 1)
        return (mean - self.shift_factor) * self.scaling_factor

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """(B, channels, *S / factor) to (B, C, *S) float32, about [-1, 1]."""
        return self._run(self.module.decode, self._unscaled(z), 1, self.factor)

    @torch.no_grad()
    def preview(self, z: Tensor) -> Tensor:
        """(B, channels, *S / factor) to (B, C, *S / factor) in [-1, 1]; grey if the module has no preview."""
        if hasattr(self.module, "preview"):
            small: Tensor = self.module.preview(self._unscaled(z).to(self._dtype())).float()
        else:
            small = z.float().mean(1, keepdim=True).expand(-1, 3, *z.shape[2:])
        return small.clamp(-1, 1)

    def _unscaled(self, z: Tensor) -> Tensor:
        return z.float() / self.scaling_factor + self.shift_factor

    def _dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.module.parameters()), torch.float32)

    def _run(self, call: Callable[[Tensor], Tensor], x: Tensor, units_in: int, units_out: int) -> Tensor:
        dtype = self._dtype()
        largest = max(x.shape[2:]) // units_in
        batch, tile = self.batch or len(x), min(self.tile or largest, largest)

        def cast(part: Tensor) -> Tensor:
            return call(part.to(dtype)).float()

        while True:
            overlap = int(tile * self.overlap)
            try:
                return torch.cat([tiled(cast, part, tile, overlap, units_in, units_out)
                                  for part in torch.split(x, batch)])
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if batch == 1 and tile <= _SMALLEST:
                    raise MemoryError(
                        f"out of memory even with one item and {tile} latents a side at a time; close other "
                        "programs or ask for a smaller size"
                    ) from error
            # Here, not above: while the error is held, its frames keep the memory it could not have.
            if x.device.type in ("cuda", "mps"):
                getattr(torch, x.device.type).empty_cache()
            if batch > 1:
                batch = 1
            else:
                tile = max(_SMALLEST, tile // 2)


def tiled(call: Callable[[Tensor], Tensor], x: Tensor, tile: int, overlap: int, units_in: int = 1,
          units_out: int = 1) -> Tensor:
    """Applies a map to overlapping tiles of space and blends them, each fading out linearly over the overlap.

    Args:
        call: (B, C, *tile in) to (B, C', *tile out).
        x: (B, C, *S).
        tile: its longest side, in units.
        overlap: of neighbours at least, in units.
        units_in: elements of `x` a unit, a side: 1 for a decoder.
        units_out: likewise of the result: f for a decoder that enlarges f times.
    Returns: (B, C', *S / units_in * units_out).
    """
    sizes = [n // units_in for n in x.shape[2:]]
    if max(sizes) <= tile:
        return call(x)
    starts = [[*range(0, max(n - tile, 0), tile - overlap), max(n - tile, 0)] for n in sizes]
    total = shares = torch.empty(0)
    for corner in product(*starts):
        ends = [min(a + tile, n) for a, n in zip(corner, sizes, strict=True)]
        piece = call(x[_window(corner, ends, units_in)])
        share = piece.new_ones(())
        for d, size in enumerate(piece.shape[2:]):
            share = share * _fade(size, overlap * units_out, piece).view(-1, *[1] * (len(sizes) - 1 - d))
        if not total.numel():
            total = piece.new_zeros(*piece.shape[:2], *(n * units_out for n in sizes))
            shares = piece.new_zeros(total.shape[2:])
        window = _window(corner, ends, units_out)
        total[window] += piece * share
        shares[window] += share
    return total / shares


def _window(corner: tuple[int, ...], ends: list[int], units: int) -> tuple[Any, ...]:
    return (..., *(slice(a * units, b * units) for a, b in zip(corner, ends, strict=True)))


def _fade(length: int, overlap: int, like: Tensor) -> Tensor:
    place = torch.arange(1, length + 1, device=like.device, dtype=like.dtype)
    return torch.minimum(place, length + 1 - place).clamp_max(overlap + 1) / (overlap + 1)


@contextmanager
def sparing() -> Iterator[None]:
    """Tells in a sentence what to do where memory runs out; also a decorator.

    Raises: MemoryError in place of what torch raises on each kind of device.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        words = "there is not enough memory; ask for fewer at once or for a smaller size"
        raise MemoryError(words) from error


def out_of_memory(error: Exception) -> bool:
    """Whether an error, of whatever kind of device, says that memory ran out."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(w in str(error).lower() for w in words)
