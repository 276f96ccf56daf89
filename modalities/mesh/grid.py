"""A mesh as a network learns it: a grid that says of each cell how deep inside it is, and the colour nearby.

A grid is (4, R, R, R) uint8, 0 to 255 for -1 to 1, x first, at the centres of cells of [-1, 1]: depth in
units of DEEP, positive inside, then sRGB. What is inside is told by `modalities.mesh.sample.Solid`. What is
thinner than a grid can show is made as thick as SHEET, so that it is neither lost nor full of holes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional as F

from modalities.mesh.read import colours_at, opened
from modalities.mesh.sample import EXTENT, INSIDE, Solid, centred
from modalities.mesh.surface import Surface, unit_of

Array = NDArray[Any]
CELLS = 32  # R
CELL = 2 / CELLS
DEEP = 3 * CELL  # how deep is told: what is beyond is all as one
SHEET = 1.6 * CELL  # the least thickness of what is solid
FINER, BLUR = 2, 0.8  # cells of a smooth grid in one of a coarse one; how far it is smoothed, in coarse ones
NEAR = 0.5  # of DEEP, how near the surface a cell is that has the colour of its own
FADE = (1.5, 4.5)  # cells from those, over which colours fade to grey


def gridded(source: str | Path | trimesh.Trimesh) -> Array:
    """A mesh as a grid, grey but for the cells near the surface.

    Raises: ValueError, in one sentence, if the mesh cannot be read.
    """
    mesh = centred(opened("mesh", source))
    solid, surface = Solid(mesh), Surface(mesh, spacing=0.02)
    along = (np.arange(CELLS) + 0.5) * CELL - 1
    near = np.zeros((CELLS,) * 3, bool)
    near[tuple(np.floor((surface.points + 1) / CELL).astype(int).clip(0, CELLS - 1).T)] = True
    near = ndimage.binary_dilation(near, np.ones((3, 3, 3)), iterations=3)
    at = np.argwhere(near)
    depth, colours = _depths(along[at], solid, surface, mesh)
    everywhere = np.stack(np.meshgrid(along, along, along, indexing="ij"), -1).reshape(-1, 3)
    made = np.full((4, CELLS, CELLS, CELLS), 128, np.uint8)
    made[0] = np.where(solid.kind(everywhere) == INSIDE, 255, 0).reshape(near.shape)
    made[0][tuple(at.T)] = np.rint((depth / DEEP).clip(-1, 1) * 127.5 + 127.5)
    made[(slice(1, 4), *at.T)] = colours.T
    made[1:, ~shown(made)] = 128
    return made


def _depths(places: Array, solid: Solid, surface: Surface, mesh: trimesh.Trimesh) -> tuple[Array, Array]:
    """How deep places (N, 3) are inside, with SHEET as the least thickness; the nearest colours (N, 3)."""
    inside, faces, weights = solid.holds(places, surface)
    on = np.einsum("nij,ni->nj", surface.corners[faces], weights)
    depth = np.where(inside, 1, -1) * np.linalg.norm(places - on, axis=1)
    out = np.where(inside, -1, 1)[:, None] * unit_of(places - on)
    behind = on - SHEET * out  # outside again if what is here is thin
    thin = np.flatnonzero((solid.kind(behind) != INSIDE) & (np.abs(depth) < DEEP))
    beside = surface.nearest(behind[thin], 2)[2]  # of parallel sides, the other one is nearer to that
    depth[thin] += np.minimum(beside, SHEET) / 2
    return depth, colours_at(mesh, faces, weights)


def shown(grid: Array) -> Array:
    """(R, R, R) bool, which cells are near the surface."""
    return np.abs(grid[0].astype(np.float32) - 127.5) < NEAR * 127.5


def surface_points(grid: Array) -> tuple[Array, Array, Array]:
    """Points of the surface, one of each cell near, their normals, and sRGB colours in uint8, each (N, 3)."""
    near = shown(grid)
    depth = grid[0].astype(np.float32) / 127.5 - 1
    normals = -unit_of(np.stack([slope[near] for slope in np.gradient(depth)], 1))
    places = (np.argwhere(near) + 0.5) * CELL - 1 + normals * depth[near][:, None] * DEEP
    return places, normals, grid[1:, near].T


def cloud_of(grid: Array) -> Array:
    """Coloured points of a grid (4, r, r, r) float in [-1, 1], however coarse: (K, 6), positions and colours.

    They are the cells inside that touch what is not.
    """
    inside = grid[0] > min(0.0, float(grid[0].max()) - 1e-3)
    border = inside & ~ndimage.binary_erosion(inside)
    return np.concatenate([(np.argwhere(border) + 0.5) * 2 / len(inside) - 1, grid[1:, border].T], 1)


def smooth(field: Array) -> Array:
    """A field (C, r, r, r) with FINER times as many cells a side, without the bumps of a few cells."""
    zoomed = [ndimage.zoom(part, FINER, order=3, mode="nearest", grid_mode=True) for part in field]
    return np.stack([ndimage.gaussian_filter(part, BLUR * FINER, mode="nearest") for part in zoomed])


def filled(grid: Array) -> Array:
    """The grid with each cell in the colour of the nearest one near the surface, grey where that is far."""
    far, at = ndimage.distance_transform_edt(~shown(grid), return_indices=True)
    strength = ((FADE[1] - far) / (FADE[1] - FADE[0])).clip(0, 1)
    made = grid.copy()
    made[1:] = np.rint((grid[(slice(1, 4), *at)] - 128.0) * strength + 128)
    return made


def stretched(grid: Array, way: Array) -> Array:
    """The grid of a thing under a linear map (3, 3) about its centre, made to fit again."""
    places = surface_points(grid)[0] @ way.T
    low, high = places.min(0), places.max(0)
    scale, back = EXTENT / (high - low).max(), np.linalg.inv(way)
    theta = np.concatenate([back / scale, (back @ (low + high) / 2)[:, None]], 1)[::-1, [2, 1, 0, 3]]
    x = torch.from_numpy(grid)[None].float() - 128
    x[:, 0] += 128  # so that what is beyond the border is outside, and grey
    asked = F.affine_grid(torch.from_numpy(theta.copy()).float()[None], list(x.shape), align_corners=False)
    made = F.grid_sample(x, asked, align_corners=False)[0]
    made[1:] += 128
    steeper = scale * abs(float(np.linalg.det(way))) ** (1 / 3)
    made[0] = (made[0] - 127.5) * steeper + 127.5
    found: Array = made.round().clamp(0, 255).byte().numpy()
    return found
