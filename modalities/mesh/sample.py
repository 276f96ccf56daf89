"""Coloured points of a mesh's surface, and what is inside it.

Inside is what a flood from outside does not reach: x is inside iff no path of free cells leads from the edge
of a grid to x. So it needs neither closed nor consistently turned triangles. The floor is closed: what stands
on it without a bottom is solid.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy import ndimage

from modalities.mesh.read import colours_at, opened
from modalities.mesh.surface import Surface, unit_of, winding

Array = NDArray[Any]
EXTENT = 1.8  # the largest, of a mesh centred in [-1, 1]
CELLS = 192  # of the grid along [-1, 1]
CELL = 2 / CELLS
INSIDE, OUTSIDE, SURFACE = 0, 1, 2  # what a cell is
MOST_HOLLOWS, LEAST_HOLLOW = 12, 200  # hollows that are judged, cells of one
REACH = 4  # cells within which a side of the surface shows what it is


@dataclass(frozen=True)
class Sampled:
    """A shape in [-1, 1], +Y up, its largest extent EXTENT; colours are sRGB uint8."""

    points: Array  # (N, 3) float32, on the surface, even by area
    normals: Array  # (N, 3) float32, outward
    colours: Array  # (N, 3)


def centred(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh about the origin, its largest extent EXTENT."""
    made = mesh.copy()
    low, high = mesh.bounds
    made.vertices = (mesh.vertices - (low + high) / 2) * (EXTENT / (high - low).max())
    return made


def sampled(source: str | Path | trimesh.Trimesh, rng: np.random.Generator, points: int = 2048) -> Sampled:
    """Draws points of a mesh's surface.

    Args:
        source: a path or a mesh, as `read.opened` takes it.
        rng: what is drawn with.
        points: N; of parts that lie within others none are drawn.
    Raises: ValueError, in one sentence, if the mesh cannot be read.
    """
    mesh = centred(opened("mesh", source))
    solid = Solid(mesh)
    on, faces, weights = scattered(mesh, rng, 2 * points)
    towards = unit_of(mesh.face_normals[faces])
    first, second = solid.beyond(on, towards), solid.beyond(on, -towards)
    seen = np.flatnonzero((first == OUTSIDE) | (second == OUTSIDE))
    seen = np.resize(seen if len(seen) else np.arange(len(on)), points)
    towards = np.where(((first != OUTSIDE) & (second == OUTSIDE))[:, None], -towards, towards)[seen]
    colours = colours_at(mesh, faces[seen], weights[seen])
    return Sampled(on[seen].astype(np.float32), towards.astype(np.float32), colours)


def scattered(mesh: trimesh.Trimesh, rng: np.random.Generator, count: int) -> tuple[Array, Array, Array]:
    """Points (N, 3) of the surface, even by area, their triangles (N,) and barycentric weights (N, 3)."""
    faces = np.searchsorted(np.cumsum(mesh.area_faces), rng.random(count) * mesh.area_faces.sum())
    faces = faces.clip(0, len(mesh.faces) - 1)
    root, v = np.sqrt(rng.random(count)), rng.random(count)
    weights = np.stack([1 - root, root * (1 - v), root * v], axis=1)
    return np.einsum("nij,ni->nj", mesh.vertices[mesh.faces[faces]], weights), faces, weights


class Solid:
    """The grid of a mesh: which cells its surface meets, which the flood reaches, which are left."""

    def __init__(self, mesh: trimesh.Trimesh) -> None:
        """Takes a mesh that lies within [-1, 1]."""
        corners = np.asarray(mesh.vertices)[mesh.faces]
        low, high = corners.min((0, 1)), corners.max((0, 1))
        self.low = low - 2 * CELL  # two free cells on every side but the floor's
        self.low[1] = low[1]
        self.kinds = np.full(np.ceil((high - self.low) / CELL).astype(int) + 3, INSIDE, np.uint8)
        met = np.floor((lattice(corners, 0.5 * CELL) - self.low) / CELL).astype(np.int32)
        self.kinds[tuple(met.T)] = SURFACE
        parts, _ = ndimage.label(self.kinds != SURFACE)
        self.kinds[parts == parts[0, -1, 0]] = OUTSIDE
        self._fill(corners)

    def _fill(self, corners: Array) -> None:
        """Makes solid what is open below alone, as a sofa without a bottom; not a mere sheet, as a tent."""
        reached = np.zeros(self.kinds.shape, bool)  # by a flood that never rises
        for y in reversed(range(self.kinds.shape[1])):
            free = self.kinds[:, y] == OUTSIDE
            parts, count = ndimage.label(free)
            seeds = np.zeros(count + 1, bool)
            above = reached[:, y + 1] if y + 1 < self.kinds.shape[1] else free
            seeds[parts[free & above]] = seeds[parts[0, 0]] = True
            reached[:, y] = free & seeds[parts]
        parts, _ = ndimage.label((self.kinds == OUTSIDE) & ~reached)
        sizes = np.bincount(parts.ravel())
        for part in np.argsort(-sizes[1:])[:MOST_HOLLOWS] + 1:
            if sizes[part] >= LEAST_HOLLOW:
                cells = np.argwhere(parts == part)
                few = cells[np.linspace(0, len(cells) - 1, 9).astype(int)]
                if np.median(np.abs(winding(corners, self.low + (few + 0.5) * CELL))) > 0.6:
                    self.kinds[tuple(cells.T)] = INSIDE

    def kind(self, points: Array) -> Array:
        """What the cells (N,) of points (N, 3) are."""
        cells = np.floor((points - self.low) / CELL).astype(np.int64)
        free = ((cells < 0) | (cells >= self.kinds.shape)).any(-1)
        return np.where(free, OUTSIDE, self.kinds[tuple(np.where(free[..., None], 0, cells).T)].T)

    def beyond(self, points: Array, towards: Array) -> Array:
        """What is first met past the surface at points (N, 3) on a way (N, 3); INSIDE if nothing is."""
        steps = np.arange(0.5, REACH + 0.25, 0.5) * CELL
        kinds = self.kind(points[:, None] + towards[:, None] * steps[:, None])
        free = kinds != SURFACE
        found = kinds[np.arange(len(points)), free.argmax(1)]
        return np.where(found == SURFACE, INSIDE, found)

    def holds(self, points: Array, surface: Surface) -> tuple[Array, Array, Array]:
        """Whether points (N, 3) are inside; of the nearest surface the triangles and barycentric weights."""
        faces, weights, distance = surface.nearest(points, candidates=8)
        at = np.einsum("nij,ni->nj", surface.corners[faces], weights)
        inside = self.kind(points) == INSIDE
        near = np.flatnonzero(distance < REACH * CELL)
        away = unit_of(points[near] - at[near])
        away = np.where(distance[near, None] > 1e-4, away, surface.normals[faces[near]])
        inside[near] = self.beyond(at[near], away) == INSIDE
        return inside, faces, weights


def lattice(corners: Array, spacing: float) -> Array:
    """Points (N, 3) all over triangles (F, 3, 3), at most `spacing` apart: rows along the longest edge."""
    lengths = np.linalg.norm(corners[:, [1, 2, 0]] - corners, axis=2)
    turn = (lengths.argmax(1)[:, None] + np.arange(3)) % 3
    a, b, c = np.take_along_axis(corners, turn[..., None], 1).transpose(1, 0, 2)
    longest = lengths.max(1)
    height = np.linalg.norm(np.cross(b - a, c - a), axis=1) / np.maximum(longest, 1e-12)
    along = np.ceil(longest / spacing).astype(np.int64) + 1
    counts = along * (np.ceil(height / spacing).astype(np.int64) + 1)
    of = np.repeat(np.arange(len(corners)), counts)
    number = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    row, place = number // along[of], number % along[of]
    rows = counts // along - 1
    u = (place / np.maximum(along - 1, 1)[of])[:, None]
    v = (row / np.maximum(rows, 1)[of])[:, None]
    return (1 - v) * (a[of] + u * (b - a)[of]) + v * c[of]
