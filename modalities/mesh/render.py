"""Pictures of a mesh, with neither a GPU nor a display: every triangle's spans of pixels, the nearest on top.

On a line of the picture, a triangle covers one span, and 1 / depth is linear along it, as are the barycentric
coordinates divided by depth. F faces, V vertices, N pixels that show something.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trimesh import Trimesh
from trimesh.visual import TextureVisuals

from modalities.mesh.read import colours_at, encoded, linear

YAW, PITCH = 30.0, 22.0  # degrees: from in front, the front turned to the right, from above
FIELD = 30.0  # degrees, of the camera, from the picture's bottom to its top
FILLED = 0.94  # of the picture's width or height, by what is to be seen
FINER = 2  # subpixels a pixel, across and down
SKY, GROUND, KEY, FILL = 0.44, 0.22, 0.5, 0.12  # light from above, from below, of the lamp, from the camera
LAMP = np.array([-0.45, 0.75, 0.55]) / np.linalg.norm([-0.45, 0.75, 0.55])  # above, to the left, in front
_RINGS, _SPOKES = 64, 24

Array = NDArray[Any]


def render(mesh: Trimesh, width: int, height: int, yaw: float = YAW, pitch: float = PITCH) -> Array:
    """The mesh as a camera sees it whose distance is the same for every yaw.

    Args:
        mesh: with any colours; without normals of its own, they are made.
        width: pixels.
        height: pixels.
        yaw: degrees by which the mesh is turned about its height; 0 shows its front (+Z).
        pitch: degrees from above.
    Returns: (height, width, 4) uint8, sRGB and coverage, on a transparent ground.
    """
    return _drawn(shaded(mesh), width, height, camera(_swept(mesh), width / height, yaw, pitch))


def thumbnail(mesh: Trimesh, side: int = 512, yaw: float = YAW, pitch: float = PITCH) -> Array:
    """(side, side, 4) uint8: as `render`, but the mesh fills the picture."""
    return _drawn(shaded(mesh), side, side, camera(mesh.vertices[mesh.faces].reshape(-1, 3), 1, yaw, pitch))


def turntable(mesh: Trimesh, frames: int = 60, side: int = 512, pitch: float = PITCH) -> Iterator[Array]:
    """Pictures of one whole turn, each (side, side, 4) uint8; the one after the last is the first."""
    return (picture for picture, _ in views(mesh, frames, side, pitch))


def views(mesh: Trimesh, count: int, side: int, pitch: float = PITCH) -> Iterator[tuple[Array, Array]]:
    """Pictures from `count` cameras, evenly spaced round the mesh; the first sees its front.

    Args:
        mesh: as for `render`.
        count: of pictures.
        side: of each, in pixels; `focal(side)` is the cameras' focal length, their centre is the picture's.
        pitch: degrees from above.
    Yields: a picture (side, side, 4) uint8, and its camera's pose (4, 4) float64: from its axes (x to the
        right, y up, looking along -z) to the mesh's.
    """
    mesh, points = shaded(mesh), _swept(mesh)
    for index in range(count):
        pose = camera(points, 1, 360 * index / count, pitch)
        yield _drawn(mesh, side, side, pose), pose


def focal(height: int) -> float:
    """The cameras' focal length in pixels of a picture that is so high."""
    return float(height / 2 / np.tan(np.radians(FIELD / 2)))


def camera(points: Array, aspect: float, yaw: float, pitch: float) -> Array:
    """The pose of the camera that sees all points, and they fill its picture.

    In its axes, each asks for |x - cx| <= t (cz - z), where t is half the picture's width at distance 1: so
    cz >= (max(tz + x) + max(tz - x)) / 2t, and cx is half their difference.

    Args:
        points: (N, 3).
        aspect: the picture's width / height.
        yaw: degrees by which the points are turned about +Y.
        pitch: degrees from above.
    Returns: (4, 4), from the camera's axes to those of the points.
    """
    turn, tilt = np.radians([yaw, pitch])
    about_y = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    axes = about_x @ about_y
    seen = points @ axes.T
    half = FILLED * np.tan(np.radians(FIELD / 2)) * np.array([aspect, 1])
    ahead, behind = (half * seen[:, 2:] + seen[:, :2]).max(0), (half * seen[:, 2:] - seen[:, :2]).max(0)
    pose = np.eye(4)
    pose[:3, :3] = axes.T
    pose[:3, 3] = axes.T @ [*(ahead - behind) / 2, ((ahead + behind) / (2 * half)).max()]
    return pose


def shaded(mesh: Trimesh) -> Trimesh:
    """The mesh with normals: its own if it has some, made otherwise."""
    if "vertex_normals" in mesh._cache:  # as trimesh's exporters ask
        return mesh
    from modalities.mesh.finish import with_normals

    return with_normals(mesh)


def _swept(mesh: Trimesh) -> Array:
    """Points that hold the mesh between them however it is turned about its height: rings round its axis."""
    points = mesh.vertices[np.unique(mesh.faces)]
    low, high = points.min(0), points.max(0)
    middle = (low + high) / 2
    radius = np.hypot(points[:, 0] - middle[0], points[:, 2] - middle[2])
    rise = max(high[1] - low[1], 1e-9) / _RINGS
    slab = ((points[:, 1] - low[1]) / rise).astype(int).clip(0, _RINGS - 1)
    reach = np.zeros(_RINGS)
    np.maximum.at(reach, slab, radius)
    used = np.flatnonzero(np.bincount(slab, minlength=_RINGS))
    angles = np.arange(_SPOKES) * 2 * np.pi / _SPOKES
    around = np.array([np.sin(angles), 0 * angles, np.cos(angles)]).T / np.cos(np.pi / _SPOKES)
    rings = reach[used, None, None] * around
    heights = np.array([middle[0], 0, middle[2]]) + np.outer(low[1] + rise * used, [0, 1, 0])[:, None]
    return np.concatenate([rings + heights, rings + heights + [0, rise, 0]]).reshape(-1, 3)


def _drawn(mesh: Trimesh, width: int, height: int, pose: Array) -> Array:
    """The mesh, which has normals, as the camera of a pose sees it: (height, width, 4) uint8."""
    across, down = FINER * width, FINER * height
    x, y, z = ((mesh.vertices - pose[:3, 3]) @ pose[:3, :3]).T
    near = focal(down) / -z
    places = np.array([across / 2 + x * near, down / 2 - y * near, near / focal(down)]).T[mesh.faces]
    planes, sizes = _planes(places)
    pixels, faces = _seen(places, planes, across, down)
    rows, columns = np.divmod(pixels, across)
    shares = np.einsum("nij,nj->ni", planes[faces], np.array([columns + 0.5, rows + 0.5, 1 + 0 * rows]).T)
    shares = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
    colours = colours_at(_reduced(mesh, faces, sizes), faces, shares)
    light = linear(colours) * _light(mesh, faces, shares, pose)
    total = np.zeros((height * width, 4), np.float32)
    pixel = rows // FINER * width + columns // FINER
    for channel in range(3):
        total[:, channel] = np.bincount(pixel, light[:, channel], len(total))
    total[:, 3] = np.bincount(pixel, minlength=len(total))
    colours = encoded(total[:, :3] / np.maximum(total[:, 3:], 1))
    cover = np.rint(total[:, 3:] * (255 / FINER**2)).astype(np.uint8)
    return np.concatenate([colours, cover], 1).reshape(height, width, 4)


def _planes(places: Array) -> tuple[Array, Array]:
    """Each corner's barycentric coordinate over depth as a function of the place (x, y, 1).

    Args:
        places: (F, 3 corners, 3): x and y in subpixels, 1 / depth.
    Returns: (F, 3 corners, 3), zero for a face that is seen edge on; and the faces' areas in subpixels (F,).
    """
    (ax, ay), (bx, by), (cx, cy) = (places[:, corner, :2].T for corner in range(3))
    double = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    made = np.array([
        [by - cy, cx - bx, bx * cy - by * cx],
        [cy - ay, ax - cx, cx * ay - cy * ax],
        [ay - by, bx - ax, ax * by - ay * bx],
    ]).transpose(2, 0, 1)  # fmt: skip
    edge_on = np.abs(double) < 1e-9
    made *= (places[:, :, 2] / np.where(edge_on, np.inf, double)[:, None])[:, :, None]
    return made, np.abs(double) / 2


def _seen(places: Array, planes: Array, across: int, down: int) -> tuple[Array, Array]:
    """The subpixels that show something, row by row, and the face that each shows: (N,) both."""
    tops, bottoms = places[:, :, 1].min(1), places[:, :, 1].max(1)
    first = np.ceil(tops - 0.5).astype(int).clip(0, down)
    lines = (np.ceil(bottoms - 0.5).astype(int).clip(0, down) - first) * planes.any((1, 2))
    face = np.repeat(np.arange(len(places)), lines)
    row = np.arange(len(face)) - np.repeat(np.cumsum(lines) - lines - first, lines)

    middle = row + 0.5
    left, right = np.full(len(face), np.inf), np.full(len(face), -np.inf)
    for start, stop in ((0, 1), (1, 2), (2, 0)):
        (ax, ay), (bx, by) = places[face, start, :2].T, places[face, stop, :2].T
        meets = (ay <= middle) != (by <= middle)
        cut = ax + (middle - ay) * (bx - ax) / np.where(meets, by - ay, 1)
        left = np.where(meets, np.minimum(left, cut), left)
        right = np.where(meets, np.maximum(right, cut), right)
    begin = np.ceil(left - 0.5).clip(0, across).astype(int)
    length = (np.ceil(right - 0.5).clip(0, across) - begin).astype(int).clip(0)

    slope = planes.sum(1)[face]  # of 1 / depth
    nearness = (slope * np.array([begin + 0.5, middle, 1 + 0 * middle]).T).sum(1)
    along = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    depth = np.repeat(nearness.astype(np.float32), length)
    depth += np.repeat(slope[:, 0].astype(np.float32), length) * along.astype(np.float32)
    pixel = np.repeat(row * across + begin, length) + along
    nearest = np.zeros(down * across, np.int64)  # a positive float's bits are in its order
    np.maximum.at(nearest, pixel, depth.view(np.int32).astype(np.int64) << 32 | np.repeat(face, length))
    shown = np.flatnonzero(nearest)
    return shown, nearest[shown] & 0xFFFFFFFF


def _light(mesh: Trimesh, faces: Array, shares: Array, pose: Array) -> Array:
    """How much light falls on what is seen: (N, 1) float32; the lamp goes with the camera."""
    corners = mesh.vertices[mesh.faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    away = ((corners[:, 0] - pose[:3, 3]) * flat).sum(1) > 0  # the back of an open surface is lit as well
    level = pose[:3, :3].copy()  # the camera's axes without its pitch
    level[:, 1] = [0, 1, 0]
    level[:, 2] = np.cross(level[:, 0], level[:, 1])
    normals = (mesh.vertex_normals @ level).astype(np.float32)
    normals = normals[mesh.faces] * np.where(away, -1, 1).astype(np.float32)[:, None, None]
    found = np.einsum("nc,ncd->nd", shares, normals[faces])
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)
    toward = (level.T @ pose[:3, 2]).astype(np.float32)
    lamp, camera = (found @ LAMP.astype(np.float32)).clip(0), (found @ toward).clip(0)
    sky = GROUND + (SKY - GROUND) * (0.5 + 0.5 * found[:, 1])
    return (sky + KEY * lamp + FILL * camera)[:, None]


def _reduced(mesh: Trimesh, faces: Array, sizes: Array) -> Trimesh:
    """The mesh with a texture that has no more texels than half of the seen faces have subpixels."""
    visual = mesh.visual
    uv, painted = getattr(visual, "uv", None), getattr(visual, "material", None)
    image = getattr(painted, "baseColorTexture", None)
    if uv is None or image is None:
        return mesh
    (ax, ay), (bx, by), (cx, cy) = (uv[mesh.faces[:, corner]].T for corner in range(3))
    texels = np.abs((bx - ax) * (cy - ay) - (by - ay) * (cx - ax)) / 2 * image.width * image.height
    by = int(np.sqrt(np.median(texels[faces] / sizes[faces])).clip(1, min(image.size)))
    if by == 1:
        return mesh
    made = Trimesh(mesh.vertices, mesh.faces, vertex_normals=mesh.vertex_normals, process=False)
    painted = painted.copy()
    painted.baseColorTexture = image.reduce(by)
    made.visual = TextureVisuals(uv, material=painted)
    return made
