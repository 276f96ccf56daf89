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

    def __init__(self, seed: int, items: int | Sequence[int]) -> None:
        """Seeds the items.

        Args:
            seed: of the request.
            items: how many (0, 1, ...), or which.
        """
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
        drawn = [torch.randn(like.shape[1:], generator=g, dtype=torch.float32) for g in self.generators]
        return torch.stack(drawn).to(like.device)
