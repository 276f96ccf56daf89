"""Meshes from disk or memory, as a user hands them over: one mesh of triangles and the colours it shows.

Every mesh that is not of our models comes in through here: what to finish, to start from, to measure. Colours
are sRGB uint8, per face, per vertex or a texture; those of glTF files are linear and become so here.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import Material, PBRMaterial

from modalities.mesh.glb import NAME, NEEDED, known

Array = NDArray[Any]
SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off", ".npz")
MOST = 2_000_000  # triangles
PLAIN = (190, 190, 190)  # sRGB, of what has no colour
SWATCH, SIDE = 8, 4096  # texels of a flat colour in an atlas, and of the atlas at most
TILES = 4  # repeats of a texture in an atlas, at most

logging.getLogger("trimesh").setLevel(logging.ERROR)


def opened(name: str, source: Any) -> trimesh.Trimesh:
    """The mesh, loaded whole, a scene as one mesh with its transforms applied.

    Args:
        name: what the mesh is for, as an error calls it.
        source: a path (of SUFFIXES; .npz is a shape of the pack), a Trimesh or a Scene.
    Returns: triangles that use every vertex, coloured by face, by vertex or by one texture.
    Raises: ValueError, in one sentence, if it cannot be read or is nothing to see.
    """
    if isinstance(source, (str, Path)):
        shown = f"{name} is {str(source)!r}"
        parts = _file(shown, Path(source))
    elif isinstance(source, trimesh.Trimesh):
        shown, parts = f"{name} is a mesh", [source]
    elif isinstance(source, trimesh.Scene):
        shown, parts = f"{name} is a scene", _parts(source)
    else:
        raise ValueError(f"{name} is a {type(source).__name__}; it must be a path, a Trimesh or a Scene")
    count = sum(len(part.faces) for part in parts)
    if not count:
        raise ValueError(f"{shown}, which holds no triangles; it must hold a surface")
    if count > MOST:
        raise ValueError(f"{shown} of {count} triangles; they must be {MOST} at most")
    for part in parts:
        if not (part.faces.min() >= 0 and part.faces.max() < len(part.vertices)):
            raise ValueError(f"{shown}, whose triangles name vertices that it does not hold; it is broken")
        if not np.isfinite(part.vertices[part.faces]).all():
            raise ValueError(f"{shown}, whose vertices are not all finite; they must be numbers")
    mesh = _joined([_used(part) for part in parts])
    extents = np.ptp(mesh.vertices, axis=0)
    if not np.median(extents) > 1e-6 * extents.max() > 0 or not extents.max() < 1e9 or not mesh.area > 0:
        told = " x ".join(f"{extent:.3g}" for extent in extents)
        raise ValueError(f"{shown}, which measures {told}; it must be a surface with a size")
    return mesh


def colours_at(mesh: trimesh.Trimesh, faces: Array, barycentric: Array) -> Array:
    """The colours of points of the surface, whatever they come from.

    Args:
        mesh: coloured by face, by vertex, by a texture, or not at all (PLAIN).
        faces: (N,) int, the triangle of each point.
        barycentric: (N, 3) float, the weights of its corners.
    Returns: (N, 3) uint8, sRGB; corners blend in linear light, as glTF has it.
    """
    visual = mesh.visual
    if isinstance(visual, TextureVisuals):
        image, factor = _paint(visual.material)
        if image is None or visual.uv is None or not len(visual.uv):
            return np.repeat(encoded(factor)[None], len(faces), axis=0)
        uv = np.einsum("nij,ni->nj", np.asarray(visual.uv)[mesh.faces[faces]], barycentric)
        texels = _texels(np.asarray(image), uv)
        return texels.astype(np.uint8) if (factor == 1).all() else encoded(linear(texels) * factor)
    if visual.kind == "face":
        return np.asarray(visual.face_colors)[faces, :3]
    if visual.kind == "vertex":
        corners = linear(np.asarray(visual.vertex_colors)[:, :3])[mesh.faces[faces]]
        return encoded(np.einsum("nij,ni->nj", corners, barycentric))
    return np.tile(np.array(PLAIN, np.uint8), (len(faces), 1))


def linear(colours: Array) -> Array:
    """Light in [0, 1], float32, of sRGB values in [0, 255]. Source: IEC 61966-2-1."""
    if colours.dtype == np.uint8:
        return _LINEAR[colours]
    s = colours.astype(np.float32) / 255
    return np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4).astype(np.float32)


def encoded(light: Array) -> Array:
    """Values of sRGB, uint8, of light in [0, 1]. Source: IEC 61966-2-1."""
    x = np.clip(light, 0, 1)
    s = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    return np.rint(255 * s).astype(np.uint8)


_S = np.arange(256, dtype=np.float32) / 255
_LINEAR = np.where(_S <= 0.04045, _S / 12.92, ((_S + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _file(shown: str, path: Path) -> list[trimesh.Trimesh]:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{shown}; it must end in one of {', '.join(SUFFIXES)}")
    try:
        if not path.exists():
            raise ValueError(f"{shown}; there is no such file")
        with path.open("rb"):
            pass
    except OSError as error:
        raise ValueError(f"{shown}; it must be a file that can be read ({error.strerror})") from None
    try:
        if suffix == ".npz":
            return [_shape(path)]
        if NAME.encode() in path.read_bytes() and not known():
            raise ValueError(f"it is packed by Draco; {NEEDED}")
        return _parts(trimesh.load_scene(path), suffix in (".glb", ".gltf"))
    except Exception as error:  # a parser meets a broken file with any error at all
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(f"{shown}; it must be a mesh that can be read ({why})") from None


def _shape(path: Path) -> trimesh.Trimesh:
    """A shape of the pack: vertices (V, 3) uint16 over bounds (2, 3), faces (F, 3), colors (F, 3) sRGB."""
    with np.load(path, allow_pickle=False) as file:
        low, high = file["bounds"].astype(np.float64)
        vertices = low + file["vertices"] / 65535 * (high - low)
        faces, colours = file["faces"].astype(np.int64), file["colors"]
    return trimesh.Trimesh(vertices, faces, face_colors=colours, process=False)


def _parts(scene: trimesh.Scene, is_gltf: bool = False) -> list[trimesh.Trimesh]:
    """The scene's meshes where its transforms put them; glTF's colours at vertices are linear."""
    for part in scene.geometry.values() if is_gltf else ():
        visual, colours, factor = part.visual, None, 1.0
        if isinstance(visual, TextureVisuals) and _paint(visual.material)[0] is None:
            colours, factor = visual.vertex_attributes.get("color"), _paint(visual.material)[1]
        elif visual.kind == "vertex":
            colours = visual.vertex_colors
        if colours is not None:
            kind = np.uint16 if colours.dtype == np.uint32 else colours.dtype  # DracoPy makes 16 bits 32
            full = np.iinfo(kind).max if colours.dtype.kind == "u" else 1
            part.visual = ColorVisuals(part, vertex_colors=encoded(colours[:, :3] / full * factor))
    return [part for part in scene.dump() if isinstance(part, trimesh.Trimesh) and len(part.faces)]


def _used(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh without vertices of no triangle, which may be no numbers, and with its colours alone."""
    used = np.zeros(len(mesh.vertices), bool)
    used[mesh.faces] = True
    at = np.cumsum(used) - 1
    made = trimesh.Trimesh(np.asarray(mesh.vertices)[used], at[mesh.faces], process=False)
    visual = mesh.visual
    if isinstance(visual, TextureVisuals):
        image, factor = _paint(visual.material)
        if image is None or visual.uv is None or len(visual.uv) != len(used):
            made.visual = ColorVisuals(made, face_colors=np.tile(encoded(factor), (len(made.faces), 1)))
        else:
            made.visual = TextureVisuals(uv=np.asarray(visual.uv)[used], material=visual.material)
    elif visual.kind == "face":
        made.visual = ColorVisuals(made, face_colors=np.asarray(visual.face_colors))
    elif visual.kind == "vertex":
        made.visual = ColorVisuals(made, vertex_colors=np.asarray(visual.vertex_colors)[used])
    return made


def _joined(parts: list[trimesh.Trimesh]) -> trimesh.Trimesh:
    """One mesh: a texture if any part has one, else colours by vertex if all have them, else by face."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    vertices = np.concatenate([part.vertices for part in parts])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)])
    if any(isinstance(part.visual, TextureVisuals) for part in parts):
        return _atlas(parts)
    if all(part.visual.kind == "vertex" for part in parts):
        colours = {"vertex_colors": np.concatenate([part.visual.vertex_colors for part in parts])}
    else:
        colours = {"face_colors": np.concatenate([face_colours(part) for part in parts])}
    return trimesh.Trimesh(vertices, faces, process=False, **colours)


def face_colours(mesh: trimesh.Trimesh) -> Array:
    """(F, 3) uint8: each triangle's mean of seven points."""
    if mesh.visual.kind == "face":
        return np.asarray(mesh.visual.face_colors)[:, :3]
    weights = np.array([[4, 4, 4], [8, 2, 2], [2, 8, 2], [2, 2, 8], [5, 5, 2], [2, 5, 5], [5, 2, 5]]) / 12
    faces = np.repeat(np.arange(len(mesh.faces)), len(weights))
    colours = linear(colours_at(mesh, faces, np.tile(weights, (len(mesh.faces), 1))))
    return encoded(colours.reshape(len(mesh.faces), len(weights), 3).mean(1))


def _atlas(parts: list[trimesh.Trimesh]) -> trimesh.Trimesh:
    """One mesh with one texture: the parts' pictures beside each other, a swatch for each flat colour."""
    tiles: dict[Any, Array] = {}
    pieces = []  # of each: corners (F, 3, 3), the key of its picture (F,), uv of the corners within it
    for part in parts:
        corners = part.vertices[part.faces]
        if isinstance(part.visual, TextureVisuals):
            image, factor = _paint(part.visual.material)
            uv = np.asarray(part.visual.uv)[part.faces]
            uv = uv - np.floor(uv.min(1, keepdims=True) + 1e-6)
            repeats = np.clip(np.ceil(uv.max((0, 1)) - 1e-6), 1, TILES).astype(int)
            key = (id(part.visual.material), *repeats)
            if key not in tiles:
                pixels = np.asarray(image)
                pixels = pixels if (factor == 1).all() else encoded(linear(pixels) * factor)
                tiles[key] = np.tile(pixels, (repeats[1], repeats[0], 1))
            pieces.append((corners, [key] * len(corners), np.clip(uv / repeats, 0, 1)))
        else:
            colours = face_colours(part)
            keys = [tuple(colour) for colour in colours.tolist()]
            for key in set(keys):
                tiles[key] = np.full((SWATCH, SWATCH, 3), key, np.uint8)
            pieces.append((corners, keys, np.full((len(corners), 3, 2), 0.5)))
    sheet, places = _sheet(tiles)
    high, wide = sheet.shape[:2]
    corners = np.concatenate([piece[0] for piece in pieces]).reshape(-1, 3)
    uv = np.concatenate([piece[2] for piece in pieces])
    left, top, width, height = np.array([places[key] for piece in pieces for key in piece[1]]).T[:, :, None]
    x = left + 0.5 + uv[..., 0] * (width - 1)
    y = top + 0.5 + (1 - uv[..., 1]) * (height - 1)
    at = np.stack([x / wide, 1 - y / high], -1).reshape(-1, 2)
    _, first, inverse = np.unique(
        np.concatenate([corners, at], 1).astype(np.float32), axis=0, return_index=True, return_inverse=True
    )
    visual = TextureVisuals(uv=at[first], material=material(Image.fromarray(sheet)))
    return trimesh.Trimesh(corners[first], inverse.reshape(-1, 3), visual=visual, process=False)


def _sheet(tiles: dict[Any, Array]) -> tuple[Array, dict[Any, tuple[int, int, int, int]]]:
    """Pictures on shelves, the highest first; smaller by half until the sheet is within SIDE."""
    while True:
        area = sum(pixels.shape[0] * pixels.shape[1] for pixels in tiles.values())
        wide = max(int(1.1 * area**0.5), *(pixels.shape[1] for pixels in tiles.values()))
        left = top = shelf = 0
        places = {}
        for key in sorted(tiles, key=lambda key: -tiles[key].shape[0]):
            height, width = tiles[key].shape[:2]
            if left + width > wide:
                left, top, shelf = 0, top + shelf, 0
            places[key] = (left, top, width, height)
            left, shelf = left + width, max(shelf, height)
        if max(wide, top + shelf) <= SIDE:
            break
        tiles = {
            key: np.asarray(Image.fromarray(pixels).reduce(2)) if min(pixels.shape[:2]) > SWATCH else pixels
            for key, pixels in tiles.items()
        }
    sheet = np.zeros((top + shelf, wide, 3), np.uint8)
    for key, (left, top, width, height) in places.items():
        sheet[top : top + height, left : left + width] = tiles[key]
    return sheet, places


def material(image: Image.Image | None, metallic: float = 0.0, roughness: float = 0.9) -> PBRMaterial:
    """A texture as glTF has it: base colour in sRGB, how metallic and how rough."""
    return PBRMaterial(baseColorTexture=image, metallicFactor=metallic, roughnessFactor=roughness)


def _paint(found: Material) -> tuple[Image.Image | None, Array]:
    """The material's picture, RGB, and the light by which it is multiplied, (3,) float."""
    if isinstance(found, PBRMaterial):
        image, factor = found.baseColorTexture, found.baseColorFactor
        light = np.ones(3) if factor is None else np.asarray(factor)[:3] / 255  # linear, as in the file
    else:
        image, factor = getattr(found, "image", None), getattr(found, "diffuse", None)
        light = linear(np.asarray(PLAIN if factor is None else factor, np.float32)[:3])
        light = np.ones(3) if image is not None else light
    return (None if image is None else image.convert("RGB")), light


def _texels(image: Array, uv: Array) -> Array:
    """Bilinear samples (N, 3) float32 in [0, 255] of a repeating picture; v goes up."""
    high, wide = image.shape[:2]
    x, y = uv[:, 0] * wide - 0.5, (1 - uv[:, 1]) * high - 0.5
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, down = (x - left)[:, None].astype(np.float32), (y - top)[:, None].astype(np.float32)
    rows, columns = (top % high, (top + 1) % high), (left % wide, (left + 1) % wide)
    upper = image[rows[0], columns[0]] * (1 - right) + image[rows[0], columns[1]] * right
    lower = image[rows[1], columns[0]] * (1 - right) + image[rows[1], columns[1]] * right
    return np.rint(upper * (1 - down) + lower * down)
