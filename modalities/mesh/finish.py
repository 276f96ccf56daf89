"""Any mesh becomes one that a shop can put online, step by step.

Each step takes a mesh and gives a new one, and stands alone; `finish` takes them in the order of this file.
"""

from __future__ import annotations

from itertools import pairwise

import fast_simplification
import manifold3d
import numpy as np
import trimesh
from PIL import Image
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import marching_cubes
from trimesh.visual import ColorVisuals, TextureVisuals

from modalities.mesh.read import Array, colours_at
from modalities.mesh.surface import Surface, neighbours, parts_of, unit_of, welded, winding
from modalities.mesh.unwrap import baked, unwrapped

CELLS, FINEST = 2_000_000, 256  # grid points of a repair; of them along an axis, at most
BAND = 0.75  # cells, how far from the surface a repair is drawn first: more than a half, or thin sheets leak
MOSTLY = 0.7  # of the surface belongs to closed parts, or all of it is drawn anew
SHRUNK = 0.03  # of the largest extent, by which decimation must not draw in thin parts
SAFE = (32, 238)  # of the largest channel in sRGB; the auditor asks for 30 to 240
SKIN = 0.001  # of the largest extent, how far from the surface it ends: what an open sheet gets for thickness


def finish(
    mesh: trimesh.Trimesh,
    triangles: int = 20_000,
    height: float | None = None,
    size: float | None = None,
    texture: int = 1024,
    close: bool = True,
    crease: float = 40.0,
) -> trimesh.Trimesh:
    """All steps: closed, without floaters, decimated, unwrapped, with normals and a texture, placed.

    Args:
        mesh: as `read.opened` gives it.
        triangles: at most.
        height: metres.
        size: metres, of the largest extent; give one of the two or neither.
        texture: texels of a side, a power of two; 0 leaves colours by face.
        close: make it watertight; else its surface stays as open as it is.
        crease: degrees, from which on an edge is sharp.
    """
    bare = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    made = decimated(without_floaters(watertight(bare) if close else bare), triangles)
    if texture:
        made = baked(with_normals(unwrapped(made), crease), mesh, texture)
    else:
        made = with_normals(coloured(made, mesh), crease)
    return placed(made, height, size)


def surface_of(field: Array) -> trimesh.Trimesh:
    """The surface of a field, closed, coloured by vertex.

    Args:
        field: (4, R, R, R) float at the centres of cells that fill [-1, 1], x first: above 0 inside, then
            sRGB in [-1, 1]. Where it is nowhere above 0, its highest places are taken as inside.
    """
    inside = np.pad(field[0], 1, constant_values=min(field[0].min(), 0) - 1)
    highest, lowest = float(inside.max()), float(inside.min())
    level = min(0.0, float(np.quantile(inside, 0.999)), highest - 1e-3 * (highest - lowest))
    at, faces, _, _ = marching_cubes(inside, level, gradient_direction="ascent")
    at = at.astype(np.float64) - 1
    colours = [ndimage.map_coordinates(part, at.T, order=1, mode="nearest") for part in field[1:]]
    colours = safe((np.stack(colours, 1).clip(-1, 1) + 1) * 127.5)
    places = (at + 0.5) * (2 / field.shape[1]) - 1
    return trimesh.Trimesh(places, faces, vertex_colors=colours, process=False)


def safe(colours: Array) -> Array:
    """Colours (N, 3), sRGB in [0, 255], as uint8, no darker and no brighter than what reflects light can be.

    Source: the range of base colours that Khronos' asset auditor recommends, of the largest channel.
    """
    brightest = colours.max(1, keepdims=True)
    made = colours * np.minimum(1, SAFE[1] / np.maximum(brightest, 1)) + np.maximum(0, SAFE[0] - brightest)
    return np.rint(made).astype(np.uint8)


def safely(mesh: trimesh.Trimesh) -> None:
    """Brings all colours of a mesh into the range of `safe`: what lies between safe ones may be darker."""
    visual = mesh.visual
    if isinstance(visual, TextureVisuals):
        image = visual.material.baseColorTexture
        texels = np.array(image)
        texels[..., :3] = safe(texels[..., :3].reshape(-1, 3).astype(float)).reshape(*texels.shape[:2], 3)
        visual.material.baseColorTexture = Image.fromarray(texels)
    elif visual.kind is not None:
        kind = f"{visual.kind}_colors"
        colours = np.array(getattr(visual, kind))
        colours[:, :3] = safe(colours[:, :3].astype(float))
        setattr(visual, kind, colours)


def watertight(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """A closed surface, outward, without inner shells.

    One that is a solid already keeps its triangles. Any other is drawn anew around the triangles: what cannot
    be reached from outside is inside, and an open sheet becomes a thin plate.
    """
    vertices, faces = welded(mesh)
    first, second = neighbours(faces)
    part = parts_of(faces, len(vertices))
    sides = np.bincount(np.concatenate([first, second]) // 3, minlength=len(faces))
    whole = (np.bincount(part, sides == 3) == np.bincount(part))[part]
    areas = trimesh.triangles.area(vertices[faces])
    mostly = areas[whole].sum() > MOSTLY * areas.sum()
    solid = _union(_manifold(vertices, faces[whole])) if mostly else None
    if solid is None:
        solid = _shrunk(vertices, faces)
    elif not whole.all():
        solid = solid + _shrunk(vertices, faces[~whole])
    return coloured(_apart(trimesh.Trimesh(*_arrays(solid), process=False)), mesh)


def without_floaters(mesh: trimesh.Trimesh, share: float = 0.005) -> trimesh.Trimesh:
    """The mesh without small parts that are apart from the rest, and without parts inside closed ones.

    Args:
        mesh: any.
        share: of the whole surface, below which a part is small; and of the largest extent, beyond
            which it is apart.
    """
    vertices, faces = welded(mesh, whole=True)
    part = parts_of(faces, len(vertices))
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.bincount(part, np.linalg.norm(normals, axis=1) / 2)
    volumes = np.bincount(part, np.einsum("ni,ni->n", corners[:, 0], normals) / 6)
    inner = _inner(corners, part, np.argsort(-np.abs(volumes)))
    small = (areas < share * areas[~inner].sum()) & ~inner
    if small.any() and not (small | inner).all():
        large = trimesh.Trimesh(vertices, faces[~(small | inner)[part]], process=False)
        extent = np.ptp(large.vertices[large.faces].reshape(-1, 3), axis=0).max()
        rest = Surface(large, extent / 200)
        loose = np.flatnonzero(small[part])
        nearest = np.full(len(small), np.inf)
        np.minimum.at(nearest, np.repeat(part[loose], 3), rest.nearest(corners[loose].reshape(-1, 3), 2)[2])
        small &= nearest > share * extent
    gone = (inner | small)[part]
    return mesh.copy() if not gone.any() or gone.all() else _kept(mesh, ~gone)


def decimated(mesh: trimesh.Trimesh, triangles: int) -> trimesh.Trimesh:
    """The mesh with fewer triangles where it is flattest, as closed as before, coloured by face.

    Args:
        mesh: any; with no more triangles than asked for, it stays as it is.
        triangles: at most; at least 4.
    """
    if triangles < 4:
        raise ValueError(f"triangles is {triangles}; it must be 4 or more")
    if len(mesh.faces) <= triangles:
        return mesh.copy()
    vertices, faces = welded(mesh)
    low, scale = vertices.min(0), np.ptp(vertices, axis=0).max()
    unit = (vertices - low) / scale
    closed = _manifold(unit, faces)
    for tolerance in (1e-4, 3e-4, 1e-3) if closed is not None else ():  # what is flat needs no more
        flat = closed.simplify(tolerance)
        if 0 < flat.num_tri() <= triangles:
            unit, faces = _arrays(flat)
            break
    if len(faces) > triangles:
        fewer = fast_simplification.simplify(unit, faces, target_count=triangles)
        shrunk = np.abs(np.ptp(fewer[0], axis=0) - np.ptp(unit, axis=0)).max() > SHRUNK
        if shrunk and closed is not None:
            other = _closed_again(unit, faces, closed, triangles)
            fewer = other if len(other[1]) <= triangles else fewer
        unit, faces = fewer
    if closed is not None:
        unit, faces = _closed_again(unit, faces, closed, triangles)
    made = trimesh.Trimesh(unit * scale + low, faces, process=False)
    return coloured(made, mesh)


def with_normals(mesh: trimesh.Trimesh, crease: float = 40.0) -> trimesh.Trimesh:
    """The mesh with a normal at each vertex: one where triangles meet smoothly, several across sharp edges.

    Args:
        mesh: any; its texture coordinates and colours stay.
        crease: degrees between two triangles, from which on their edge is sharp.
    """
    vertices, faces = welded(mesh, whole=True)
    corners = vertices[faces]
    sides = corners[:, [1, 2, 0]] - corners
    normals = unit_of(np.cross(sides[:, 0], -sides[:, 2]))
    angles = np.arccos(
        np.clip(np.einsum("fij,fij->fi", unit_of(sides), -unit_of(sides[:, [2, 0, 1]])), -1, 1)
    )
    first, second = neighbours(faces)
    flat = np.einsum("ni,ni->n", normals[first // 3], normals[second // 3]) > np.cos(np.radians(crease))
    first, second = first[flat], second[flat]
    after = np.array([1, 2, 0])
    ends = first // 3 * 3 + after[first % 3], second // 3 * 3 + after[second % 3]
    links = np.concatenate([first, ends[0]]), np.concatenate([ends[1], second])
    _, group = connected_components(coo_array((np.ones(len(links[0])), links), shape=(faces.size,) * 2))
    areas = np.linalg.norm(np.cross(sides[:, 0], sides[:, 2]), axis=1)
    weighted = (normals[:, None] * (angles * areas[:, None])[..., None]).reshape(-1, 3)
    sums = np.stack([np.bincount(group, column) for column in weighted.T], 1)
    keys = np.stack([group, np.asarray(mesh.faces).reshape(-1)], 1)
    kept, inverse = np.unique(keys, axis=0, return_inverse=True)
    return _rebuilt(mesh, kept[:, 1], inverse.reshape(-1, 3), unit_of(sums)[kept[:, 0]])


def placed(mesh: trimesh.Trimesh, height: float | None = None, size: float | None = None) -> trimesh.Trimesh:
    """The mesh with the middle of its floor at the origin.

    Args:
        mesh: any.
        height: metres, along Y.
        size: metres, of the largest extent. Neither leaves it as large as it is.
    """
    if height is not None and size is not None:
        raise ValueError(f"height is {height} and size is {size}; give one of the two")
    for name, value in (("height", height), ("size", size)):
        if value is not None and not 0 < value < 1e6:
            raise ValueError(f"{name} is {value}; it must be metres, above 0")
    made = mesh.copy()
    (left, floor, back), (right, top, front) = mesh.bounds
    extent = top - floor if height is not None else max(mesh.extents)
    if not extent > 0:
        raise ValueError(f"height is {height}; the mesh is flat, so give size")
    wanted = height if height is not None else size
    normals = np.array(mesh.vertex_normals) if "vertex_normals" in mesh._cache else None
    scale = 1.0 if wanted is None else wanted / extent
    made.vertices = (mesh.vertices - [(left + right) / 2, floor, (back + front) / 2]) * scale
    if normals is not None:
        made.vertex_normals = normals
    return made


def detail_levels(mesh: trimesh.Trimesh, count: int, crease: float = 40.0) -> list[trimesh.Trimesh]:
    """The mesh, then ones with a quarter of the triangles each, and half the texture's side if it has one.

    Args:
        mesh: finished.
        count: of meshes, the first of which is `mesh`.
        crease: degrees, as of `with_normals`.
    """
    levels = [mesh]
    for level in range(1, count):
        made = decimated(mesh, max(4, len(mesh.faces) // 4**level))
        if isinstance(mesh.visual, TextureVisuals):
            side = max(64, max(mesh.visual.material.baseColorTexture.size) >> level)
            made = baked(with_normals(unwrapped(made), crease), mesh, side)
        else:
            made = with_normals(made, crease)
        levels.append(made)
    return levels


def coloured(mesh: trimesh.Trimesh, source: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh with the source's colours, by vertex if those are, else by face: of its nearest surface."""
    made = mesh.copy()
    if isinstance(source.visual, ColorVisuals) and source.visual.kind is None:
        return made
    surface = Surface(source, source.extents.max() / 200)
    if source.visual.kind == "vertex":
        found, weights, _ = surface.nearest(mesh.vertices, 3)
        made.visual = ColorVisuals(made, vertex_colors=colours_at(source, found, weights))
    else:
        found, weights, _ = surface.nearest(mesh.vertices[mesh.faces].mean(1), 3)
        made.visual = ColorVisuals(made, face_colors=colours_at(source, found, weights))
    return made


def _union(solid: manifold3d.Manifold | None) -> manifold3d.Manifold | None:
    """The union of a solid's parts, each outward."""
    if solid is None:
        return None
    parts = solid.decompose()
    parts = [part if part.volume() > 0 else _turned(part) for part in parts]
    union = manifold3d.Manifold.batch_boolean(parts, manifold3d.OpType.Add)
    return None if union.is_empty() else union


def _turned(solid: manifold3d.Manifold) -> manifold3d.Manifold:
    """The solid whose surface faces the other way."""
    vertices, faces = _arrays(solid)
    return _manifold(vertices, faces[:, ::-1])


def _shrunk(vertices: Array, faces: Array) -> manifold3d.Manifold:
    """The outside of a band around the triangles, drawn in to SKIN from them."""
    soup = trimesh.Trimesh(vertices, faces, process=False)
    low, extents = vertices.min(0), np.ptp(vertices, axis=0)
    cell = max((np.prod(extents + 0.05 * extents.max()) / CELLS) ** (1 / 3), extents.max() / FINEST)
    surface = Surface(soup, cell / 2)
    low = low - 4 * cell
    shape = np.ceil(extents / cell).astype(int) + 9
    near = np.zeros(shape, bool)
    near[tuple(np.rint((surface.points - low) / cell).astype(int).T)] = True
    near = ndimage.binary_dilation(near, np.ones((3, 3, 3)))
    distance = np.full(shape, 2 * BAND, np.float32)
    distance[near] = surface.nearest(np.argwhere(near) * cell + low)[2] / cell
    labels, _ = ndimage.label(distance > BAND)
    field = np.where((labels == labels[0, 0, 0]) | (distance <= BAND), distance - BAND, -BAND)
    points, triangles, _, _ = marching_cubes(field, 0.0, gradient_direction="descent")
    points = points.astype(np.float64) * cell + low
    found, weights, far = surface.nearest(points, 2)
    at = np.einsum("nij,ni->nj", surface.corners[found], weights)
    skin = SKIN * extents.max()
    points = at + (points - at) * (skin / np.maximum(far, skin))[:, None]
    made = _manifold(points, triangles)
    assert made is not None, "marching cubes give a closed surface"
    return made.simplify(skin / 2)  # flat again where the triangles were


def _manifold(vertices: Array, faces: Array) -> manifold3d.Manifold | None:
    """The mesh as a solid, if it is the border of one."""
    mesh = manifold3d.Mesh64(np.ascontiguousarray(vertices, np.float64), faces.astype(np.uint64))
    found = manifold3d.Manifold(mesh)
    return None if found.status() != manifold3d.Error.NoError or found.is_empty() else found


def _arrays(solid: manifold3d.Manifold) -> tuple[Array, Array]:
    mesh = solid.to_mesh64()
    return np.array(mesh.vert_properties)[:, :3], np.array(mesh.tri_verts).astype(np.int64)


def _closed_again(
    unit: Array, faces: Array, solid: manifold3d.Manifold, triangles: int
) -> tuple[Array, Array]:
    """What decimation has left of a solid in the unit cube, closed again, of `triangles` at most."""
    made = _manifold(unit, faces)
    low, high = 1e-5, 0.1
    start = made if made is not None else solid
    made = start
    while made.num_tri() > triangles and high / low > 1.1:
        middle = (low * high) ** 0.5
        tried = start.simplify(middle)
        if tried.num_tri() <= triangles or tried.is_empty():
            high, made = middle, tried
        else:
            low = middle
    mesh = _apart(trimesh.Trimesh(*_arrays(made), process=False))
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)


def _apart(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh with vertices at one place drawn a little inwards, or its edges would be of four triangles."""
    made = mesh.copy()
    vertices = np.asarray(mesh.vertices)
    for _ in range(3):
        _, inverse, counts = np.unique(np.float32(vertices), axis=0, return_inverse=True, return_counts=True)
        twice = counts[inverse.reshape(-1)] > 1
        if not twice.any():
            break
        normals = np.asarray(made.vertex_normals)
        vertices = vertices - 1e-5 * mesh.extents.max() * normals * twice[:, None]
        made = trimesh.Trimesh(vertices, mesh.faces, process=False)
    return made


def _inner(corners: Array, part: Array, order: Array) -> Array:
    """(P,) which parts are inside another: a closed part winds around all that is looked at of them."""
    count = part.max() + 1
    inner = np.zeros(count, bool)
    if count == 1:
        return inner
    sort = np.argsort(part, kind="stable")
    starts = np.searchsorted(part[sort], np.arange(count + 1))
    groups = [corners[sort[a:b]] for a, b in pairwise(starts)]
    lows = np.array([group.min((0, 1)) for group in groups])
    highs = np.array([group.max((0, 1)) for group in groups])
    for outer in order[:64]:
        if inner[outer]:
            continue
        within = ((lows > lows[outer]) & (highs < highs[outer])).all(1) & ~inner
        for number in np.flatnonzero(within):
            some = groups[number].reshape(-1, 3)
            points = some[:: max(1, len(some) // 8)][:8]
            inner[number] = all(abs(winding(groups[outer], point[None])[0]) > 0.9 for point in points)
    return inner


def _kept(mesh: trimesh.Trimesh, which: Array) -> trimesh.Trimesh:
    """The triangles that are told, with their colours."""
    used, faces = np.unique(mesh.faces[which], return_inverse=True)
    made = _rebuilt(mesh, used, faces.reshape(-1, 3), None)
    if mesh.visual.kind == "face":
        made.visual = ColorVisuals(made, face_colors=np.asarray(mesh.visual.face_colors)[which])
    return made


def _rebuilt(mesh: trimesh.Trimesh, vertices: Array, faces: Array, normals: Array | None) -> trimesh.Trimesh:
    """The mesh with some of its vertices, some of them several times."""
    made = trimesh.Trimesh(np.asarray(mesh.vertices)[vertices], faces, vertex_normals=normals, process=False)
    visual = mesh.visual
    if isinstance(visual, TextureVisuals):
        uv = None if visual.uv is None else np.asarray(visual.uv)[vertices]
        made.visual = TextureVisuals(uv=uv, material=visual.material)
    elif visual.kind == "vertex":
        made.visual = ColorVisuals(made, vertex_colors=np.asarray(visual.vertex_colors)[vertices])
    elif visual.kind == "face" and len(faces) == len(mesh.faces):
        made.visual = ColorVisuals(made, face_colors=np.asarray(visual.face_colors))
    return made
