"""A coloured shape as points of its surface that carry features, and back to a field of what is inside.

Shapes: B batch, N points of the surface, K anchors among them, Q places asked about, D features, R cells a
side.

Source: Zhang et al. 2022, arXiv 2205.13914 (3DILG): features at points spread over the surface, of which each
place sees the nearest; the points are spread as in Qi et al. 2017, arXiv 1706.02413, section 3.2. What is
inside is told by planes through the anchors as in Kolluri 2008, doi 10.1145/1361192.1361195, section 3, and a
network adds the rest.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCALE = 2.0  # of positions in [-1, 1], so that they vary as much as the features
AROUND = 32  # points of the surface that an anchor gathers
BANDS = 5  # octaves in which a position is told
MARGIN = 2.5  # coarse cells around an anchor in which the field is looked at closely
SURE = 3.0  # logit beyond which a coarse cell elsewhere is believed
STEEP = 20.0  # logits a unit of depth below the planes that the anchors' normals span
HALVED = (1, 0, 2)  # axes in the order in which they halve the anchors, so that their numbers say where
CHUNK = 1 << 15  # places asked about at once


def farthest(points: Tensor, count: int) -> Tensor:
    """Which of the points (B, N, 3) are spread the most evenly: (B, count) indices, from the first on."""
    rows = torch.arange(len(points), device=points.device)
    chosen = [torch.zeros_like(rows)]
    far = torch.full(points.shape[:2], torch.inf, device=points.device)
    for _ in range(count - 1):
        last = points[rows, chosen[-1]]
        far = torch.minimum(far, (points - last[:, None]).square().sum(-1))
        chosen.append(far.argmax(1))
    return torch.stack(chosen, 1)


def ordered(points: Tensor) -> Tensor:
    """The order of points (B, K, 3) in a balanced tree, halved by height, width and depth in turn: (B, K).

    So the number of a point tells a network about where it is.
    """
    order = torch.arange(points.shape[1], device=points.device).expand(points.shape[:2])
    groups, axis = 1, 0
    while points.shape[1] % (2 * groups) == 0:
        along = points[..., HALVED[axis % 3]].gather(1, order)
        parts = order.view(len(order), groups, -1)
        order = parts.gather(2, along.view_as(parts).argsort(2)).flatten(1)
        groups, axis = 2 * groups, axis + 1
    return order


def taken(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x (B, K, D) at index (B, ...): (B, ..., D)."""
    flat = index.flatten(1)[..., None].expand(-1, -1, x.shape[-1])
    return x.gather(1, flat).view(*index.shape, x.shape[-1])


def waves(x: Tensor, scale: float = 1.0) -> Tensor:
    """Positions (..., 3) and their sines and cosines in octaves from `scale` on: (..., 3 + 6 * BANDS)."""
    octaves = scale * torch.pi * 2.0 ** torch.arange(BANDS, device=x.device)
    angles = (x[..., None] * octaves).flatten(-2)
    return torch.cat([x, angles.sin(), angles.cos()], -1).to(x.dtype)


def attending(width: int, depth: int) -> nn.Module:
    """Blocks of attention among the anchors, blind to their order."""
    block = nn.TransformerEncoderLayer(width, max(1, width // 64), 3 * width, 0.0, "gelu", batch_first=True,
                                       norm_first=True)  # fmt: skip
    return nn.TransformerEncoder(block, depth, enable_nested_tensor=False)


class Surface(nn.Module):
    """Points of a surface to anchors with features, and those to a field: inside or not, and which colour.

    A signal (B, 10, N + Q) is N points of the surface, then Q places: position, normal (0 of a place) and
    sRGB colour (of a place that of the nearest surface), all in [-1, 1], then 1 inside, -1 outside, 0 of a
    point.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, anchors: int = 128, latent_channels: int = 16, width: int = 192, depth: int = 3,
                 local: int = 96, near: int = 8, points: int = 2048, queries: int = 4096, cells: int = 96
                 ) -> None:  # fmt: skip
        """Builds it.

        Args:
            anchors: K.
            latent_channels: three of position and the features.
            width: of the attention among anchors.
            depth: its blocks, before and after the latents.
            local: features that a place sees of an anchor.
            near: anchors that a place sees.
            points: N, of a signal.
            queries: Q, of a signal.
            cells: R of the decoded field, a multiple of 4.
        """
        super().__init__()
        self.config: dict[str, Any] = {
            "anchors": anchors, "latent_channels": latent_channels, "width": width, "depth": depth,
            "local": local, "near": near, "points": points, "queries": queries, "cells": cells,
        }  # fmt: skip
        self.anchors, self.latent_channels = anchors, latent_channels
        self.factor = (points + queries) // anchors
        self.near, self.points, self.cells = near, points, cells
        told = 3 + 6 * BANDS
        self.gather = nn.Sequential(nn.Linear(9, width), nn.GELU(), nn.Linear(width, width))
        self.place_in, self.place_out = nn.Linear(told, width), nn.Linear(told, width)
        self.encoder, self.decoder = attending(width, depth), attending(width, depth)
        self.code = nn.Linear(width, 2 * (latent_channels - 3))
        self.enter = nn.Linear(latent_channels - 3, width)
        self.seen, self.offset = nn.Linear(width, local + 3), nn.Linear(told + 2, local)
        self.mix = nn.Sequential(nn.GELU(), nn.Linear(local, local + 1))
        self.nearer = nn.Parameter(torch.tensor(2.0))
        self.leave = nn.Sequential(nn.Linear(local, local), nn.GELU(), nn.Linear(local, 4))
        self.register_buffer("centre", torch.zeros(latent_channels - 3, 1))  # of the features, when trained
        self.register_buffer("spread", torch.ones(latent_channels - 3, 1))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 10, N + Q) to mean and log variance, each (B, latent_channels, K): positions, then features.

        The anchors are in the order of a balanced tree.
        """
        points = x[:, :9, : self.points].transpose(1, 2)
        places = points[..., :3]
        anchors = taken(places, farthest(places, self.anchors))
        anchors = taken(anchors, ordered(anchors))
        around = torch.cdist(anchors, places).topk(AROUND, largest=False).indices
        seen = taken(points, around)
        offset = 8 * (seen[..., :3] - anchors[:, :, None])
        h = self.gather(torch.cat([offset, seen[..., 3:]], -1)).amax(2) + self.place_in(waves(anchors))
        mean, logvar = self.code(self.encoder(h)).transpose(1, 2).chunk(2, 1)
        mean, logvar = (mean - self.centre) / self.spread, logvar - 2 * self.spread.log()
        place = SCALE * anchors.transpose(1, 2)
        still = torch.full_like(place, -20)
        return torch.cat([place, mean], 1), torch.cat([still, logvar.clamp(-12, 4)], 1)

    def anchored(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(B, latent_channels, K) to the anchors (B, K, 3) and what places see of them, (B, K, local + 3).

        The last three tell which way is out, as a normal does.
        """
        anchors = z[:, :3].transpose(1, 2) / SCALE
        features = z[:, 3:] * self.spread + self.centre
        h = self.enter(features.transpose(1, 2)) + self.place_out(waves(anchors))
        return anchors, self.seen(self.decoder(h))

    def field(self, anchors: Tensor, seen: Tensor, places: Tensor) -> Tensor:
        """What is at places (B, Q, 3): (B, 4, Q), the logit of being inside, and colour."""
        far, index = torch.cdist(places, anchors).topk(self.near, largest=False)
        offset = places[:, :, None] - taken(anchors, index)
        near = taken(seen, index)
        code, normal = near[..., :-3], near[..., -3:]
        out = (offset * normal).sum(-1, keepdim=True)
        h = self.mix(code + self.offset(torch.cat([waves(offset, 2.0), far[..., None], out], -1)))
        weight = (h[..., :1] - (self.nearer.exp() * far[..., None]).square()).softmax(2)
        found: Tensor = self.leave((weight * h[..., 1:]).sum(2))
        depth = F.pad(-STEEP * (weight * out).sum(2), (0, 3))
        return (found + depth).transpose(1, 2)

    def decode(self, z: Tensor) -> Tensor:
        """(B, latent_channels, K) to (B, 4, R, R, R) at the centres of cells that fill [-1, 1], x first.

        Away from the anchors the field is smooth, and is asked for at a quarter of the resolution.
        """
        side, fine, fields = self.cells // 4, centres(self.cells, z), []
        for anchors, seen in zip(*self.anchored(z), strict=True):
            coarse = self._asked(anchors, seen, centres(side, z)).view(1, 4, side, side, side)
            field = F.interpolate(coarse, scale_factor=4, mode="trilinear").flatten(2)[0]
            near = torch.cat([torch.cdist(part, anchors).amin(1) for part in torch.split(fine, CHUNK)])
            close = (near < MARGIN * 2 / side) | (field[0].abs() < SURE)
            field[:, close] = self._asked(anchors, seen, fine[close])
            fields.append(field.view(4, self.cells, self.cells, self.cells))
        return torch.stack(fields)

    def _asked(self, anchors: Tensor, seen: Tensor, places: Tensor) -> Tensor:
        """(4, Q) of one shape."""
        split = torch.split(places, CHUNK)
        return torch.cat([self.field(anchors[None], seen[None], part[None])[0] for part in split], 1)

    def region(self, mask: Tensor, x: Tensor, z: Tensor) -> Tensor:
        """As of `suite.latent.region`: an anchor (1, channels, K) is where the point of x next to it is."""
        places = x[:, :3, : self.points].transpose(1, 2)
        next_to = torch.cdist(z[:, :3].transpose(1, 2) / SCALE, places).argmin(2)
        return mask.gt(0).to(z).gather(2, next_to[:, None])

    def preview(self, z: Tensor) -> Tensor:
        """(B, latent_channels, K) to (B, 6, K): each anchor's position and colour, in [-1, 1]."""
        anchors, seen = self.anchored(z)
        return torch.cat([anchors.transpose(1, 2), self.field(anchors, seen, anchors)[:, 1:]], 1)

    def forward(
        self, x: Tensor, generator: torch.Generator | None = None, latent_noise: float = 0.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As in training: a draw of the latents, and the field at the signal's places.

        Args:
            x: (B, 10, N + Q), a signal.
            generator: of the draw, on the CPU.
            latent_noise: deviation of what is added to features and positions, as a model's are off.
        Returns: the field (B, 4, Q), the features' mean and log variance.
        """
        mean, logvar = self.encode(x)
        eps = torch.randn(mean.shape, generator=generator).to(mean)
        spread = (logvar.exp() + latent_noise**2).sqrt()
        spread = torch.cat([0.1 * spread[:, :3], spread[:, 3:]], 1)  # a point off its place is seen at once
        anchors, seen = self.anchored(mean + spread * eps)
        places = x[:, :3, self.points :].transpose(1, 2)
        return self.field(anchors, seen, places), mean[:, 3:], logvar[:, 3:]


def centres(cells: int, like: Tensor) -> Tensor:
    """(cells^3, 3) centres of the cells of [-1, 1] cubed, x slowest."""
    along = (torch.arange(cells, device=like.device, dtype=like.dtype) + 0.5) * 2 / cells - 1
    return torch.cartesian_prod(along, along, along)
