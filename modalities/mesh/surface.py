"""Where a point is nearest to a surface: what colours, distances and repairs are carried over by."""

from __future__ import annotations

import numpy as np
import trimesh
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from modalities.mesh.read import Array

PACE = np.array([0.7548776662466927, 0.5698402909980532])  # of the R2 sequence, Roberts 2018
MOST = 2_000_000  # samples


class Surface:
    """Points all over a mesh's surface in a tree."""

    def __init__(self, mesh: trimesh.Trimesh, spacing: float) -> None:
        """Takes points about `spacing` apart, and one of each triangle at least."""
        self.corners = np.asarray(mesh.vertices)[mesh.faces]
        edges = self.corners[:, [1, 2, 0]] - self.corners
        self.spacing, normals = spacing, np.cross(edges[:, 0], edges[:, 1])
        self.normals, areas = unit_of(normals), np.linalg.norm(normals, axis=1) / 2
        wanted = areas / spacing**2 + np.linalg.norm(edges, axis=2).max(1) / spacing
        wanted *= min(1, MOST / max(wanted.sum(), 1))
        counts = np.ceil(wanted).astype(np.int64).clip(1)
        self.faces = np.repeat(np.arange(len(counts)), counts)
        order = np.arange(len(self.faces)) - np.repeat(np.cumsum(counts) - counts, counts)
        u, v = ((1 / 3 + order[:, None] * PACE) % 1).T
        fold = u + v > 1
        u, v = np.where(fold, 1 - u, u)[:, None], np.where(fold, 1 - v, v)[:, None]
        a, b, c = self.corners[self.faces].transpose(1, 0, 2)
        self.points = a + u * (b - a) + v * (c - a)
        self.tree = cKDTree(self.points, leafsize=16, balanced_tree=False, compact_nodes=False)

    def nearest(
        self, points: Array, candidates: int = 1, normals: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """The nearest points of the surface.

        Args:
            points: (N, 3) float.
            candidates: triangles to choose from, each by a sample of it that is near.
            normals: (N, 3) float, unit; of triangles about as near, one that faces this way is taken.
        Returns: triangle (N,) int, barycentric (N, 3) and distance (N,) float.
        """
        _, found = self.tree.query(points, candidates, workers=-1)
        best: list[Array] = []
        for column in found.reshape(len(points), candidates).T:
            faces = self.faces[column]
            weights = barycentric(self.corners[faces], points)
            at = np.einsum("nij,ni->nj", self.corners[faces], weights)
            distance = np.linalg.norm(points - at, axis=1)
            cost = distance
            if normals is not None:
                cost = distance + self.spacing * (1 - np.einsum("ni,ni->n", self.normals[faces], normals))
            new = [cost, faces, weights, distance]
            if best:
                lower = cost < best[0]
                new = [
                    np.where(lower if a.ndim == 1 else lower[:, None], a, b)
                    for a, b in zip(new, best, strict=True)
                ]
            best = new
        return best[1], best[2], best[3]


def barycentric(corners: Array, points: Array) -> Array:
    """The weights (N, 3) of the corners (N, 3, 3) at each triangle's nearest point to a point (N, 3)."""
    a, b, c = corners.transpose(1, 0, 2)
    ab, ac, ap = b - a, c - a, points - a
    d1, d2 = np.einsum("ni,ni->n", ab, ap), np.einsum("ni,ni->n", ac, ap)
    aa, bb, cross = (
        np.einsum("ni,ni->n", ab, ab),
        np.einsum("ni,ni->n", ac, ac),
        np.einsum("ni,ni->n", ab, ac),
    )
    double = np.maximum(aa * bb - cross * cross, 1e-300)
    v, w = (bb * d1 - cross * d2) / double, (aa * d2 - cross * d1) / double
    weights = np.stack([1 - v - w, v, w], 1)
    out = np.flatnonzero((weights < 0).any(1) | (double <= 1e-14 * aa * bb))
    if not len(out):
        return weights
    p, best = points[out], np.full(len(out), np.inf)
    edges = np.zeros((len(out), 3))
    for i, j in ((0, 1), (1, 2), (2, 0)):
        start, along = corners[out, i], corners[out, j] - corners[out, i]
        length = np.maximum(np.einsum("ni,ni->n", along, along), 1e-300)
        t = np.clip(np.einsum("ni,ni->n", p - start, along) / length, 0, 1)
        distance = ((p - start - t[:, None] * along) ** 2).sum(1)
        nearer = np.flatnonzero(distance < best)
        best[nearer] = distance[nearer]
        edges[nearer] = 0
        edges[nearer, i], edges[nearer, j] = 1 - t[nearer], t[nearer]
    weights[out] = edges
    return weights


def welded(mesh: trimesh.Trimesh, whole: bool = False) -> tuple[Array, Array]:
    """Vertices (V, 3), each place once, faces (F, 3); unless whole, without those that are no triangles."""
    places, at = np.unique(np.asarray(mesh.vertices) + 0.0, axis=0, return_inverse=True)
    faces = at.reshape(-1)[mesh.faces]
    if whole:
        return places, faces
    a, b, c = faces.T
    return places, faces[(a != b) & (b != c) & (c != a)]


def parts_of(faces: Array, vertices: int) -> Array:
    """(F,) the number of the part that a triangle belongs to."""
    links = np.concatenate([faces[:, 0], faces[:, 1]]), np.concatenate([faces[:, 1], faces[:, 2]])
    _, of = connected_components(coo_array((np.ones(len(links[0])), links), shape=(vertices, vertices)))
    return np.unique(of[faces[:, 0]], return_inverse=True)[1]


def winding(corners: Array, points: Array) -> Array:
    """(N,) how often triangles (F, 3, 3) wind around points (N, 3): 1 inside a closed outward surface.

    Source: van Oosterom and Strackee 1983, IEEE Transactions on Biomedical Engineering 30, equation 8.
    """
    found = np.empty(len(points))
    for i, point in enumerate(points):
        a, b, c = (corners - point).transpose(1, 0, 2)
        la, lb, lc = (np.linalg.norm(x, axis=1) for x in (a, b, c))
        top = np.einsum("ni,ni->n", a, np.cross(b, c))
        bottom = la * lb * lc + (a * b).sum(1) * lc + (b * c).sum(1) * la + (c * a).sum(1) * lb
        found[i] = np.arctan2(top, bottom).sum() / (2 * np.pi)
    return found


def neighbours(faces: Array) -> tuple[Array, Array]:
    """The corners (E,), (E,) at which an edge begins in each of its two triangles: 3 * face + corner.

    Only edges that exactly two triangles run along, in opposite directions.
    """
    start, end = faces.reshape(-1).astype(np.int64), faces[:, [1, 2, 0]].reshape(-1).astype(np.int64)
    base = max(start.max(), end.max()) + 1
    edge = np.minimum(start, end) * base + np.maximum(start, end)
    order = np.argsort(edge, kind="stable")
    _, begins, counts = np.unique(edge[order], return_index=True, return_counts=True)
    begins = begins[counts == 2]
    first, second = order[begins], order[begins + 1]
    opposite = start[first] == end[second]
    return first[opposite], second[opposite]


def unit_of(vectors: Array) -> Array:
    """Vectors (..., 3) of length 1; those of no length stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-30)
