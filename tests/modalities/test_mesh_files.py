"""Pictures of meshes, and their files: what is drawn where, what a file holds when it is read again."""

import io
import json
import re
import struct
import sys
from math import pi

import numpy as np
import pytest
import trimesh
from PIL import Image
from pytest import approx
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial

from modalities.mesh import MeshRequest, adapter
from modalities.mesh import save as saving
from modalities.mesh.page import VIEWER
from modalities.mesh.read import linear, material, opened
from modalities.mesh.render import FILLED, focal, render, thumbnail, turntable, views
from modalities.mesh.save import SUFFIXES, restore, save

RED, GREEN, BLUE = (200, 30, 20), (40, 180, 50), (30, 60, 210)
ASKED = {"prompt": 'a "red" chair 🪑 </script>', "seed": 7}
SETTINGS = {"suite": "0.1.0", "modality": "mesh", "request": ASKED}


def quad(z=0.0, colour=RED):
    """A square of side 1 that looks to the front."""
    corners = [[-0.5, 0, z], [0.5, 0, z], [0.5, 1, z], [-0.5, 1, z]]
    return trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], face_colors=[[*colour, 255]] * 2, process=False)


def crate():
    """A box 1 x 0.5 x 0.25 on the floor: red in front, green to the right, blue elsewhere."""
    box = trimesh.creation.box((1, 0.5, 0.25))
    box.apply_translation([0, 0.25, 0])
    normals = box.face_normals.copy()
    colours = np.where(normals[:, [2]] > 0.9, RED, np.where(normals[:, [0]] > 0.9, GREEN, BLUE))
    return trimesh.Trimesh(box.vertices, box.faces, face_colors=colours.astype(np.uint8), process=False)


def ball(radius=0.5, subdivisions=4):
    made = trimesh.creation.icosphere(subdivisions, radius)
    return trimesh.Trimesh(made.vertices, made.faces, process=False)


def textured(image=None):
    """A square with a picture on it, whose red grows to the right and whose green grows downward."""
    made = quad()
    ramp = np.linspace(0, 255, 256).astype(np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[None], ramp[:, None], np.uint8(255)), -1)
    painted = material(image or Image.fromarray(pixels))
    visual = TextureVisuals([[0, 0], [1, 0], [1, 1], [0, 1]], material=painted)
    return trimesh.Trimesh(made.vertices, made.faces, visual=visual, process=False)


def nearest_colour(pixel):
    """Which of the three it is, whatever the light."""
    return (RED, GREEN, BLUE)[int(pixel[:3].argmax())]


def pixel_of(point, pose, side):
    """Where a pinhole camera of this pose shows a point: row and column."""
    x, y, z = np.linalg.inv(pose)[:3] @ [*point, 1]
    return side / 2 + focal(side) * y / z, side / 2 - focal(side) * x / z


def tree(data):
    """The JSON and the binary part of a GLB."""
    length = struct.unpack("<I", data[12:16])[0]
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def values(data, name):
    """An attribute of a GLB's only mesh."""
    found, binary = tree(data)
    accessor = found["accessors"][found["meshes"][0]["primitives"][0]["attributes"][name]]
    view = found["bufferViews"][accessor["bufferView"]]
    kind = {5126: "<f4", 5123: "<u2", 5121: "u1"}[accessor["componentType"]]
    raw = np.frombuffer(binary[view["byteOffset"] :][: view["byteLength"]], kind)
    return raw.reshape(accessor["count"], -1)


@pytest.fixture
def short(monkeypatch):
    """Turntables of few frames."""
    monkeypatch.setattr(saving, "FRAMES", 4)


def test_a_ball_fills_the_picture_as_a_disc():
    picture = thumbnail(ball(), 200)
    cover = picture[..., 3] / 255
    assert cover.sum() == approx(pi / 4 * (FILLED * 200) ** 2, rel=0.01)
    rows, columns = np.nonzero(cover > 0.5)
    for places in (rows, columns):
        assert (places.min() + places.max()) / 2 == approx(99.5, abs=1.5)


def test_edges_are_smooth_and_the_ground_is_transparent():
    cover = thumbnail(ball(), 64)[..., 3]
    assert cover[0, 0] == 0 and cover[32, 32] == 255 and {64, 128, 191} <= set(np.unique(cover).tolist())


def test_the_nearest_surface_is_seen_from_either_side():
    both = trimesh.util.concatenate([quad(0.1, RED), quad(-0.1, BLUE)])
    for yaw, colour in ((0, RED), (180, BLUE)):
        assert nearest_colour(render(both, 64, 64, yaw, 0)[32, 32]) == colour


@pytest.mark.parametrize("yaw, colour", [(0, RED), (-90, GREEN), (90, BLUE), (180, BLUE)])
def test_yaw_turns_the_mesh_about_its_height_and_0_shows_the_front(yaw, colour):
    assert nearest_colour(render(crate(), 64, 64, yaw, 10)[34, 32]) == colour


def test_pitch_looks_from_above():
    top = trimesh.Trimesh(crate().vertices, crate().faces, process=False)
    top.visual.face_colors = np.where(crate().face_normals[:, [1]] > 0.9, RED, BLUE).astype(np.uint8)
    assert nearest_colour(render(top, 64, 64, 0, 80)[32, 32]) == RED
    assert nearest_colour(render(top, 64, 64, 0, -80)[32, 32]) == BLUE


def test_the_camera_s_pose_says_where_every_corner_is():
    places = (([1, 2, 0], RED), ([0, 0.2, 1], GREEN), ([-1, 1, -1], BLUE))
    cubes = [trimesh.creation.box((0.1, 0.1, 0.1)) for _ in places]
    for cube, (place, colour) in zip(cubes, places, strict=True):
        cube.apply_translation(place)
        cube.visual.face_colors = [*colour, 255]
    for picture, pose in views(trimesh.util.concatenate(cubes), 5, 200, 15):
        for place, colour in places:
            row, column = pixel_of(place, pose, 200)
            assert nearest_colour(picture[int(row), int(column)]) == colour
        assert pose[:3, :3] @ pose[:3, :3].T == approx(np.eye(3), abs=1e-12)


def test_a_texture_is_seen_in_perspective():
    picture, pose = next(iter(views(textured(), 1, 256, 60)))
    for x, y in ((-0.4, 0.1), (0.3, 0.2), (0.0, 0.5), (-0.2, 0.9), (0.4, 0.8)):
        row, column = (int(place) for place in pixel_of((x, y, 0), pose, 256))
        light = linear(picture[row, column, :3])
        shares = light[:2] / light[2]  # of what falls on it, for the texture's blue is full
        assert shares == approx(linear(np.array([255 * (x + 0.5), 255 * (1 - y)])), abs=0.03)


def test_a_fine_texture_seen_from_afar_is_its_mean():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    picture = render(textured(Image.fromarray(stripes)), 32, 32, 0, 0)
    inside = picture[8:24, 8:24, 0].astype(int)
    assert np.ptp(inside) <= 2 and 100 < inside.mean() < 200


def test_a_turntable_is_framed_alike_from_every_side():
    tops = [np.flatnonzero(picture[..., 3].any(1)) for picture in turntable(ball(), 7, 96)]
    assert len(tops) == 7 and len({(rows[0], rows[-1]) for rows in tops}) == 1
    mesh = crate()
    mesh.apply_translation([3, 0, -2])
    pictures, poses = zip(*views(mesh, 8, 96), strict=True)
    assert not any(picture[[0, -1], :, 3].any() or picture[:, [0, -1], 3].any() for picture in pictures)
    middle = mesh.bounds.mean(0)
    away = [np.linalg.norm((pose[:3, 3] - middle)[[0, 2]]) for pose in poses]
    assert np.ptp(away) < 1e-9 and np.ptp([pose[1, 3] for pose in poses]) < 1e-9


def test_light_comes_from_above_and_white_stays_below_white():
    white = ball()
    white.visual.face_colors = [255, 255, 255, 255]
    picture = thumbnail(white, 64)
    solid = picture[..., 3] == 255
    assert int(picture[16, 32, 0]) > int(picture[52, 32, 0]) + 40
    assert picture[solid][:, 0].max() > 235 and (picture[solid][:, 0] == 255).mean() < 0.05


@pytest.mark.parametrize("ending", SUFFIXES)
def test_saving_changes_nothing_but_the_file(tmp_path, short, ending):
    if ending == ".usdz":
        pytest.importorskip("pxr")
    mesh = crate()
    before = mesh.vertices.copy(), mesh.faces.copy(), mesh.visual.face_colors.copy()
    (tmp_path / f"a{ending}").write_bytes(b"old")
    save(mesh, tmp_path / f"a{ending}", SETTINGS, 32)
    for old, new in zip(before, (mesh.vertices, mesh.faces, mesh.visual.face_colors), strict=True):
        assert (old == new).all()
    beside = {"a.mtl", "a_texture.png"} if ending == ".obj" else set()
    assert {path.name for path in tmp_path.iterdir()} == {f"a{ending}"} | beside
    assert (tmp_path / f"a{ending}").stat().st_size > 100


def test_a_glb_holds_linear_colours_normals_and_a_material(tmp_path):
    save(crate(), tmp_path / "a.glb", {})
    data = (tmp_path / "a.glb").read_bytes()
    found, _ = tree(data)
    colours, normals = values(data, "COLOR_0"), values(data, "NORMAL")
    wanted = np.rint(65535 * linear(np.array([RED, GREEN, BLUE], np.uint8)))
    assert {tuple(row) for row in colours[:, :3].tolist()} == {tuple(row) for row in wanted.tolist()}
    front = colours[:, :3] == wanted[0]
    assert (normals[front.all(1)] == [0, 0, 1]).all() and (colours[:, 3] == 65535).all()
    assert found["materials"][0]["pbrMetallicRoughness"] == {"metallicFactor": 0.0, "roughnessFactor": 0.9}
    assert {view["target"] for view in found["bufferViews"]} == {34962, 34963}
    assert "extras" not in found["asset"]


@pytest.mark.parametrize("mesh, both", [(quad(), True), (crate(), False)])
def test_only_an_open_surface_is_seen_from_both_sides(tmp_path, mesh, both):
    save(mesh, tmp_path / "a.glb", {})
    assert tree((tmp_path / "a.glb").read_bytes())[0]["materials"][0]["doubleSided"] is both


def test_a_glb_keeps_the_texture_and_where_it_lies(tmp_path):
    mesh = textured()
    save(mesh, tmp_path / "a.glb", SETTINGS)
    again = opened("input", tmp_path / "a.glb")
    assert again.visual.uv[again.faces] == approx(mesh.visual.uv[mesh.faces], abs=1e-6)
    pictures = [np.asarray(one.visual.material.baseColorTexture.convert("RGB")) for one in (mesh, again)]
    assert (pictures[0] == pictures[1]).all()
    found = tree((tmp_path / "a.glb").read_bytes())[0]
    assert set(found["meshes"][0]["primitives"][0]["attributes"]) == {"POSITION", "NORMAL", "TEXCOORD_0"}


def test_a_material_that_is_no_pbr_does_not_come_out_metallic(tmp_path):
    mesh = textured()
    mesh.visual.material = trimesh.visual.material.SimpleMaterial(image=mesh.visual.material.baseColorTexture)
    save(mesh, tmp_path / "a.glb", {})
    painted = tree((tmp_path / "a.glb").read_bytes())[0]["materials"][0]["pbrMetallicRoughness"]
    assert painted["metallicFactor"] == 0 and "baseColorTexture" in painted


def test_a_colour_without_a_texture_is_the_mesh_s(tmp_path):
    mesh = quad()
    mesh.visual = TextureVisuals(material=PBRMaterial(baseColorFactor=[255, 0, 0, 255]))
    save(mesh, tmp_path / "a.glb", {})
    assert (values((tmp_path / "a.glb").read_bytes(), "COLOR_0") == [65535, 0, 0, 65535]).all()


@pytest.mark.parametrize("ending", [".obj", ".ply", ".stl", ".glb"])
def test_shape_and_colours_are_there_when_a_file_is_read_again(tmp_path, ending):
    save(crate(), tmp_path / f"my crate{ending}", SETTINGS)
    again = opened("input", tmp_path / f"my crate{ending}")
    assert again.area == approx(crate().area, rel=1e-5) and again.bounds == approx(crate().bounds, abs=1e-6)
    front = again.triangles_center[:, 2] > 0.12
    assert front.sum() == 2
    if ending != ".stl":
        picture = render(again, 32, 32, 0, 0)
        assert picture[16, 16].tolist() == approx(render(crate(), 32, 32, 0, 0)[16, 16].tolist(), abs=2)


@pytest.mark.parametrize("ending", [".glb", ".png", ".html", ".mp4", ".gif", ".webp"])
def test_settings_come_back(tmp_path, ending, short):
    save(crate(), tmp_path / f"a{ending}", SETTINGS, 32)
    assert restore(tmp_path / f"a{ending}") == ASKED


@pytest.mark.parametrize("content, told", [
    (None, "does not exist"),
    (b"", "carries no settings"),
    (b"glTF", "is no file whose settings can be read"),
    (b"glTF" + bytes(8) + struct.pack("<I", 4) + b"BIN\0....", "its first chunk is no JSON"),
    (b"glTF" + bytes(8) + struct.pack("<I", 2) + b"JSON[]", "is no file whose settings can be read"),
    (b"\x89PNG\r\n\x1a\n", "is no file whose settings can be read"),
    (b"\xff\xfe<html>", "carries no settings"),
])  # fmt: skip
def test_a_file_without_settings_is_told_in_one_sentence(tmp_path, content, told):
    if content is not None:
        (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=told):
        restore(tmp_path / "a")


@pytest.mark.parametrize("ending", [".glb", ".png", ".html", ".mp4", ".gif", ".webp"])
def test_a_file_saved_without_settings_has_none(tmp_path, ending, short):
    save(crate(), tmp_path / f"a{ending}", {}, 32)
    with pytest.raises(ValueError, match="carries no settings"):
        restore(tmp_path / f"a{ending}")


def test_another_ending_or_an_odd_side_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"its ending must be one of \.glb, \.usdz"):
        save(crate(), tmp_path / "a.fbx", {})
    with pytest.raises(ValueError, match=r"side is 33; it must be an even number of pixels \(try 32\)"):
        save(crate(), tmp_path / "a.mp4", {}, 33)
    assert not list(tmp_path.iterdir())


def test_a_page_holds_all_it_needs_and_nothing_can_break_out_of_it(tmp_path):
    save(crate(), tmp_path / "a.html", SETTINGS, 32)
    text = (tmp_path / "a.html").read_text("utf-8")
    assert text.count("</script") == 1 and "<title>a &quot;red&quot; chair 🪑 &lt;/script&gt;</title>" in text
    assert not re.search(r"(src|href|poster)=\"(?!data:)", text.split("<script")[0])
    assert "default-src 'none'" in text and "sourceMappingURL" not in text
    assert "customElements" in VIEWER.read_text("utf-8")


def test_usdz_says_metres_and_up_and_needs_usd_core(tmp_path, monkeypatch):
    pxr = pytest.importorskip("pxr")
    from pxr import Usd, UsdGeom

    save(crate(), tmp_path / "a.usdz", SETTINGS)
    stage = Usd.Stage.Open(str(tmp_path / "a.usdz"))
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1 and UsdGeom.GetStageUpAxis(stage) == "Y"
    box = UsdGeom.BBoxCache(0, ["default"]).ComputeWorldBound(stage.GetDefaultPrim()).ComputeAlignedRange()
    assert np.array([box.min, box.max]) == approx(crate().bounds, abs=1e-6)
    monkeypatch.setitem(sys.modules, pxr.__name__, None)
    with pytest.raises(ImportError, match="needs usd-core: pip install"):
        save(crate(), tmp_path / "b.usdz", {})
    assert [path.name for path in tmp_path.iterdir()] == ["a.usdz"]


@pytest.mark.parametrize("look", ["texture", "colours"])
def test_a_glb_packed_by_draco_is_small_and_is_read_as_before(tmp_path, monkeypatch, look):
    pytest.importorskip("DracoPy")
    mesh = trimesh.creation.icosphere(subdivisions=4)
    if look == "texture":
        picture = Image.radial_gradient("L").convert("RGB")
        mesh.visual = TextureVisuals(mesh.vertices[:, :2] / 2 + 0.5, material=material(picture))
    else:
        mesh.visual = ColorVisuals(mesh, vertex_colors=np.rint(mesh.vertices * 100 + 128).astype(np.uint8))
    settings = {**SETTINGS, "request": {**ASKED, "draco": True}}
    save(mesh, tmp_path / "plain.glb", SETTINGS)
    save(mesh, tmp_path / "packed.glb", settings)
    assert (tmp_path / "packed.glb").stat().st_size < 0.3 * (tmp_path / "plain.glb").stat().st_size
    assert restore(tmp_path / "packed.glb") == settings["request"]
    plain, packed = (opened("mesh", tmp_path / f"{name}.glb") for name in ("plain", "packed"))
    assert packed.bounds == approx(plain.bounds, abs=1e-4) and packed.volume == approx(plain.volume, rel=1e-3)
    pictures = [render(each, 64, 64, 30, 20).astype(int) for each in (plain, packed)]
    assert np.abs(pictures[0] - pictures[1]).mean() < 1
    monkeypatch.setitem(sys.modules, "DracoPy", None)
    with pytest.raises(ValueError, match=r"packed by Draco; that takes DracoPy \(pip install"):
        opened("mesh", tmp_path / "packed.glb")
    with pytest.raises(ImportError, match="is to be packed by Draco; that takes DracoPy"):
        save(mesh, tmp_path / "again.glb", settings)
    with pytest.raises(ValueError, match="draco is true; that takes DracoPy"):
        adapter.check(MeshRequest(prompt="a chair", draco=True))


def test_a_palette_gives_every_face_its_colour():
    mesh = ball(0.5, 3)
    colours = np.random.default_rng(0).integers(0, 256, (len(mesh.faces), 3), dtype=np.uint8)
    mesh.visual.face_colors = colours
    made = saving._palette(saving.shaded(mesh))
    image = made.visual.material.baseColorTexture
    uv = made.visual.uv[made.faces].mean(1)
    at = (uv * [1, -1] + [0, 1]) * image.size
    assert (np.asarray(image)[at[:, 1].astype(int), at[:, 0].astype(int)] == colours).all()
    assert image.width == image.height and image.width & image.width - 1 == 0


@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_a_turntable_that_loops_for_ever(tmp_path, short, ending):
    save(crate(), tmp_path / f"a{ending}", {}, 48)
    with Image.open(tmp_path / f"a{ending}") as film:
        assert film.size == (48, 48) and film.n_frames == 4 and film.info["loop"] == 0
        film.seek(1)
        film.load()
        assert film.info["duration"] == 1000 // saving.FPS
        corner = film.convert("RGBA").getpixel((0, 0))
    assert corner[3] == 0 if ending == ".webp" else corner == approx((245, 245, 245, 255), abs=3)


def test_an_mp4_has_every_frame_and_its_colours(tmp_path, short):
    from imageio_ffmpeg import read_frames

    save(crate(), tmp_path / "a.mp4", SETTINGS, 64)
    told, *frames = read_frames(str(tmp_path / "a.mp4"))
    assert told["size"] == (64, 64) and told["fps"] == saving.FPS and len(frames) == 4
    first = np.frombuffer(frames[0], np.uint8).reshape(64, 64, 3).astype(int)
    ground = Image.new("RGB", (64, 64), (saving.GREY,) * 3)
    drawn = Image.fromarray(next(turntable(crate(), 4, 64)))
    ground.paste(drawn, mask=drawn)
    assert first[30:36, 30:36].mean((0, 1)) == approx(drawn.getpixel((32, 32))[:3], abs=3)
    assert np.abs(first - np.asarray(ground).astype(int)).mean() < 6


def test_the_poster_of_a_page_is_the_mesh(tmp_path):
    import base64

    save(crate(), tmp_path / "a.html", {}, 32)
    found = re.search(r"poster=\"data:image/png;base64,([^\"]+)", (tmp_path / "a.html").read_text("utf-8"))
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as poster:
        assert (np.asarray(poster) == thumbnail(crate(), 32)).all()
