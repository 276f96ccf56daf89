"""Meshes on disk with the settings that drew them: for shops, AR and print, as web pages, pictures and films.

GLB carries the settings as JSON in `asset.extras`, PNG in a text chunk, a page in the GLB that it holds, MP4
and GIF in their comment, WebP in XMP. Lengths are metres and +Y is up in every format.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from trimesh import Trimesh
from trimesh.exchange import gltf, obj, ply, stl
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial

from modalities.image.save import KEY
from modalities.mesh.glb import chunks, packed
from modalities.mesh.page import GLB, page
from modalities.mesh.read import face_colours, linear, material
from modalities.mesh.render import shaded, thumbnail, turntable, views
from modalities.video.read import BROKEN, on_ground
from modalities.video.save import Clip, carried
from modalities.video.save import save as film
from suite import __version__
from suite.storage import replacing

SIDE, FRAMES, FPS = 512, 80, 20  # of pictures in pixels; of turntables
GREY = 245
GROUND = f"rgb({GREY},{GREY},{GREY})"  # behind turntables in formats that are not transparent
SWATCH, ROUGH = 4, 0.9  # texels of a palette's colour, each way; roughness of what has no material


@dataclass(frozen=True, eq=False)
class Model:
    """A finished mesh, which carries its settings to where it is saved.

    Attributes:
        mesh: in metres, +Y up.
        levels: the same with fewer triangles, saved beside it as -lod1, -lod2, ...
        settings: what made it, as `Result.settings` holds them.
        metallic: 0 to 1.
        roughness: 0 to 1.
        side: of pictures and turntables, in pixels.
    """

    mesh: Trimesh
    levels: Sequence[Trimesh] = ()
    settings: dict[str, Any] | None = None
    metallic: float = 0.0
    roughness: float = ROUGH
    side: int = SIDE

    def save(self, path: str | Path) -> None:
        """Saves with settings; pictures, pages and turntables are of the finest level alone."""
        path, told = Path(path), self.settings or {}
        shapes = [self.mesh, *self.levels] if path.suffix.lower() in SHAPES else [self.mesh]
        for level, mesh in enumerate(shapes):
            place = path.with_stem(f"{path.stem}-lod{level}") if level else path
            save(with_material(mesh, self.metallic, self.roughness), place, told, self.side)

    def picture(self, side: int = 256) -> Image.Image:
        """What it looks like, (side, side) RGB."""
        return Image.fromarray(on_ground(thumbnail(self.mesh, side)[None], GROUND)[0])


def with_material(mesh: Trimesh, metallic: float, roughness: float) -> Trimesh:
    """The mesh with another surface of the same colours."""
    made, look = _textured(mesh), {"metallicFactor": metallic, "roughnessFactor": roughness}
    if made is None:
        made = mesh.copy(include_cache=True)
    else:
        image = made.visual.material.baseColorTexture
        made = _with(mesh, TextureVisuals(made.visual.uv, material=material(image, metallic, roughness)))
    made.metadata["look"] = look
    return made


def save(mesh: Trimesh, path: Path, settings: Mapping[str, Any], side: int = SIDE) -> None:
    """Writes a mesh, beside its place, then renamed; an OBJ has its .mtl and _texture.png beside it.

    Args:
        mesh: in metres, +Y up; without normals of its own, they are made.
        path: its ending says the format: one of `SUFFIXES`.
        settings: as `Result.settings` holds them, or {}.
        side: of pictures and turntables, in pixels, an even number.
    Raises: ValueError for another ending or an odd side; ImportError for .usdz where there is no usd-core.
    """
    ending = path.suffix.lower()
    if ending not in SUFFIXES:
        raise ValueError(f"output is {str(path)!r}; its ending must be one of {', '.join(SUFFIXES)}")
    if side < 2 or side % 2:
        raise ValueError(f"side is {side}; it must be an even number of pixels (try {max(2, side // 2 * 2)})")
    mesh = shaded(mesh)
    if ending in TURNS:
        film(_turn(mesh, side, ending), path, settings, lossless=False)
        return
    with replacing(path) as part:
        _WRITERS[ending](mesh, part, settings, side)


def restore(path: Path) -> dict[str, Any]:
    """The request a saved GLB, page, picture or turntable carries.

    Raises: ValueError if the file cannot be read or carries no settings of ours.
    """
    try:
        settings = _settings(path)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except (*BROKEN, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no file whose settings can be read: {error}") from None
    asked = settings.get("request") if isinstance(settings, dict) else None
    if not isinstance(asked, dict):
        raise ValueError(f"{path} carries no settings of diffusion-suite")
    return asked


def glb(mesh: Trimesh, settings: Mapping[str, Any]) -> bytes:
    """A binary glTF 2.0 file: one mesh of one material, with normals, and a texture or vertex colours.

    Vertex colours are linear there, of 16 bits; what is not closed is seen from both sides.
    """
    mesh = shaded(mesh)
    look = mesh.metadata.get("look", {"metallicFactor": 0.0, "roughnessFactor": ROUGH})
    made, name = _textured(mesh), _title(settings)
    if made is None:
        made = _split(mesh)
        light = np.rint(65535 * linear(made.visual.vertex_colors[:, :3])).astype(np.uint16)
        made.visual = ColorVisuals()
        made.vertex_attributes["COLOR_0"] = np.pad(light, ((0, 0), (0, 1)), constant_values=65535)

    def finished(tree: dict[str, Any]) -> None:
        tree["asset"] |= {"generator": f"diffusion-suite {__version__}"}
        if settings:
            tree["asset"]["extras"] = {KEY: dict(settings)}
        tree["nodes"], tree["scenes"] = [{"name": name, "mesh": 0}], [{"nodes": [0]}]
        primitive = tree["meshes"][0]["primitives"][0]
        tree["meshes"] = [{"name": name, "primitives": [primitive]}]
        attributes = primitive["attributes"]
        if "_COLOR_0" in attributes:  # trimesh writes colours of 8 bits, and any other attribute as it is
            attributes["COLOR_0"] = attributes.pop("_COLOR_0")
            tree["accessors"][attributes["COLOR_0"]]["normalized"] = True
            tree["materials"] = [{"pbrMetallicRoughness": look}]
            primitive["material"] = 0
        tree["materials"][0] |= {"name": name, "doubleSided": not closed(mesh)}
        for place in (primitive["indices"], *attributes.values()):
            view = tree["bufferViews"][tree["accessors"][place]["bufferView"]]
            view["target"] = 34963 if place == primitive["indices"] else 34962

    found: bytes = gltf.export_glb(made, include_normals=True, tree_postprocessor=finished)
    return found


def _glb(mesh: Trimesh, part: Path, settings: Mapping[str, Any], side: int) -> None:
    data = glb(mesh, settings)
    part.write_bytes(packed(data) if settings.get("request", {}).get("draco") else data)


def _page(mesh: Trimesh, part: Path, settings: Mapping[str, Any], side: int) -> None:
    poster = io.BytesIO()
    Image.fromarray(thumbnail(mesh, side)).save(poster, "PNG")
    part.write_text(page(glb(mesh, settings), _title(settings), poster.getvalue()), "utf-8")


def _png(mesh: Trimesh, part: Path, settings: Mapping[str, Any], side: int) -> None:
    info, count = PngInfo(), settings.get("request", {}).get("sides", 1)
    if settings:
        info.add_text(KEY, json.dumps(settings))
    shown = [thumbnail(mesh, side)] if count == 1 else [picture for picture, _ in views(mesh, count, side)]
    columns = math.ceil(count**0.5)
    shown += [np.zeros_like(shown[0])] * (-count % columns)
    rows = [np.concatenate(shown[i : i + columns], 1) for i in range(0, len(shown), columns)]
    Image.fromarray(np.concatenate(rows)).save(part, "PNG", pnginfo=info)


def _obj(mesh: Trimesh, part: Path, settings: Mapping[str, Any], side: int) -> None:
    path = part.with_name(part.name[1:].rsplit(".", 2)[0])  # what `replacing` makes of it
    made, name = _textured(mesh) or _palette(mesh), path.stem.replace(" ", "_")  # no reader takes a space
    text, _ = obj.export_obj(made, True, return_texture=True, mtl_name=f"{name}.mtl", header=None)
    look = f"newmtl material_0\nKd 1 1 1\nKs 0 0 0\nmap_Kd {name}_texture.png\n"
    with replacing(path.with_name(f"{name}_texture.png")) as picture:
        made.visual.material.baseColorTexture.save(picture, "PNG")
    with replacing(path.with_name(f"{name}.mtl")) as described:
        described.write_text(look, "utf-8")
    part.write_text(text, "utf-8")


def _ply(mesh: Trimesh, part: Path, settings: Mapping[str, Any], side: int) -> None:
    part.write_bytes(ply.export_ply(_split(mesh), vertex_normal=True))


def _stl(mesh: Trimesh, part: Path, settings: Mapping[str, Any], side: int) -> None:
    part.write_bytes(stl.export_stl(mesh))


def _usdz(mesh: Trimesh, part: Path, settings: Mapping[str, Any], side: int) -> None:
    """A package for AR: one mesh and its texture; colours become a palette, for viewers show no others."""
    try:
        from pxr import Sdf, Usd, UsdGeom, UsdShade, UsdUtils, Vt
    except ImportError:
        raise ImportError("writing .usdz needs usd-core: pip install 'diffusion-suite[usd]'") from None
    made = _textured(mesh) or _palette(mesh)
    painted = made.visual.material
    with tempfile.TemporaryDirectory() as folder:
        painted.baseColorTexture.save(f"{folder}/colour.png")
        stage = Usd.Stage.CreateNew(f"{folder}/model.usdc")
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        root = UsdGeom.Xform.Define(stage, "/Model")
        Usd.ModelAPI(root).SetKind("component")
        stage.SetDefaultPrim(root.GetPrim())
        stage.SetMetadata("comment", _title(settings))
        shape = UsdGeom.Mesh.Define(stage, "/Model/Mesh")
        points = made.vertices.astype(np.float32)
        shape.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(points))
        shape.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(made.faces.astype(np.int32).ravel()))
        shape.CreateFaceVertexCountsAttr(Vt.IntArray(len(made.faces), 3))
        shape.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(made.vertex_normals.astype(np.float32)))
        shape.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
        shape.CreateExtentAttr(Vt.Vec3fArray.FromNumpy(np.array([points.min(0), points.max(0)])))
        shape.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
        shape.CreateDoubleSidedAttr(not closed(mesh))
        where = UsdGeom.PrimvarsAPI(shape).CreatePrimvar(
            "st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex
        )
        where.Set(Vt.Vec2fArray.FromNumpy(made.visual.uv.astype(np.float32)))
        look = UsdShade.Material.Define(stage, "/Model/Material")
        surface, texture, reader = (
            UsdShade.Shader.Define(stage, f"/Model/Material/{name}")
            for name in ("Surface", "Colour", "Place")
        )
        reader.CreateIdAttr("UsdPrimvarReader_float2")
        reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
        texture.CreateIdAttr("UsdUVTexture")
        texture.CreateInput("file", Sdf.ValueTypeNames.Asset).Set("colour.png")
        texture.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set("sRGB")
        for wrap in ("wrapS", "wrapT"):
            texture.CreateInput(wrap, Sdf.ValueTypeNames.Token).Set("repeat")
        texture.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(
            reader.CreateOutput("result", Sdf.ValueTypeNames.Float2)
        )
        surface.CreateIdAttr("UsdPreviewSurface")
        for name, factor in (("metallic", painted.metallicFactor), ("roughness", painted.roughnessFactor)):
            share = surface.CreateInput(name, Sdf.ValueTypeNames.Float)
            share.Set(1.0 if factor is None else float(factor))  # as glTF has it
        surface.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f).ConnectToSource(
            texture.CreateOutput("rgb", Sdf.ValueTypeNames.Float3)
        )
        look.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", Sdf.ValueTypeNames.Token))
        UsdShade.MaterialBindingAPI.Apply(shape.GetPrim()).Bind(look)
        stage.Save()
        package = Path(folder, "model.usdz")
        if not UsdUtils.CreateNewARKitUsdzPackage(Sdf.AssetPath(f"{folder}/model.usdc"), str(package)):
            raise ValueError("usd-core could not pack the mesh as .usdz; save it as .glb")
        part.write_bytes(package.read_bytes())


def _turn(mesh: Trimesh, side: int, ending: str) -> Clip:
    """A turntable, before a grey ground in films and GIFs."""
    frames = np.stack(list(turntable(mesh, FRAMES, side)))
    return Clip(frames if ending == ".webp" else on_ground(frames, GROUND), FPS)


_WRITERS = {
    ".glb": _glb, ".usdz": _usdz, ".obj": _obj, ".ply": _ply, ".stl": _stl, ".html": _page, ".png": _png,
}  # fmt: skip
TURNS = (".mp4", ".gif", ".webp")
SUFFIXES = (*_WRITERS, *TURNS)
SHAPES = (".glb", ".usdz", ".obj", ".ply", ".stl")


def _title(settings: Mapping[str, Any]) -> str:
    return " ".join(settings.get("request", {}).get("prompt", "").split())[:100] or "mesh"


def closed(mesh: Trimesh) -> bool:
    """Whether the surface has no border, where vertices that lie together are one."""
    return bool(Trimesh(mesh.vertices, mesh.faces).is_watertight)


def _textured(mesh: Trimesh) -> Trimesh | None:
    """The mesh with its texture as a PBR material, if it has one."""
    visual = mesh.visual
    if visual.kind != "texture" or visual.uv is None:
        return None
    found = visual.material
    if not isinstance(found, PBRMaterial):
        found = None if getattr(found, "image", None) is None else material(found.image)
    if found is None or found.baseColorTexture is None:
        return None
    return _with(mesh, TextureVisuals(visual.uv, material=found))


def _with(mesh: Trimesh, visual: Any) -> Trimesh:
    made = Trimesh(mesh.vertices, mesh.faces, vertex_normals=mesh.vertex_normals, process=False)
    made.visual = visual
    return made


def _split(mesh: Trimesh) -> Trimesh:
    """The mesh with colours by vertex; vertices between faces of different colours are several."""
    if mesh.visual.kind == "vertex":
        return _with(mesh, ColorVisuals(vertex_colors=mesh.visual.vertex_colors))
    colours = face_colours(mesh).astype(np.int64)
    numbers = np.repeat(colours @ [1 << 16, 1 << 8, 1], 3)
    _, first, places = np.unique(mesh.faces.ravel() << 24 | numbers, return_index=True, return_inverse=True)
    corners = mesh.faces.ravel()[first]
    normals = mesh.vertex_normals[corners]
    made = Trimesh(mesh.vertices[corners], places.reshape(-1, 3), vertex_normals=normals, process=False)
    made.visual = ColorVisuals(made, vertex_colors=colours[first // 3].astype(np.uint8))
    return made


def _palette(mesh: Trimesh) -> Trimesh:
    """The mesh with a texture that holds its faces' colours, for formats without colours of their own."""
    mesh = _split(_with(mesh, ColorVisuals(face_colors=face_colours(mesh))))
    colours, which = np.unique(mesh.visual.vertex_colors[:, :3], axis=0, return_inverse=True)
    side = 1 << int(np.ceil(np.log2(len(colours)) / 2))
    swatches = np.zeros((side * side, 3), np.uint8)
    swatches[: len(colours)] = colours
    image = swatches.reshape(side, side, 3).repeat(SWATCH, 0).repeat(SWATCH, 1)
    row, column = np.divmod(which.ravel(), side)
    uv = np.array([column + 0.5, side - 0.5 - row]).T / side
    return _with(mesh, TextureVisuals(uv, material=material(Image.fromarray(image), roughness=ROUGH)))


def _settings(path: Path) -> Any:
    """What a GLB, a page, a picture or a turntable holds as settings, or None."""
    data = path.read_bytes()
    if data.startswith((b"\x89PNG", b"GIF8", b"RIFF")) or data[4:8] == b"ftyp":
        return carried(path)
    if data[:4] != b"glTF":
        found = re.search(re.escape(GLB).encode() + rb"([A-Za-z0-9+/=]+)", data)
        if found is None:
            return None
        data = base64.b64decode(found[1])
    return chunks(data)[0]["asset"].get("extras", {}).get(KEY)
