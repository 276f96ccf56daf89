"""Seeded noise that belongs to the item, not to the batch.

Item i of seed s draws from its own generator, seeded s + i: it is item 0 of seed s + i, alone or in a batch
of any size. Noise is drawn on the CPU in float32 and then moved, so that every device starts from the same
bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Noise:
    """Unit Gaussian noise for each item of a batch, fresh at each call."""

    def __init__(self, seed: int, items: int | Sequence[int], shared: float = 0.0) -> None:
        """Seeds the items.

        Args:
            seed: of the request.
            items: how many (0, 1, ...), or which.
            shared: as of `gaussian`.
        """
        self.shared = shared
        wanted = range(items) if isinstance(items, int) else items
        self.generators = [torch.Generator().manual_seed((seed + i) % 2**64) for i in wanted]

    def __call__(self, like: Tensor) -> Tensor:
        """Draws noise.

        Args:
            like: (B, C, *S), B the number of items; gives the shape and the device.

        Returns:
            (B, C, *S) float32 on the device of `like`.
        """
        if like.shape[0] != len(self.generators):
            raise ValueError(f"the batch has {like.shape[0]} items; this noise is for {len(self.generators)}")
        drawn = [gaussian(like.shape[1:], generator, self.shared) for generator in self.generators]
        return torch.stack(drawn).to(like.device)


def gaussian(shape: Sequence[int], generator: torch.Generator, shared: float = 0.0) -> Tensor:
    """Unit Gaussian noise, float32 on the CPU.

    Args:
        shape: of it; of clips (..., T, H, W).
        generator: on the CPU.
        shared: of clips, how much of its variance all frames have in common.
    Source: Ge et al. 2023, arXiv 2305.10474, section 4.1 (mixed noise).
    """
    noise = torch.randn(shape, generator=generator, dtype=torch.float32)
    if not shared:
        return noise
    common = torch.randn((*shape[:-3], 1, *shape[-2:]), generator=generator, dtype=torch.float32)
    return common.mul(shared**0.5) + noise.mul((1 - shared) ** 0.5)
