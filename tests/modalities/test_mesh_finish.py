import json

import numpy as np
import pytest
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from modalities.mesh.finish import (
    coloured,
    decimated,
    detail_levels,
    finish,
    placed,
    watertight,
    with_normals,
    without_floaters,
)
from modalities.mesh.read import colours_at, encoded, face_colours, linear, opened
from modalities.mesh.surface import Surface, winding
from modalities.mesh.unwrap import baked, rasterised, unwrapped

RED, GREEN, BLUE = (200, 30, 30), (30, 160, 40), (20, 40, 220)


def box(extents=(1, 1, 1), at=(0, 0, 0), colour=RED):
    mesh = trimesh.creation.box(extents)
    mesh.apply_translation(at)
    mesh.visual.face_colors = np.tile((*colour, 255), (len(mesh.faces), 1))
    return mesh


def ball(radius=1.0, subdivisions=3, at=(0, 0, 0), halves=(RED, BLUE)):
    mesh = trimesh.creation.icosphere(subdivisions, radius)
    left = mesh.triangles_center[:, 0] < 0
    mesh.visual.face_colors = np.where(left[:, None], (*halves[0], 255), (*halves[1], 255))
    mesh.apply_translation(at)
    return mesh


def table():
    """A top of 2% and legs of 3% of its width, each of open sides without a lid, as found."""
    parts = [box((1, 0.02, 0.6), (0, 0.5, 0), GREEN)]
    for x in (-0.45, 0.45):
        for z in (-0.25, 0.25):
            leg = box((0.03, 0.5, 0.03), (x, 0.25, z))
            leg.update_faces(np.abs(leg.face_normals[:, 1]) < 0.5)
            parts.append(leg)
    return trimesh.util.concatenate(parts)


def is_closed(mesh):
    """Whether the mesh is closed once vertices at one place are one."""
    places, at = np.unique(np.asarray(mesh.vertices), axis=0, return_inverse=True)
    return trimesh.Trimesh(places, at.reshape(-1)[mesh.faces], process=False).is_watertight


def ways(mesh):
    """(colour, share of the surface) of a mesh's face colours."""
    colours, inverse = np.unique(face_colours(mesh), axis=0, return_inverse=True)
    shares = np.bincount(inverse.reshape(-1), mesh.area_faces) / mesh.area
    return {tuple(c): s for c, s in zip(colours.tolist(), shares.tolist(), strict=True)}


def texture(colours=((RED, GREEN), (BLUE, RED)), side=32):
    """Squares of colours, the first row on top."""
    return Image.fromarray(np.kron(np.array(colours, np.uint8), np.ones((side, side, 1), np.uint8)))


def plate(image, factor=None, at=0.0):
    """A square [0, 1] x [0, 1] that shows a picture upright."""
    corners = np.array([[0, 0, at], [1, 0, at], [1, 1, at], [0, 1, at]], float)
    material = PBRMaterial(baseColorTexture=image, baseColorFactor=factor)
    visual = TextureVisuals(uv=corners[:, :2], material=material)
    return trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)


def seen(mesh, points):
    """The colours at the surface's nearest points."""
    found, weights, _ = Surface(mesh, 0.01).nearest(np.array(points, float), 4)
    return colours_at(mesh, found, weights)


# reading


def test_a_shape_of_the_pack_is_read_over_its_bounds_with_its_colours(tmp_path):
    path = tmp_path / "shape.npz"
    np.savez(
        path,
        vertices=np.array([[0, 0, 0], [65535, 0, 0], [0, 65535, 0], [0, 0, 65535]], np.uint16),
        bounds=np.array([[-1, 0, 2], [1, 4, 3]], np.float32),
        faces=np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.uint16),
        colors=np.array([RED, RED, GREEN, BLUE], np.uint8),
    )
    mesh = opened("input", path)
    assert mesh.bounds.tolist() == [[-1, 0, 2], [1, 4, 3]]
    assert face_colours(mesh).tolist() == [list(RED), list(RED), list(GREEN), list(BLUE)]


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply", ".off", ".stl"])
def test_files_of_each_kind_give_the_surface_that_was_written(tmp_path, suffix):
    box((1, 2, 3)).export(tmp_path / f"box{suffix}")
    mesh = opened("input", str(tmp_path / f"box{suffix}"))
    assert mesh.extents == pytest.approx([1, 2, 3]) and len(mesh.faces) == 12


def test_a_scene_is_one_mesh_with_its_transforms_applied():
    scene = trimesh.Scene()
    scene.add_geometry(box(colour=RED))
    scene.add_geometry(box(colour=BLUE), transform=trimesh.transformations.translation_matrix([0, 5, 0]))
    mesh = opened("input", scene)
    assert mesh.bounds.tolist() == [[-0.5, -0.5, -0.5], [0.5, 5.5, 0.5]]
    assert ways(mesh) == pytest.approx({RED: 0.5, BLUE: 0.5})


def test_parts_with_textures_share_one_that_shows_what_theirs_did():
    scene = trimesh.Scene(
        [plate(texture()), plate(texture(((BLUE,),)), at=1), box(at=(0, 0, 9), colour=GREEN)]
    )
    mesh = opened("input", scene)
    assert isinstance(mesh.visual, TextureVisuals)
    points = [[0.25, 0.75, 0], [0.75, 0.75, 0], [0.25, 0.25, 0], [0.5, 0.3, 1], [0, 0, 9.5]]
    assert seen(mesh, points).tolist() == [list(c) for c in (RED, GREEN, BLUE, BLUE, GREEN)]


def test_a_texture_that_repeats_is_sampled_where_it_repeats():
    mesh = plate(texture())
    mesh.visual.uv = mesh.visual.uv * 2 - 3
    whole = opened("input", trimesh.Scene([mesh, plate(texture(), at=1.0)]))
    for found in (opened("input", mesh), whole):
        points = [[0.125, 0.375, 0], [0.625, 0.875, 0], [0.875, 0.875, 0]]
        assert seen(found, points).tolist() == [list(RED), list(RED), list(GREEN)]


def test_base_colours_of_gltf_are_light_and_those_of_obj_are_srgb():
    half = encoded(np.array([0.5, 0.5, 0.5]))
    mesh = trimesh.creation.box()
    visual = TextureVisuals(material=PBRMaterial(baseColorFactor=[128, 128, 128, 255]))
    light = trimesh.Trimesh(mesh.vertices, mesh.faces, visual=visual)
    assert abs(int(face_colours(opened("input", light))[0, 0]) - int(half[0])) <= 1
    visual = TextureVisuals(material=SimpleMaterial(diffuse=[128, 128, 128, 255]))
    plain = trimesh.Trimesh(mesh.vertices, mesh.faces, visual=visual)
    assert face_colours(opened("input", plain))[0].tolist() == [128] * 3


def test_colours_of_vertices_blend_in_light():
    mesh = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False)
    mesh.visual.vertex_colors = [[0, 0, 0, 255], [255, 255, 255, 255], [0, 0, 0, 255]]
    found = colours_at(mesh, np.array([0]), np.array([[0.5, 0.5, 0]]))
    assert found.tolist() == [[188] * 3]  # 255 * (1.055 * 0.5 ** (1 / 2.4) - 0.055)


def test_srgb_and_light_are_each_other_s_inverse():
    values = np.arange(256, dtype=np.uint8)
    assert (encoded(linear(values)) == values).all()


def test_numbers_that_are_none_are_dropped_where_no_triangle_uses_them_and_else_refused():
    mesh = box()
    vertices = np.concatenate([mesh.vertices, [[np.nan, 0, 0]]])
    unused = trimesh.Trimesh(vertices, mesh.faces, process=False)
    assert len(opened("input", unused).vertices) == 8
    used = trimesh.Trimesh(vertices, [*mesh.faces.tolist(), [0, 1, 8]], process=False)
    with pytest.raises(ValueError, match=r"^input is a mesh, whose vertices are not all finite"):
        opened("input", used)


@pytest.mark.parametrize(
    "file, content, why",
    [
        ("none.glb", None, "there is no such file"),
        ("empty.glb", b"", "must be a mesh that can be read"),
        ("broken.glb", b"glTF\x02\x00\x00\x00 and no more", "must be a mesh that can be read"),
        ("broken.ply", b"ply\nformat ascii 1.0\nelement vertex 9\n", "it must|holds no triangles"),
        ("text.obj", b"# nothing here\n", "it must|holds no triangles"),
        ("dots.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "it must|holds no triangles"),
        ("dot.off", b"OFF\n3 1 0\n1 1 1\n1 1 1\n1 1 1\n3 0 1 2\n", "it must be a surface with a size"),
        ("photo.jpg", b"", "it must end in one of .glb, "),
    ],
)
def test_a_file_that_is_no_mesh_is_refused_in_one_sentence(tmp_path, file, content, why):
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=why) as caught:
        opened("input", str(tmp_path / file))
    assert str(caught.value).startswith("input is '") and "\n" not in str(caught.value)


def test_a_pickle_in_a_shape_is_not_opened(tmp_path):
    np.savez(tmp_path / "shape.npz", vertices=np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="must be a mesh that can be read"):
        opened("input", str(tmp_path / "shape.npz"))


def test_what_is_no_mesh_and_what_is_too_large_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="input is a int"):
        opened("input", 7)
    monkeypatch.setattr("modalities.mesh.read.MOST", 11)
    with pytest.raises(ValueError, match="of 12 triangles; they must be 11 at most"):
        opened("input", box())


# closing


def test_a_solid_keeps_its_surface():
    made = watertight(box((1, 2, 3)))
    assert made.is_watertight and made.volume == pytest.approx(6) and len(made.faces) == 12


def test_parts_that_overlap_become_one_solid_and_a_shell_within_is_gone():
    parts = [box(), box(at=(0.5, 0, 0), colour=BLUE), box((0.2, 0.2, 0.2))]
    made = watertight(trimesh.util.concatenate(parts))
    assert made.is_watertight and made.body_count == 1 and made.volume == pytest.approx(1.5)


def test_a_solid_turned_inside_out_faces_outward():
    mesh = box()
    mesh.invert()
    assert watertight(mesh).volume == pytest.approx(1)


def test_thin_parts_with_open_ends_survive_closing_where_they_were():
    source = table()
    made = watertight(source)
    assert made.is_watertight and made.volume > 0 and not source.is_watertight
    points = np.array([[0.2, 0.5, 0.1], [0.0, 0.5, 0.0]])
    legs = np.array([[x, y, z] for x in (-0.45, 0.45) for z in (-0.25, 0.25) for y in (0.1, 0.4)])
    beside = np.array([[0.2, 0.3, 0.1], [0.45, 0.25, 0.0], [0.0, 0.54, 0.0]])
    assert winding(made.triangles, points) == pytest.approx([1, 1], abs=0.01)
    assert np.abs(winding(made.triangles, beside)).max() < 0.01
    inside = np.linalg.norm(Surface(made, 0.005).points[:, None, [0, 2]] - legs[None, :, [0, 2]], axis=2)
    assert inside.min(0).max() < 0.03
    far = Surface(source, 0.005).nearest(Surface(made, 0.005).points, 3)[2]
    assert far.max() < 0.01 and far.mean() < 0.002
    assert made.extents == pytest.approx(source.extents, abs=0.005)


def test_an_open_sheet_becomes_a_thin_plate():
    made = watertight(plate(texture()))
    assert made.is_watertight and 0 < made.volume < 0.01


def test_a_hollow_that_no_way_leads_into_is_filled():
    shell = ball(1.0)
    hole = shell.copy()
    hole.apply_scale(0.7)
    torn = trimesh.util.concatenate([shell, hole])
    torn.update_faces(np.arange(len(torn.faces)) != len(shell.faces))  # the inner shell lacks a triangle
    made = watertight(torn)
    assert made.is_watertight and made.volume == pytest.approx(shell.volume, rel=0.03)


# floaters


def test_small_parts_go_if_they_are_apart_and_stay_if_they_are_near():
    body, knob, crumb = box(), box((0.04,) * 3, (0.522, 0, 0), BLUE), box((0.04,) * 3, (0.9, 0, 0), GREEN)
    made = without_floaters(trimesh.util.concatenate([body, knob, crumb]))
    assert set(ways(made)) == {RED, BLUE} and made.is_watertight


def test_a_large_part_that_is_apart_stays():
    made = without_floaters(trimesh.util.concatenate([box(), box((0.5,) * 3, (3, 0, 0))]))
    assert made.body_count == 2


def test_a_shell_within_goes():
    hollow = box((0.5,) * 3, colour=BLUE)
    hollow.invert()
    made = without_floaters(trimesh.util.concatenate([box(), hollow]))
    assert set(ways(made)) == {RED}


# decimating


@pytest.mark.parametrize("triangles", [2000, 300, 40])
def test_decimation_keeps_to_the_budget_closed_as_before_and_near_the_surface(triangles):
    source = ball(subdivisions=5)
    made = decimated(source, triangles)
    assert 0.8 * triangles <= len(made.faces) <= triangles and made.is_watertight
    assert made.volume == pytest.approx(source.volume, rel=12 / triangles)
    assert ways(made)[RED] == pytest.approx(0.5, abs=2 / triangles**0.5)


def test_decimation_of_a_closed_table_leaves_it_closed():
    closed = watertight(table())
    for triangles in (400, 200):
        made = decimated(closed, triangles)
        assert len(made.faces) <= triangles and made.is_watertight
        assert made.extents == pytest.approx(closed.extents, abs=0.01)


def test_a_mesh_within_the_budget_stays_as_it_is():
    made = decimated(plate(texture()), 100)
    assert len(made.faces) == 2 and made.visual.uv is not None
    with pytest.raises(ValueError, match="triangles is 3; it must be 4 or more"):
        decimated(box(), 3)


# normals


def test_normals_are_smooth_within_the_crease_and_split_across_it():
    cube = with_normals(box())
    assert len(cube.vertices) == 24
    assert np.abs(cube.vertex_normals).max(1) == pytest.approx(np.ones(24))
    smooth = with_normals(ball(subdivisions=4), crease=40)
    assert len(smooth.vertices) == len(ball(subdivisions=4).vertices)
    assert np.einsum("vi,vi->v", smooth.vertex_normals, smooth.vertices).min() > 0.999
    assert len(with_normals(box(), crease=100).vertices) == 8


def test_normals_do_not_split_where_only_texture_coordinates_do():
    mesh = unwrapped(ball(subdivisions=3))
    made = with_normals(mesh)
    assert len(made.vertices) == len(mesh.vertices)
    assert np.einsum("vi,vi->v", made.vertex_normals, made.vertices).min() > 0.99


# placing


def test_a_mesh_stands_on_the_middle_of_its_floor_as_tall_as_is_asked():
    source = with_normals(box((1, 2, 4), (7, 8, 9)))
    tall, large = placed(source, height=0.5), placed(source, size=1.0)
    assert tall.bounds == pytest.approx(np.array([[-0.125, 0, -0.5], [0.125, 0.5, 0.5]]))
    assert large.bounds == pytest.approx(np.array([[-0.125, 0, -0.5], [0.125, 0.5, 0.5]]))
    assert placed(source).extents == pytest.approx([1, 2, 4])
    assert tall.vertex_normals == pytest.approx(source.vertex_normals)


@pytest.mark.parametrize("asked", [{"height": -1}, {"size": float("nan")}, {"height": 1, "size": 1}])
def test_sizes_that_are_none_are_refused(asked):
    with pytest.raises(ValueError, match=r"^(height|size) is "):
        placed(box(), **asked)


# unwrapping and baking


def overlaps(mesh, side=1024):
    """(texels in two triangles, share of the texture used)."""
    texels, _, weights = rasterised(np.asarray(mesh.visual.uv)[mesh.faces], side)
    _, counts = np.unique(texels[(weights > 1e-3).all(1)], return_counts=True)
    return (counts > 1).sum(), len(np.unique(texels)) / side**2


def spring():
    """A ribbon wound up: every turn lies over the last, though all face up."""
    turn = np.linspace(0, 6 * np.pi, 200)
    inner, outer = (np.stack([r * np.cos(turn), 0.05 * turn, -r * np.sin(turn)], 1) for r in (0.5, 1.0))
    i = np.arange(199)
    faces = np.concatenate([np.stack([i, i + 200, i + 1], 1), np.stack([i + 1, i + 200, i + 201], 1)])
    return trimesh.Trimesh(np.concatenate([inner, outer]), faces, process=False)


@pytest.mark.parametrize(
    "mesh, used", [(ball(subdivisions=4), 0.5), (box(), 0.6), (table(), 0.3), (spring(), 0.3)],
    ids=["ball", "box", "table", "spring"],
)  # fmt: skip
def test_charts_lie_in_the_square_and_none_over_another(mesh, used):
    made = unwrapped(mesh)
    assert made.visual.uv.min() >= 0 and made.visual.uv.max() <= 1
    assert made.triangles == pytest.approx(mesh.triangles)
    twice, share = overlaps(made)
    assert twice == 0 and share > used


def test_charts_keep_their_distance():
    made = unwrapped(box(), side=256, padding=3)
    texels, faces, _ = rasterised(np.asarray(made.visual.uv)[made.faces], 256)
    side = np.full((256, 256), -1)
    _, of = np.unique(np.rint(made.face_normals), axis=0, return_inverse=True)
    side.reshape(-1)[texels] = of.reshape(-1)[faces]
    for number in range(6):
        rows, columns = np.nonzero(side == number)
        near = side[max(rows.min() - 4, 0) : rows.max() + 5, max(columns.min() - 4, 0) : columns.max() + 5]
        assert set(np.unique(near)) <= {-1, number}


def test_a_texture_shows_the_source_s_colours_and_leaves_no_texel_empty():
    source = ball(subdivisions=4)
    made = baked(unwrapped(decimated(source, 2000)), source, 256)
    material = made.visual.material
    image = np.asarray(material.baseColorTexture)
    assert image.shape == (256, 256, 3) and (material.metallicFactor, material.roughnessFactor) == (0, 0.9)
    assert {tuple(c) for c in image.reshape(-1, 3).tolist()} == {RED, BLUE}  # dilated, so no ground
    points = Surface(source, 0.05).points
    points = points[np.abs(points[:, 0]) > 0.03]
    assert np.abs(seen(made, points).astype(int) - seen(source, points)).mean() < 1


def test_a_texture_is_baked_from_a_texture():
    source = plate(texture())
    made = baked(unwrapped(watertight(source)), source, 256)
    points = [[x, y, 0.001] for x in (0.1, 0.4, 0.6, 0.9) for y in (0.1, 0.4, 0.6, 0.9)]
    assert (seen(made, points) == seen(source, points)).all()


def test_of_two_sheets_at_one_place_the_one_that_faces_the_way_is_shown():
    front, back = plate(texture(((RED,),))), plate(texture(((BLUE,),)))
    back.invert()
    source = opened("input", trimesh.Scene([front, back]))
    made = baked(unwrapped(watertight(source)), source, 128)
    assert seen(made, [[0.5, 0.5, 0.01], [0.5, 0.5, -0.01]]).tolist() == [list(RED), list(BLUE)]


def test_baking_wants_texture_coordinates_and_a_power_of_two():
    with pytest.raises(ValueError, match="unwrap it first"):
        baked(box(), box())
    with pytest.raises(ValueError, match="side is 1000; it must be a power"):
        baked(unwrapped(box()), box(), 1000)


# all of it


def test_a_mesh_as_found_is_finished_closed_placed_textured_and_within_the_budget():
    source = table()
    before = json.dumps([source.vertices.tolist(), source.faces.tolist()])
    made = finish(source, triangles=500, height=0.75, texture=256)
    assert json.dumps([source.vertices.tolist(), source.faces.tolist()]) == before
    assert is_closed(made) and len(made.faces) <= 500
    assert made.bounds[0, 1] == pytest.approx(0) and made.extents[1] == pytest.approx(0.75)
    assert made.visual.uv.shape == (len(made.vertices), 2)
    assert np.linalg.norm(made.vertex_normals, axis=1) == pytest.approx(np.ones(len(made.vertices)))
    top = [[0.3, 0.76, 0.1]]
    assert seen(made, top).tolist() == [list(GREEN)]


def test_without_a_texture_colours_are_by_face():
    made = finish(ball(subdivisions=4), triangles=500, texture=0)
    assert made.visual.kind == "face" and ways(made)[BLUE] == pytest.approx(0.5, abs=0.1)


def test_levels_of_detail_have_a_quarter_of_the_triangles_each():
    levels = detail_levels(finish(ball(subdivisions=4), triangles=2000, texture=256), 3)
    counts = [len(level.faces) for level in levels]
    assert counts[0] > 3.5 * counts[1] > 12 * counts[2]
    assert [level.visual.material.baseColorTexture.size[0] for level in levels] == [256, 128, 64]


def test_colours_are_carried_over_from_the_nearest_surface():
    mesh = ball(subdivisions=4)
    bare = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert (face_colours(coloured(bare, mesh)) == face_colours(mesh)).all()
