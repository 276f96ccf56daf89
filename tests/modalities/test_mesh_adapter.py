"""What may be asked of a mesh, how it goes through the one pipeline, and what comes out of it."""

import json

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image, ImageDraw

from modalities import mesh
from modalities.mesh import MeshRequest, adapter
from modalities.mesh.compose import Drawing
from modalities.mesh.finish import safe, surface_of
from modalities.mesh.grid import CELLS, gridded, surface_points
from modalities.mesh.picture import SIDE, TOKENS, cut, splat, tokens
from modalities.mesh.read import face_colours, opened
from modalities.mesh.render import focal, views
from modalities.mesh.save import closed
from modalities.mesh.sheet import cloud
from modalities.mesh.sizes import size_of
from suite import cli
from suite.storage import ModelError
from tests.conftest import write_mesh_models

RED, BLUE = (200, 40, 40), (40, 60, 200)
SMALL = {"triangles": 500, "texture": "0"}


@pytest.fixture
def pipe(tiny_mesh_model, words):
    return mesh.load(tiny_mesh_model)


@pytest.fixture
def post(tmp_path):
    """A file: a post, red below and blue above."""
    made = trimesh.util.concatenate([trimesh.creation.box((0.2, 1, 0.2)) for _ in range(2)])
    made.vertices[8:, 1] += 1
    made.visual.face_colors = [RED] * 12 + [BLUE] * 12
    made.export(tmp_path / "post.ply")
    return str(tmp_path / "post.ply")


def picture(ground="white", thing=RED, side=120):
    """A red disc on a plain ground."""
    image = Image.new("RGB", (side, side), ground)
    ImageDraw.Draw(image).ellipse((40, 30, 80, 70), fill=thing)
    return image


def refused(capsys, *arguments):
    assert cli.main(["mesh", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def drawn(pipe, monkeypatch, *requests):
    """The latents that runs end with, from now on."""
    made, decode = [], pipe.latent.decode
    monkeypatch.setattr(pipe.latent, "decode", lambda z: (made.append(z), decode(z))[1])
    for request in requests:
        pipe.run(request)
    return made


def field(side=24):
    """A ball, red on its left and blue on its right."""
    at = (np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij")) + 0.5) * 2 / side - 1
    left = np.where(at[0] < 0, 1.0, -1.0)
    return np.stack([10 * (0.6 - np.linalg.norm(at, axis=0)), left, -np.ones_like(left), -left])


def test_the_surface_of_a_field_is_closed_outward_in_place_and_coloured():
    made = surface_of(field())
    assert made.is_watertight and made.volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.05)
    assert np.linalg.norm(made.vertices, axis=1) == pytest.approx(0.6, abs=0.02)
    left = made.visual.vertex_colors[made.vertices[:, 0] < -0.2, :3]
    assert (left == (238, 0, 0)).all()


def test_colours_stay_within_what_can_be_lit():
    told = np.array([[0, 0, 0], [255, 255, 255], [255, 51, 0], [10, 4, 0], [120, 90, 30]], float)
    assert safe(told).tolist() == [[32] * 3, [238] * 3, [238, 48, 0], [32, 26, 22], [120, 90, 30]]


@pytest.mark.parametrize("texture", ["0", "256"])
def test_no_colour_of_what_is_drawn_is_too_dark_where_two_dark_ones_meet(texture):
    dark = field(24)
    stripes = np.indices(dark.shape[1:]).sum(0) % 3
    dark[1:] = np.where(stripes == np.arange(3).reshape(3, 1, 1, 1), -0.75, -1.0)  # red, green and blue
    drawn = torch.from_numpy(dark)[None]
    (made,) = adapter.finish(drawn, MeshRequest(prompt="a ball", texture=texture, triangles=2000, levels=2))
    for one in (made.mesh, *made.levels):
        look = one.visual
        colours = look.vertex_colors if texture == "0" else np.asarray(look.material.baseColorTexture)
        assert np.asarray(colours)[..., :3].max(-1).min() >= 32 and closed(one)


def test_a_field_with_nothing_inside_still_gives_a_surface_and_one_that_reaches_the_border_is_closed():
    nothing, all_over = field(), field()
    nothing[0] -= 50
    all_over[0] += 50
    flat = field()
    flat[0] = np.where(flat[0] > 0, -1, -2)  # as high in many places
    assert surface_of(nothing).is_watertight and surface_of(all_over).is_watertight
    assert surface_of(flat).is_watertight
    assert surface_of(all_over).extents == pytest.approx([2, 2, 2], abs=0.2)


def test_what_a_model_draws_beside_the_thing_is_taken_away_and_what_is_given_stays(tmp_path):
    at = np.stack(np.meshgrid(*[(np.arange(48) + 0.5) / 24 - 1] * 3, indexing="ij"))
    ball = 0.5 - np.linalg.norm(at, axis=0)
    speck = 0.12 - np.linalg.norm(at - np.array([0.8, 0.8, 0.8]).reshape(3, 1, 1, 1), axis=0)  # 8% of it
    smaller = 0.07 - np.linalg.norm(at - np.array([-0.8, 0.8, 0.8]).reshape(3, 1, 1, 1), axis=0)  # 3.6%
    drawn = torch.from_numpy(np.stack([10 * np.maximum(np.maximum(ball, speck), smaller), *at]))[None]
    (made,) = adapter.finish(drawn, MeshRequest(prompt="a thing", **SMALL))
    assert len(trimesh.Trimesh(made.mesh.vertices, made.mesh.faces).split()) == 2
    both = [trimesh.creation.icosphere(radius=0.5), trimesh.creation.icosphere(radius=0.07)]
    both[1].apply_translation((0.8, 0.8, 0.8))
    trimesh.util.concatenate(both).export(tmp_path / "both.ply")
    kept = mesh.finished(MeshRequest(input=str(tmp_path / "both.ply"), **SMALL)).mesh
    assert len(trimesh.Trimesh(kept.vertices, kept.faces).split()) == 2


def test_what_a_model_draws_is_smoother_than_its_cells():
    rough = field(CELLS)
    rough[0] += np.random.default_rng(0).normal(0, 0.3, rough[0].shape)

    def bumps(made):
        radii = np.linalg.norm(made.vertices - made.bounds.mean(0), axis=1)
        return radii.std() / radii.mean()

    (made,) = adapter.finish(torch.from_numpy(rough)[None], MeshRequest(prompt="a ball", texture="0"))
    assert bumps(made.mesh) < 0.4 * bumps(surface_of(rough.astype(np.float32)))


@pytest.mark.parametrize(("depth", "parts"), [(-0.1, 1), (-0.4, 1), (-0.95, 2)])
def test_a_leg_that_is_drawn_faintly_holds_what_it_carries(depth, parts):
    at = np.stack(np.meshgrid(*[(np.arange(CELLS) + 0.5) * 2 / CELLS - 1] * 3, indexing="ij"))
    top, foot = (0.25 - np.linalg.norm(at - np.reshape((0, y, 0), (3, 1, 1, 1)), axis=0) for y in (0.6, -0.6))
    leg = np.where((abs(at[1]) < 0.6) & (np.hypot(at[0], at[2]) < 0.15), depth, -1.0)  # nowhere above 0
    drawn = np.stack([np.maximum(np.maximum(top, foot) / 0.1875, leg).clip(-1, 1), *at])
    (made,) = adapter.finish(torch.from_numpy(drawn)[None], MeshRequest(prompt="a table", **SMALL))
    assert len(surface_of(drawn).split()) == 2
    assert len(trimesh.Trimesh(made.mesh.vertices, made.mesh.faces).split()) == parts and closed(made.mesh)


def test_what_is_kept_of_a_mesh_to_start_from_becomes_no_thicker(post):
    def made(**more):
        asked = MeshRequest(prompt="a post", init=post, size=1.75, triangles=5000, texture="0", **more)
        return adapter.finish(adapter.read(asked, ())[0], asked)[0].mesh

    thin, thick, upper = made(strength=0.01), made(strength=1.0), made(strength=1.0, mask="0.5-1")
    assert thin.extents[0] + 0.05 < thick.extents[0]
    low, high = (upper.vertices[part, 0] for part in (upper.vertices[:, 1] < 0.8, upper.vertices[:, 1] > 1.0))
    assert np.ptp(low) == pytest.approx(thin.extents[0], abs=0.02) and np.ptp(high) > np.ptp(low) + 0.05


def test_a_prompt_becomes_a_closed_mesh_of_the_size_such_things_have(pipe, tmp_path):
    assert len(pipe("a wooden chair", num_meshes=2, **SMALL).meshes) == 2
    result = pipe("a wooden chair", seed=5, levels=2, **SMALL)
    made = result.meshes[0]
    assert made.mesh.is_watertight or trimesh.Trimesh(made.mesh.vertices, made.mesh.faces).is_watertight
    assert max(made.mesh.extents) == pytest.approx(size_of("chair")) and made.mesh.bounds[0, 1] == 0
    assert len(made.mesh.faces) <= 500 and len(made.levels[0].faces) <= 125
    made.save(tmp_path / "chair.glb")
    assert {path.name for path in tmp_path.iterdir()} == {"chair.glb", "chair-lod1.glb"}
    asked = mesh.restore(tmp_path / "chair.glb")
    assert MeshRequest(**asked) == MeshRequest(**result.settings[0]["request"])
    assert (asked["prompt"], asked["seed"], asked["num_meshes"]) == ("a wooden chair", 5, 1)
    again = pipe.run(MeshRequest(**mesh.restore(tmp_path / "chair.glb"))).meshes[0].mesh
    assert (again.vertices == made.mesh.vertices).all() and (again.faces == made.mesh.faces).all()


def test_sizes_are_those_of_the_pack_or_those_that_are_asked_for(pipe):
    assert 0.7 < size_of("a red chair") < 1.1 and size_of("three wine bottles") == 0.3
    assert size_of("an armchair") != size_of("a chair") and size_of("a dragon") is None
    assert pipe("a thing", height=0.25, **SMALL).meshes[0].mesh.extents[1] == pytest.approx(0.25)
    assert max(pipe("a thing", size=3, **SMALL).meshes[0].mesh.extents) == pytest.approx(3)
    assert max(pipe("a thing", **SMALL).meshes[0].mesh.extents) == pytest.approx(mesh.METRES)


def test_a_png_shows_as_many_sides_as_are_asked_for(pipe, tmp_path):
    made = pipe("a thing", sides=5, side=64, **SMALL).meshes[0]
    made.save(tmp_path / "a.png")
    shown = np.asarray(Image.open(tmp_path / "a.png"))
    assert shown.shape == (2 * 64, 3 * 64, 4)
    tiles = shown.reshape(2, 64, 3, 64, 4).swapaxes(1, 2).reshape(6, 64, 64, 4)
    turned = [picture for picture, _ in views(made.mesh, 5, 64)]
    assert all((tile == one).all() for tile, one in zip(tiles, turned, strict=False)) and not tiles[5].any()


def test_metallic_and_rough_are_in_the_file_with_a_texture_and_without(pipe, tmp_path):
    for texture in ("0", "256"):
        made = pipe("a thing", triangles=200, texture=texture, metallic=1.0, roughness=0.25).meshes[0]
        made.save(tmp_path / "a.glb")
        data = (tmp_path / "a.glb").read_bytes()
        tree = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
        look = tree["materials"][0]["pbrMetallicRoughness"]
        assert (look["metallicFactor"], look["roughnessFactor"]) == (1.0, 0.25)
        assert ("baseColorTexture" in look) == (texture != "0")


def test_a_mesh_to_start_from_stays_the_nearer_the_less_strength(pipe, post, monkeypatch):
    init, _ = adapter.read(MeshRequest(prompt="x", init=post), ())
    known = pipe.latent.encode(init)
    made = drawn(pipe, monkeypatch)
    for strength in (0.05, 1.0):
        pipe("x", init=post, strength=strength, num_inference_steps=20, **SMALL)
    near, far = ((z - known).abs().mean() for z in made)
    assert 3 * near < far


def test_only_the_heights_that_are_named_are_drawn_anew(pipe, post, monkeypatch):
    request = pipe.request("x", init=post, mask="0.5-", **SMALL)
    assert request.strength == 1
    init, mask = adapter.read(request, ())
    assert mask.shape == init[:, :1].shape and (mask.amin((2, 4)) == mask.amax((2, 4))).all()
    rows = mask[0, 0, 0, :, 0]
    assert (rows[: CELLS // 2] == 0).all() and (rows[CELLS // 2 :][: CELLS * 2 // 5] == 1).all()
    known = pipe.latent.encode(init)
    upper = torch.arange(known.shape[3]) >= known.shape[3] // 2
    (made,) = drawn(pipe, monkeypatch, request)
    far = (made - known).abs().amax((0, 1, 2, 4))
    assert far[~upper].max() < 1e-4 < 0.1 < far[upper].min()


def test_a_picture_changes_what_is_drawn_and_needs_no_prompt(pipe, monkeypatch):
    requests = [pipe.request("", image=shown, **SMALL) for shown in (picture(), picture(thing=BLUE))]
    first, second = drawn(pipe, monkeypatch, *requests)
    assert (first - second).abs().max() > 1e-3


def test_a_model_that_reads_too_narrow_a_text_for_pictures_says_so(tmp_path, words):
    model = write_mesh_models(tmp_path, "words", 8)
    with pytest.raises(ValueError, match="reads text 8 wide; a picture needs one that reads text 272"):
        mesh.load(model)("", image=picture())


def test_an_input_mesh_is_finished_without_a_model(post, tmp_path, capsys):
    where = tmp_path / "done.glb"
    told = ["--height", "0.5", "--texture", "256", "--model", "none", "-o", str(where)]
    assert cli.main(["mesh", "--input", post, *told]) == 0
    made = trimesh.load_mesh(where)
    assert trimesh.Trimesh(made.vertices, made.faces).is_watertight
    assert made.extents == pytest.approx([0.05, 0.5, 0.05], rel=0.02)
    assert made.bounds[0, 1] == pytest.approx(0)
    assert made.visual.material.baseColorTexture.size == (256, 256)
    assert mesh.restore(where)["input"] == post
    assert cli.main(["mesh", "--input", post, "-o", str(tmp_path / "a.ply")]) == 0
    assert trimesh.load_mesh(tmp_path / "a.ply").extents == pytest.approx([0.2, 2, 0.2], rel=0.02)


@pytest.mark.parametrize("known", [True, False])
def test_photos_from_all_sides_become_the_thing(tmp_path, known, capsys):
    outline = [(0, 0), (0.5, 0.4), (0.15, 0.6), (0.15, 0.9), (0.6, 1.1), (0, 1.5)]
    upright = trimesh.transformations.rotation_matrix(-np.pi / 2, (1, 0, 0))
    cup = trimesh.creation.revolve(outline, transform=upright)
    cup.apply_scale((1, 1, 0.6))
    cup.visual.face_colors = np.where(cup.triangles_center[:, :1] < 0, RED, BLUE).astype(np.uint8)
    photos, rows = tmp_path / "photos", []
    photos.mkdir()
    for i, (shown, pose) in enumerate(views(cup, 24, 160, pitch=0)):
        picture = Image.fromarray(shown)
        if not known:
            white = Image.new("RGB", picture.size, "white")
            white.paste(picture, mask=picture)
            picture = white
        picture.save(photos / f"{i:02}.png")
        rows.append({"file_path": f"{i:02}", "transform_matrix": pose.tolist()})
    if known:
        told = {"camera_angle_x": 2 * np.arctan(80 / focal(160)), "frames": rows}
        (photos / "transforms.json").write_text(json.dumps(told))
    out = tmp_path / "cup.glb"
    told = ["--photos", str(photos), "--size", "1.5", "--triangles", "4000", "--texture", "0", "-o", str(out)]
    assert cli.main(["mesh", *told]) == 0, capsys.readouterr().err
    made = opened("mesh", out)
    whole = trimesh.Trimesh(made.vertices, made.faces)
    assert whole.is_watertight and made.extents == pytest.approx(cup.extents, rel=0.06)
    assert whole.volume == pytest.approx(cup.volume, rel=0.1)
    left = face_colours(made)[made.triangles_center[:, 0] < -0.2].astype(int)
    assert (left[:, 0] > left[:, 2]).mean() > 0.95


def test_photos_that_cannot_be_used_are_refused_in_one_sentence(tmp_path, capsys):
    out = ["-o", str(tmp_path / "a.glb")]
    assert "it must be a folder of photos" in refused(capsys, "--photos", str(tmp_path / "none"), *out)
    assert "which holds 0 photos; they must be 3 to 200" in refused(capsys, "--photos", str(tmp_path), *out)
    (tmp_path / "transforms.json").write_text("{}")
    assert "transforms.json cannot be read" in refused(capsys, "--photos", str(tmp_path), *out)
    (tmp_path / "transforms.json").unlink()
    for i, top in enumerate((5, 40, 75)):
        image = Image.new("RGB", (100, 100), "white")
        ImageDraw.Draw(image).rectangle((10, top, 90, top + 15), fill=RED)
        image.save(tmp_path / f"{i}.png")
    assert "nothing that all of them have in common" in refused(capsys, "--photos", str(tmp_path), *out)


def test_what_cannot_be_is_refused_in_one_sentence(post, tmp_path, capsys):
    out = ["-o", str(tmp_path / "a.glb")]
    assert "give an image, an input file or photos" in refused(capsys, *out)
    assert "there is no such file" in refused(capsys, "--input", str(tmp_path / "no.obj"), *out)
    (tmp_path / "bad.glb").write_bytes(b"glTF of another kind")
    assert "it must be a mesh that can be read" in refused(capsys, "--input", str(tmp_path / "bad.glb"), *out)
    white = tmp_path / "white.png"
    Image.new("RGB", (64, 64), "white").save(white)
    assert "image shows nothing that stands out" in refused(capsys, "--image", str(white), *out)
    assert "give one of the two" in refused(capsys, "a", "--size", "1", "--height", "1", *out)
    assert "loop is for pictures" in refused(capsys, "a", "--loop", *out)
    for mask in ("0.5-2", "top"):
        assert "of the height" in refused(capsys, "a", "--init", post, "--mask", mask, *out)
    assert "triangles is '3'; it must be at least 100" in refused(capsys, "a", "--triangles", "3", *out)
    assert "must be one of .glb" in refused(capsys, "a", "-o", str(tmp_path / "a.fbx"))
    assert not (tmp_path / "a.glb").exists()


@pytest.mark.parametrize("ground", ["white", "black", "green", "transparent"])
def test_the_thing_is_cut_from_its_ground_and_fills_the_thumbnail(ground):
    shown = picture("white" if ground == "transparent" else ground)
    if ground == "transparent":
        clear = Image.new("L", shown.size)
        ImageDraw.Draw(clear).ellipse((40, 30, 80, 70), fill=255)
        shown.putalpha(clear)
    found = cut(shown)
    assert found.shape == (SIDE, SIDE, 4) and np.abs(found[16, 16].astype(int) - (*RED, 255)).max() < 3
    assert (found[..., 3] > 127).mean() == pytest.approx(np.pi / 4, abs=0.05)
    assert not found[0, 0, 3] and not found[-1, -1, 3]


def test_points_seen_from_in_front_make_such_a_picture_and_tokens_hold_all_of_it():
    points = surface_points(gridded(trimesh.creation.icosphere(subdivisions=3)))
    seen = splat(*points, np.random.default_rng(1))
    assert (seen[..., 3] > 127).mean() == pytest.approx(np.pi / 4, abs=0.02)  # as a photo that is cut out
    first, second = tokens(seen), tokens(seen[:, ::-1])
    assert first.shape == (TOKENS, 272) and (first != second).any() and np.abs(first).max() <= 2


def test_examples_are_told_by_picture_by_caption_or_by_both(tmp_path, post):
    row = {"file_name": "post.ply", "text": "a post"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    draw = Drawing(tmp_path, 0, {"pictures": True})
    told = [(caption, bool(shown.any())) for _, caption, shown in map(draw, range(30))]
    assert set(told) == {("a post", True), ("a post", False), ("", True)}


def test_points_are_shown_where_they_are_the_nearest_on_top():
    behind, front = [0, 0, -0.8, 1, -1, -1], [0, 0, 0.8, -1, -1, 1]
    shown = np.asarray(cloud(np.array([front, behind, [-0.8, 0.8, 0, -1, 1, -1]]), 128)).astype(int)
    blue, green = shown[..., 2] - shown[..., 0] > 60, shown[..., 1] - shown[..., 0] > 60
    assert blue.any() and green.any()
    assert np.argwhere(green)[:, 1].mean() < np.argwhere(blue)[:, 1].mean()


def test_a_model_that_is_not_there_is_named():
    with pytest.raises(ModelError, match="no-such"):
        mesh.load("no-such")
