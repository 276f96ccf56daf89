"""What shapes are called, what is inside them, and what their captions tell."""

import json
import random

import numpy as np
import pytest
import trimesh

from modalities.image.colour import words
from modalities.mesh import compose, shapes
from modalities.mesh.compose import Composer, Drawing, dominant, made_of, moved, tinted, worded
from modalities.mesh.grid import CELL, CELLS, shown
from modalities.mesh.sample import EXTENT, Solid, centred, sampled
from modalities.mesh.shapes import Shape, called, held_out_colour, held_out_name, load
from modalities.mesh.surface import Surface


def box(size, at=(0, 0, 0), colour=(200, 60, 60)):
    """A closed box, its centre at `at`."""
    mesh = trimesh.creation.box(size)
    mesh.apply_translation(at)
    mesh.visual.face_colors = colour
    return mesh


def chair():
    """Four legs, a seat and a back, six boxes that overlap nowhere."""
    legs = [box((0.1, 1, 0.1), (x, 0.5, z), (90, 60, 30)) for x in (-0.45, 0.45) for z in (-0.45, 0.45)]
    seat, back = box((1, 0.1, 1), (0, 1.05, 0)), box((1, 1, 0.1), (0, 1.6, -0.45))
    return trimesh.util.concatenate([*legs, seat, back])


def without(mesh, *axes):
    """The mesh without the faces that look along one of these axes."""
    normals = mesh.face_normals
    keep = ~np.any([normals @ np.array(axis) > 0.9 for axis in axes], axis=0)
    made = trimesh.Trimesh(mesh.vertices, mesh.faces[keep], process=False)
    made.visual.face_colors = (200, 60, 60)
    return made


def asked(mesh, count=3000):
    """Places in [-1, 1], half of them near the mesh, and whether they are inside it."""
    rng, made = np.random.default_rng(3), centred(mesh)
    surface = Surface(made, 0.02)
    near = rng.choice(surface.points, count // 2) + rng.normal(0, 0.03, (count // 2, 3))
    places = np.concatenate([near.clip(-1, 1), rng.uniform(-1, 1, (count // 2, 3))])
    return places, Solid(made).holds(places, surface)[0]


def scaled(mesh):
    """What `sampled` does to a place: minus this, times that."""
    low, high = mesh.bounds
    return (low + high) / 2, EXTENT / (high - low).max()


def row(text, category="market", **more):
    return {"file_name": "a.npz", "text": text, "category": category, **more}


def write_shape(folder, stem, mesh, text, colour):
    """A file of the pack and its line."""
    low, high = mesh.bounds
    np.savez(
        folder / f"{stem}.npz",
        vertices=np.rint((mesh.vertices - low) / (high - low) * 65535).astype(np.uint16),
        bounds=np.stack([low, high]).astype(np.float32),
        faces=mesh.faces.astype(np.uint16),
        colors=np.tile(np.array(colour, np.uint8), (len(mesh.faces), 1)),
    )
    line = {"file_name": f"{stem}.npz", "text": text, "category": "Kitchen", "size_cm": ["50", "40", "90"]}
    return json.dumps(line | {"source": "here"})


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """Six lines of a pack: one of a name that is held out, one of no object."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    folder.mkdir()
    held = next(name for name in ("kettle", "briefcase", "highlighter", "sugar bowl") if held_out_name(name))
    lines = [
        write_shape(folder, "a", chair(), "chair 3", (225, 50, 50)),
        write_shape(folder, "b", box((1, 2, 1)), "crate small", (150, 150, 150)),
        write_shape(folder, "c", box((2, 0.1, 1)), "wooden table", (140, 90, 50)),
        write_shape(folder, "d", box((1, 1, 1)), held, (60, 130, 230)),
        write_shape(folder, "e", box((1, 1, 1)), "road junction", (60, 130, 230)),
        write_shape(folder, "f", box((1, 3, 1)), "blue pine under snow", (60, 130, 230)),
    ]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder.parent


# what is inside


@pytest.mark.parametrize("turned", [False, True])
def test_inside_of_a_chair_of_boxes_is_inside_one_of_its_boxes(turned):
    mesh = chair()
    if turned:  # triangles that look any way at all
        mesh.faces[::3] = mesh.faces[::3, ::-1]
    places, inside = asked(mesh)
    centre, scale = scaled(mesh)
    places = places / scale + centre
    parts = [*((x, 0.5, z, 0.1, 1, 0.1) for x in (-0.45, 0.45) for z in (-0.45, 0.45)),
             (0, 1.05, 0, 1, 0.1, 1), (0, 1.6, -0.45, 1, 1, 0.1)]
    boxes = [np.abs(places - part[:3]) - np.array(part[3:]) / 2 for part in parts]
    distance = np.min([outside.max(1) for outside in boxes], 0)
    clear = np.abs(distance) > 0.004  # 0.2% of its height
    assert np.mean((distance < 0)[clear] == inside[clear]) > 0.995
    assert inside.sum() > 300


def test_a_box_without_a_bottom_is_solid_and_a_cup_is_not():
    boxed, cup = without(box((1, 1, 1)), (0, -1, 0)), without(box((1, 1, 1)), (0, 1, 0))
    middle = np.zeros((1, 3))
    for mesh, solid in ((boxed, True), (cup, False)):
        places, inside = asked(mesh)
        near = np.abs(places).max(1) < 0.7
        assert inside[near].all() == solid and inside[near].any() == solid
        assert (Solid(mesh).kind(middle)[0] == 0) == solid


def test_a_box_without_a_bottom_on_feet_is_solid_too_but_not_a_roof_on_posts():
    feet = [box((0.1, 0.2, 0.1), (x, -0.6, z)) for x in (-0.45, 0.45) for z in (-0.45, 0.45)]
    sofa = trimesh.util.concatenate([without(box((1, 1, 1)), (0, -1, 0)), *feet])
    posts = [box((0.1, 1, 0.1), (x, -0.5, z)) for x in (-0.9, 0.9) for z in (-0.9, 0.9)]
    roof = trimesh.Trimesh([[-1, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1], [0, 0.5, 0]],
                           [[1, 0, 4], [2, 1, 4], [3, 2, 4], [0, 3, 4]])
    roof = trimesh.util.concatenate([roof, *posts])
    assert Solid(sofa).kind(np.array([[0.0, 0, 0]]))[0] == 0
    assert Solid(roof).kind(np.array([[0.0, 0.2, 0]]))[0] == 1


def test_points_lie_on_the_outer_surface_with_outward_normals_and_their_colours():
    inner = box((0.5, 0.5, 0.5), colour=(200, 0, 0))
    mesh = trimesh.util.concatenate([box((1, 1, 1), colour=(10, 200, 30)), inner])
    mesh.invert()
    drawn = sampled(mesh, np.random.default_rng(3), 500)
    assert np.abs(np.abs(drawn.points).max(1) - EXTENT / 2).max() < 1e-5  # none of the shell within
    assert (np.sum(drawn.points * drawn.normals, 1) > 0.89).all()
    assert (drawn.colours == (10, 200, 30)).all()


def test_a_broken_mesh_is_refused_in_words(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        sampled(tmp_path / "none.npz", np.random.default_rng(0))


# what shapes are called


@pytest.mark.parametrize("text, category, names", [
    ("tree birch 3", "x", None), ("chair 12", "Office", ("chair",)),
    ("potion9 empty", "x", ("potion bottle",)),
    ("race futrure", "market", ("race car",)), ("bottle musterd", "market", ("mustard bottle",)),
    ("banner pattern a blue", "x", ("banner",)), ("barrel large decorated", "x", ("barrel",)),
    ("birch tree autumn", "nature_pack", ("tree", "autumn tree", "birch tree in autumn")),
    ("apple crop", "crops_pack", ("apple",)), ("apple", "crops_pack", ("tree", "apple tree")),
    ("shovel", "Kitchen", ("dustpan",)), ("shovel", "Miscellaneous", ("shovel",)),
    ("stock sniper", "x", ()), ("numbers", "x", ()), ("cube grass side center tall", "x", ()),
    ("wooden desk", "Office", ("desk",)), ("building church red", "x", ("church",)),
])
def test_captions_are_cleaned(text, category, names):
    found = called(row(text, category))
    if names is None:
        assert "3" not in found[0]
    else:
        assert found[: len(names)] == names if names else found == ()


def test_every_rule_is_one_and_gives_whole_names():
    for pattern, names in shapes.rules():
        assert pattern.pattern.strip() == pattern.pattern and all(name.strip() == name for name in names)


def test_the_pack_is_read_with_sizes_in_metres_and_materials(pack):
    found = {shape.path.stem: shape for shape in load(pack)}
    assert set(found) == {"a", "b", "c", "d", "f"}  # a road is no object
    assert found["a"].size == pytest.approx((0.5, 0.9, 0.4)) and found["c"].material == "wood"
    assert [shape.held for shape in found.values()] == [False, False, False, True, False]
    assert held_out_name("pine tree") and found["f"].words == ()  # which else says the held-out "pine tree"
    assert load(pack) == load(pack / "shapes")


# what captions tell


def plain(colour, count=400):
    """The colours of a shape of one colour."""
    return np.tile(np.array(colour, np.uint8), (count, 1))


@pytest.mark.parametrize("old", [(225, 50, 50), (150, 150, 150), (30, 30, 34), (250, 250, 250)])
def test_any_shape_can_be_had_in_any_colour(old):
    for colour in compose.COLOURS:
        made = tinted(plain(old), colour)
        assert made is not None and dominant(made) == (colour, 1.0)


def test_only_the_dominant_colour_changes():
    colours = plain((225, 50, 50))
    colours[:100] = (70, 130, 230)
    made = tinted(colours, "green")
    assert (made[:100] == (70, 130, 230)).all() and (words(made[100:]) == "green").all()
    assert (colours[100:] == (225, 50, 50)).all()


def test_materials_suit_their_names_and_look_like_themselves():
    assert "wood" in compose.materials_of("chair") and compose.materials_of("banana") == []
    for material, answers in (("wood", "brown"), ("gold", "yellow"), ("metal", "gray"), ("stone", "gray")):
        assert dominant(made_of(plain((225, 50, 50)), material))[0] == answers


def test_a_caption_tells_the_name_the_colour_and_the_material():
    shape = Shape(None, "chair", ("armchair",))
    told = {worded(random.Random(n), shape, "red") for n in range(200)}
    assert {"a red chair", "red chair", "a red armchair", "a 3d model of a red chair"} <= told
    assert all("red chair" in caption or "red armchair" in caption for caption in told)
    told = {worded(random.Random(n), Shape(None, "axe"), None, "gold") for n in range(200)}
    assert {"a golden axe", "an axe made of gold"} <= told
    assert not any("made of" in caption and "golden" in caption for caption in told)


def test_scenes_show_what_their_captions_tell(pack):
    composer = Composer(pack)
    scenes = [composer.nth(1, number) for number in range(80)]
    assert {scene.name for scene in scenes} == {"chair", "crate", "table", "snowy pine tree"}  # none held out
    told = [scene for scene in scenes if scene.colour]
    assert len({scene.colour for scene in told}) > 4 and any(scene.material for scene in scenes)
    for scene in told:
        colours = scene.grid[1:, shown(scene.grid)].T
        assert dominant(colours)[0] == scene.colour and scene.colour in scene.caption
        assert not held_out_colour(scene.name, scene.colour)
    for scene in scenes:
        assert not (scene.material and held_out_colour(scene.name, scene.material))
        inside = np.argwhere(scene.grid[0] > 127)
        assert np.ptp(inside, axis=0).max() + 1 == pytest.approx(EXTENT / CELL, abs=2)
        assert inside.min(0) + inside.max(0) == pytest.approx(CELLS - 1, abs=2)


def test_furniture_is_drawn_twice_as_often(pack):
    composer = Composer(pack)
    weights = dict(zip((shape.name for shape in composer.shapes), composer.weights, strict=True))
    assert weights["chair"] == weights["table"] == 2 * weights["crate"]


def test_a_scene_depends_on_its_seed_and_number_alone(pack, tmp_path):
    first = Composer(pack, cache=tmp_path).nth(5, 7)
    compose.kept.cache_clear()
    composer = Composer(pack, cache=tmp_path)  # of what the first one kept
    composer.nth(5, 6)
    again, other = composer.nth(5, 7), composer.nth(6, 7)
    assert again.caption == first.caption and list(tmp_path.glob("*.npz"))
    assert (again.grid == first.grid).all() and (again.grid != other.grid).any()


def test_a_turned_and_mirrored_shape_keeps_its_normals():
    drawn = sampled(chair(), np.random.default_rng(0), points=1000)
    way = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]]) @ np.diag([-1.1, 1, 0.9])
    made = moved(drawn, way, np.random.default_rng(1), 400)
    mesh = chair()
    centre, scale = scaled(mesh)
    mesh.vertices = (mesh.vertices - centre) * scale @ way.T
    centre, scale = scaled(mesh)
    mesh.vertices = (mesh.vertices - centre) * scale
    assert np.abs(np.linalg.norm(made.normals, axis=1) - 1).max() < 1e-5
    ahead = Solid(mesh).kind(made.points + 0.03 * made.normals)
    assert np.mean(ahead == 0) < 0.03


def test_held_out_names_and_colours_are_some_and_the_same_everywhere():
    names = [f"thing {n}" for n in range(1000)]
    assert 10 < sum(map(held_out_name, names)) < 60
    assert 60 < sum(held_out_colour(name, "red") for name in names) < 140


def test_a_pack_of_nothing_to_draw_is_refused_in_words(pack):
    with pytest.raises(ValueError, match="it must hold the shapes pack"):
        Composer(pack, names=["unicorn"])


@pytest.mark.parametrize("name, said", [
    ("axe", "an axe"), ("bowl of apples", "a bowl of apples"), ("boots", "boots"), ("grass", "grass"),
])
def test_names_take_the_article_that_they_need(name, said):
    assert compose.article(name, name) == said


def test_an_example_is_the_scene_of_its_number(pack, tmp_path):
    found, caption = Drawing(pack, 1, {"cache": str(tmp_path)})(3)
    scene = Composer(pack).nth(1, 3)
    assert found.shape == (4, CELLS, CELLS, CELLS) and found.dtype == np.uint8
    assert (found == scene.grid).all() and caption == scene.caption


def test_meshes_with_captions_of_one_s_own_are_examples(tmp_path):
    chair().export(tmp_path / "mine.ply")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "mine.ply", "text": "my chair"}))
    found, caption = Drawing(tmp_path, 0, {})(5)
    assert caption == "my chair" and found.shape == (4, CELLS, CELLS, CELLS)
    assert np.ptp(np.argwhere(found[0] > 127), axis=0).max() == pytest.approx(EXTENT / CELL, abs=2)
