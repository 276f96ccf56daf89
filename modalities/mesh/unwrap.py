"""A surface laid flat: charts that face one way, packed into a square, and the texture baked into it.

A chart grows over triangles that face as it does and is seen along its mean normal, so nothing is solved for;
charts are packed by their outlines, each dropped where it leaves the lowest top (Levy et al. 2002,
doi 10.1145/566654.566590, section 4).
"""

from __future__ import annotations

import heapq

import numpy as np
import trimesh
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from scipy import ndimage
from trimesh.visual import TextureVisuals

from modalities.mesh.read import Array, colours_at, material
from modalities.mesh.surface import Surface, neighbours, parts_of, unit_of, welded

GROWN, SEEN = (
    0.5,
    0.25,
)  # cosines to a chart's mean normal: of triangles it grows over, of any it holds at all
SAMPLES = 300_000  # of a source's surface, to find what is nearest to a texel
TURNS = 12  # of a chart within a quarter turn, to find how it is smallest
ROUNDS = 16  # of looking for triangles under others
BITS = 16  # of a texture coordinate: exact in a file, from above or below, and others, who may round to five
# decimals, take no two for one


def unwrapped(mesh: trimesh.Trimesh, side: int = 1024, padding: int = 2) -> trimesh.Trimesh:
    """The mesh with texture coordinates in [0, 1], each chart's apart from the others'.

    Args:
        mesh: any; the order of its triangles stays, its vertices are split where charts meet.
        side: texels of the texture that they are meant for.
        padding: texels around a chart that no other uses.
    """
    vertices, faces = welded(mesh, whole=True)
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=1) / 2
    normals = unit_of(normals)
    chart = _charts(normals, areas, _adjacent(faces))
    axes = _axes(chart, normals, areas)
    for _ in range(ROUNDS):
        laid, depth = _flat(corners, chart, axes), np.einsum("fij,fj->fi", corners, axes[chart]).mean(1)
        hidden = _hidden(laid, chart, depth)
        if not len(hidden):
            laid = uv = _packed(laid, chart, side, padding)
            hidden = _hidden(uv, chart, depth)
            if not len(hidden):
                break
        pieces = parts_of(faces[hidden], len(vertices))
        thin = _flattened(laid)[hidden]
        pieces[thin] = pieces.max() + 1 + np.arange(thin.sum())
        _, chart[hidden] = np.unique(pieces * len(axes) + chart[hidden], return_inverse=True)
        chart[hidden] += len(axes)
        _, chart = np.unique(chart, return_inverse=True)
        axes = _axes(chart, normals, areas)
    else:
        uv = _packed(_flat(corners, chart, axes), chart, side, padding)
    uv = np.where(_flattened(uv)[:, None, None], uv[:, :1], uv)  # alone: at one place, over none
    keys = np.stack([faces.reshape(-1), np.repeat(chart, 3)], 1)
    kept, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    made = trimesh.Trimesh(vertices[kept[:, 0]], inverse.reshape(-1, 3), process=False)
    made.visual = TextureVisuals(uv=uv.reshape(-1, 2)[first], material=material(None))
    return made


def baked(mesh: trimesh.Trimesh, source: trimesh.Trimesh, side: int = 1024) -> trimesh.Trimesh:
    """The mesh with a texture of the source's colours, at every texel those of its nearest surface.

    Args:
        mesh: with texture coordinates, at the same place as the source.
        source: any mesh with colours.
        side: texels, a power of two.
    """
    uv = getattr(mesh.visual, "uv", None)
    if uv is None:
        raise ValueError("the mesh has no texture coordinates; unwrap it first")
    if side < 16 or side > 8192 or side & (side - 1):
        raise ValueError(f"side is {side}; it must be a power of two, 16 to 8192")
    made = mesh.copy(include_cache=True)
    texels, faces, weights = rasterised(np.asarray(uv)[mesh.faces], side)
    points = np.einsum("nij,ni->nj", np.asarray(mesh.vertices)[mesh.faces[faces]], weights)
    surface = Surface(source, (source.area / SAMPLES) ** 0.5)
    found, at, _ = surface.nearest(points, 3, np.asarray(mesh.face_normals)[faces])
    sheet = np.zeros((side * side, 3), np.uint8)
    known = np.zeros(side * side, bool)
    sheet[texels], known[texels] = colours_at(source, found, at), True
    if not known.all():
        empty = ~known.reshape(side, side)
        rows, columns = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
        sheet = sheet.reshape(side, side, 3)[rows, columns]
    image = Image.fromarray(sheet.reshape(side, side, 3))
    made.visual = TextureVisuals(uv=np.array(uv), material=material(image))
    return made


def rasterised(uv: Array, side: int) -> tuple[Array, Array, Array]:
    """The texels whose middles lie in triangles.

    Args:
        uv: (F, 3, 2) in [0, 1], v upwards.
        side: texels.
    Returns: texel (N,) int, row * side + column from the top; triangle (N,) int; weights (N, 3)
        of its corners.
    """
    x, y, faces, weights = _covered(_texels(uv, side))
    within = (x >= 0) & (x < side) & (y >= 0) & (y < side)
    return (y * side + x)[within], faces[within], weights[within]


def _texels(uv: Array, side: int) -> Array:
    """(F, 3, 2) how far right and down from the first texel's middle."""
    return np.stack([uv[..., 0] * side, (1 - uv[..., 1]) * side], -1) - 0.5


def _covered(points: Array) -> tuple[Array, Array, Array, Array]:
    """Whole x (N,) and y (N,) in triangles (F, 3, 2), which it is (N,), the weights (N, 3) of its corners."""
    low = np.ceil(points.min(1)).astype(np.int64)
    size = np.floor(points.max(1)).astype(np.int64) - low + 1
    counts = size[:, 0] * size[:, 1]
    origin, first, second = points[:, 0], points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    double = first[:, 0] * second[:, 1] - second[:, 0] * first[:, 1]
    some = np.flatnonzero((counts > 0) & (np.abs(double) > 1e-12))
    counts, double = counts[some], double[some, None]
    steps = np.stack([second[some, 1], -second[some, 0], -first[some, 1], first[some, 0]], 1) / double
    face = np.repeat(np.arange(len(some)), counts)
    order = np.arange(len(face)) - np.repeat(np.cumsum(counts) - counts, counts)
    y, x = np.divmod(order, size[some[face], 0])
    start = low[some] - origin[some]
    dx, dy = start[face, 0] + x, start[face, 1] + y
    vx, vy, wx, wy = (column[face] for column in steps.T)
    v, w = vx * dx + vy * dy, wx * dx + wy * dy
    inside = np.flatnonzero((v >= 0) & (w >= 0) & (v + w <= 1))
    face, v, w = some[face[inside]], v[inside], w[inside]
    return x[inside] + low[face, 0], y[inside] + low[face, 1], face, np.stack([1 - v - w, v, w], 1)


def _adjacent(faces: Array) -> Array:
    """(F, 3) the triangle beyond each edge, -1 where there is not just one."""
    first, second = neighbours(faces)
    found = np.full(faces.size, -1)
    found[first], found[second] = second // 3, first // 3
    return found.reshape(-1, 3)


def _charts(normals: Array, areas: Array, adjacent: Array) -> Array:
    """(F,) the number of each triangle's chart: grown from the largest triangles, the best fitting first."""
    chart = [-1] * len(normals)
    nx, ny, nz = (column.tolist() for column in normals.T)
    weight, beyond = areas.tolist(), adjacent.tolist()
    count = 0
    for seed in np.argsort(-areas, kind="stable").tolist():
        if chart[seed] >= 0:
            continue
        x, y, z = nx[seed] * 1e-12, ny[seed] * 1e-12, nz[seed] * 1e-12
        ax, ay, az = nx[seed], ny[seed], nz[seed]
        heap = [(-1.0, seed)]
        while heap:
            _, face = heapq.heappop(heap)
            if chart[face] >= 0 or (face != seed and nx[face] * ax + ny[face] * ay + nz[face] * az < GROWN):
                continue
            chart[face] = count
            x, y, z = x + weight[face] * nx[face], y + weight[face] * ny[face], z + weight[face] * nz[face]
            length = (x * x + y * y + z * z) ** 0.5 or 1.0
            ax, ay, az = x / length, y / length, z / length
            for other in beyond[face]:
                if other >= 0 and chart[other] < 0:
                    cosine = nx[other] * ax + ny[other] * ay + nz[other] * az
                    if cosine >= GROWN:
                        heapq.heappush(heap, (-cosine, other))
        count += 1
    return _merged(np.array(chart), normals, areas, adjacent)


def _merged(chart: Array, normals: Array, areas: Array, adjacent: Array) -> Array:
    """The charts, those that a neighbour can take in whole taken in, the smallest first; none looks away."""
    for _ in range(3):
        axes = _axes(chart, normals, areas)
        faces, sides = np.nonzero(adjacent >= 0)
        a, b = chart[faces], chart[adjacent[faces, sides]]
        pairs, lengths = np.unique(np.stack([a[a != b], b[a != b]], 1), axis=0, return_counts=True)
        if not len(pairs):
            break
        sizes = np.bincount(chart, areas)
        order = np.argsort(chart, kind="stable")
        starts = np.searchsorted(chart[order], np.arange(len(axes) + 1))
        into = np.arange(len(axes))
        ranked = np.lexsort((-lengths, sizes[pairs[:, 0]]))
        fixed = np.zeros(len(axes), bool)
        for small, large in pairs[ranked].tolist():
            if fixed[small] or into[small] != small or into[large] != large or sizes[small] > sizes[large]:
                continue
            if (normals[order[starts[small] : starts[small + 1]]] @ axes[large]).min() >= GROWN - 0.1:
                into[small], fixed[large] = large, True
        if (into == np.arange(len(axes))).all():
            break
        _, chart = np.unique(into[chart], return_inverse=True)
    axes = _axes(chart, normals, areas)
    away = np.flatnonzero((np.einsum("fi,fi->f", normals, axes[chart]) < SEEN) & (areas > 0))
    chart[away] = len(axes) + np.arange(len(away))
    return np.unique(chart, return_inverse=True)[1]


def _axes(chart: Array, normals: Array, areas: Array) -> Array:
    """(C, 3) each chart's mean normal."""
    sums = np.stack([np.bincount(chart, areas * column) for column in normals.T], 1)
    sums[(sums == 0).all(1)] = 0, 1, 0
    return unit_of(sums)


def _flat(corners: Array, chart: Array, axes: Array) -> Array:
    """(F, 3, 2) the corners seen along their chart's axis, each chart upright, as small as may be, from 0."""
    helper = np.where(np.abs(axes[:, :1]) < 0.9, [[1.0, 0, 0]], [[0, 1.0, 0]])
    right = unit_of(np.cross(helper, axes))
    up = np.cross(axes, right)
    x = np.einsum("fij,fj->fi", corners, right[chart])
    y = np.einsum("fij,fj->fi", corners, up[chart])
    best, turned = np.full(len(axes), np.inf), np.zeros(len(axes))
    for angle in np.arange(TURNS) * (np.pi / 2 / TURNS):
        low, high = _ranges(np.cos(angle) * x + np.sin(angle) * y, chart, len(axes))
        bottom, top = _ranges(np.cos(angle) * y - np.sin(angle) * x, chart, len(axes))
        area = (high - low) * (top - bottom)
        turned = np.where(area < best * 0.999, angle + np.pi / 2 * (high - low > top - bottom), turned)
        best = np.minimum(area, best)
    c, s = np.cos(turned)[chart][:, None], np.sin(turned)[chart][:, None]
    flat = np.stack([c * x + s * y, c * y - s * x], -1)
    lows = np.stack([_ranges(flat[..., i], chart, len(axes))[0] for i in (0, 1)], 1)
    return flat - lows[chart][:, None]


def _ranges(values: Array, chart: Array, count: int) -> tuple[Array, Array]:
    """(C,), (C,) the lowest and highest of values (F, 3) in each chart."""
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(low, chart, values.min(1))
    np.maximum.at(high, chart, values.max(1))
    return low, high


def _packed(flat: Array, chart: Array, side: int, padding: int) -> Array:
    """(F, 3, 2) texture coordinates of the charts, all at the largest scale at which they fit.

    Args:
        flat: (F, 3, 2) the charts' corners, each chart's from 0.
        chart: (F,) int.
        side: texels.
        padding: texels around each.
    """
    scale, best = _scale(flat, 0.6 * side * side), None
    low, high = 0.0, np.inf
    for step in range(40):
        places, top = _dropped(flat * scale, chart, side, padding)
        if top <= side:
            low, best = scale, (places, scale)
        else:
            high = scale
        if best is not None and (step > 5 or high / low < 1.04 or 0.95 * side < top <= side):
            break
        scale *= min((side / top) ** 0.6, 0.95) if top > side else (side / top) ** 0.6
        if best is not None and not low * 1.01 < scale < high * 0.99:
            scale = (low * min(high, 2 * low)) ** 0.5
    if best is None:
        raise ValueError(
            f"{chart.max() + 1} charts do not fit into {side} texels a side; decimate the mesh first"
        )
    places, scale = best
    return np.round((flat * scale + places[chart][:, None]) / side * 2**BITS) / 2**BITS


def _dropped(flat: Array, chart: Array, side: int, padding: int) -> tuple[Array, float]:
    """Where each chart's corner goes (C, 2) in texels, the tallest first, and how high they all reach."""
    count = chart.max() + 1
    _, wide = _ranges(flat[..., 0], chart, count)
    _, tall = _ranges(flat[..., 1], chart, count)
    widths = np.floor(wide).astype(np.int64) + 2 + 2 * padding
    if widths.max() > side:
        return np.zeros((count, 2)), side * float(widths.max() / side) ** 1.7
    starts = np.cumsum(widths) - widths
    bottoms, tops = np.full(widths.sum(), np.inf), np.full(widths.sum(), -np.inf)
    begin, end = flat.reshape(-1, 2), flat[:, [1, 2, 0]].reshape(-1, 2)
    ordered = begin[:, :1] <= end[:, :1]
    begin, end = np.where(ordered, begin, end), np.where(ordered, end, begin)
    first, last = np.floor(begin[:, 0]).astype(np.int64), np.floor(end[:, 0]).astype(np.int64)
    spans = last - first + 1
    edge = np.repeat(np.arange(len(first)), spans)
    column = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(spans) - spans, spans)
    run = np.maximum(end[:, 0] - begin[:, 0], 1e-12)
    for x in (column, column + 1):
        share = np.clip((x - begin[edge, 0]) / run[edge], 0, 1)
        y = begin[edge, 1] + share * (end[edge, 1] - begin[edge, 1])
        at = starts[chart[edge // 3]] + column + padding
        np.minimum.at(bottoms, at, y)
        np.maximum.at(tops, at, y)
    bottoms = ndimage.minimum_filter1d(bottoms, 2 * padding + 1) - padding
    tops = ndimage.maximum_filter1d(tops, 2 * padding + 1) + padding
    horizon, places = np.zeros(side), np.zeros((count, 2))
    for number in np.argsort(-tall, kind="stable").tolist():
        width = widths[number]
        part = slice(starts[number], starts[number] + width)
        rest = np.ceil((sliding_window_view(horizon, width) - bottoms[part]).max(1))
        x = int(rest.argmin())
        horizon[x : x + width] = np.maximum(horizon[x : x + width], rest[x] + tops[part])
        places[number] = x + padding, rest[x]
    return places, float(horizon.max())


def _hidden(flat: Array, chart: Array, depth: Array) -> Array:
    """Triangles that lie under another of their chart, as seen along its axis, or are laid upside down.

    Exact for coordinates of 25 bits: not even slivers far thinner than a texel overlap, and triangles touch
    only in corners and edges that they share.
    """
    turned = np.flatnonzero(_flattened(flat) & (np.bincount(chart)[chart] > 1))
    one, other = _meeting(flat, chart)
    apart = np.zeros(len(one), bool)
    for a, b in ((one, other), (other, one)):
        apart |= ((_sides(flat[a], flat[b]) < 0) | _ends(flat[a], flat[b])).all(2).any(1)
    one, other = one[~apart], other[~apart]
    return np.union1d(np.where(depth[one] < depth[other], one, other), turned)


def _flattened(flat: Array) -> Array:
    """(F,) whether triangles (F, 3, 2) have no area, or are laid upside down."""
    first, second = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0] <= 0


def _sides(one: Array, other: Array) -> Array:
    """(N, 3, 3) how far left of each edge of one each corner of the other is, (N, 3, 2), times its length."""
    edge = (one[:, [1, 2, 0]] - one)[:, :, None]
    to = other[:, None] - one[:, :, None]
    return edge[..., 0] * to[..., 1] - edge[..., 1] * to[..., 0]


def _ends(one: Array, other: Array) -> Array:
    """(N, 3, 3) whether each corner of the other (N, 3, 2) is an end of each edge of one (N, 3, 2)."""
    same: Array = (one[:, :, None] == other[:, None]).all(-1)
    return same | same[:, [1, 2, 0]]


def _meeting(flat: Array, chart: Array) -> tuple[Array, Array]:
    """Pairs (N,), (N,) of triangles of one chart whose upright boxes overlap."""
    low, high = flat.min(1), flat.max(1)
    cell = max(float(2 * np.sqrt((high - low).prod(1)).mean()), 1e-12)
    first = np.floor(low / cell).astype(np.int64)
    size = np.floor(high / cell).astype(np.int64) - first + 1
    counts = size.prod(1)
    face = np.repeat(np.arange(len(flat)), counts)
    y, x = np.divmod(np.arange(len(face)) - np.repeat(np.cumsum(counts) - counts, counts), size[face, 0])
    x, y = x + first[face, 0], y + first[face, 1]
    keys = (chart[face] * (y.max() + 1) + y) * (x.max() + 1) + x
    order = np.argsort(keys, kind="stable")
    face, (_, counts) = face[order], np.unique(keys[order], return_counts=True)
    after = np.repeat(np.cumsum(counts), counts) - np.arange(len(face)) - 1  # others behind it in its cell
    start = np.repeat(np.arange(len(face)), after)
    behind = start + 1 + np.arange(len(start)) - np.repeat(np.cumsum(after) - after, after)
    one, other = face[start], face[behind]
    meet = (low[one] < high[other]).all(1) & (low[other] < high[one]).all(1)
    pairs = np.unique(one[meet] * len(flat) + other[meet])
    return np.divmod(pairs, len(flat))


def _scale(flat: Array, texels: float) -> float:
    """What the charts are to be multiplied by to cover so many texels."""
    sides = flat[:, 1:] - flat[:, :1]
    area = np.abs(sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0]).sum() / 2
    return float((texels / max(area, 1e-30)) ** 0.5)
