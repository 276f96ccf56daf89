"""The judge of meshes, held to shapes whose truth is known: each name is a box of proportions of its own."""

import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from modalities import judging, naming
from modalities.image.colour import COLOURS, SWATCHES
from modalities.judging import Verdict
from modalities.mesh import MeshRequest, adapter, judge, judge_train, measure
from modalities.mesh.compose import MATERIALS
from modalities.mesh.grid import CELLS
from modalities.mesh.judge import evaluate, looks, real_scenes, reconstructed, verdict
from modalities.mesh.prompts import ASKED, KINDS, NAMES, SHOWN, Prompt, parted, prompts, real_shapes
from modalities.mesh.read import opened
from modalities.mesh.save import Model, closed
from modalities.mesh.shapes import held_out_colour, held_out_name, load
from modalities.packs import held_out
from suite import cli, storage, train
from suite.nn import NETWORKS
from tests.modalities.test_mesh_compose import box, chair, write_shape

SIDES = {name: (1, 0.1 + 0.05 * (i % 16), 0.1 + 0.05 * (i // 16)) for i, name in enumerate(NAMES)}
MODULES = Path(os.environ.get("SUITE_NODE_MODULES", "node_modules")).absolute()
AT = {"front": 0, "side": 1, "top": 2}


@pytest.fixture(autouse=True)
def without_node(monkeypatch, tmp_path):
    """No npm packages, which take seconds to start, but where they are what is tested."""
    monkeypatch.setenv("SUITE_NODE_MODULES", str(tmp_path))


def named(name, colour=(150, 150, 150)):
    return box(SIDES[name], colour=colour)


class Boxes:
    """Names boxes by their proportions; stands in for the trained network."""

    names = NAMES

    def scores(self, clouds):
        sides = np.array([np.ptp(points, axis=0) for points, _ in clouds])
        far = (sides / sides[:, :1])[:, None] - np.array(list(SIDES.values()))
        return torch.from_numpy(-1000 * np.square(far).sum(-1)).log_softmax(-1)


def painted(prompt):
    """The box of a prompt, in the colour or material that it asks for."""
    swatch = MATERIALS[prompt.material][1] if prompt.material else SWATCHES[prompt.colour or "gray"]
    return named(prompt.name, swatch)


def drawing(asked, made=painted, turned=None):
    """A drawer of boxes as the prompts ask, or of others' boxes."""
    by_text = {prompt.text: made(prompt) for prompt in asked}
    return lambda text, seed: Model(by_text[(turned or {}).get(text, text)], settings={})


def shown(points, colours=None):
    """The three looks, (5, H, W) each, at points of one colour or of several."""
    points = np.array(points, np.float32)
    colours = np.tile([255, 0, 0], (len(points), 1)) if colours is None else np.array(colours)
    return measure.views(points, colours.astype(np.uint8)).reshape(3, 5, measure.SIDE, measure.SIDE)


# what is measured


def test_a_point_is_where_each_look_must_have_it():
    found = shown([(0.5, 0.8, -0.6)])
    to_pixel = lambda x: int((x + 1) * measure.SIDE / 2)  # noqa: E731
    for look, right, up, near in (("front", 0.5, 0.8, -0.6), ("side", 0.6, 0.8, 0.5), ("top", 0.5, 0.6, 0.8)):
        depth, red, green, _, cover = found[AT[look]]
        rows, columns = np.nonzero(cover > 0)
        assert (rows.mean(), columns.mean()) == (to_pixel(-up), to_pixel(right)) and len(rows) == 9
        assert depth[cover > 0] == pytest.approx(near) and (red[cover > 0] == 1).all()
        assert (depth[cover < 0] == -1).all() and not red[cover < 0].any() and (green[cover > 0] == -1).all()


def test_the_nearest_point_hides_the_others_whatever_their_order():
    places, colours = [(0, 0, 0.5), (0, 0, -0.5)], [(0, 255, 0), (0, 0, 255)]
    for order in ((0, 1), (1, 0)):
        front = shown([places[i] for i in order], [colours[i] for i in order])[AT["front"]]
        at = front[4] > 0
        assert (front[2][at] == 1).all() and (front[3][at] == -1).all() and front[0][at] == pytest.approx(0.5)


def test_a_box_shows_each_look_the_face_that_is_turned_to_it():
    made = box((1, 1, 1))
    faces = {(0, 0, 1): (255, 0, 0), (1, 0, 0): (0, 255, 0), (0, 1, 0): (0, 0, 255)}
    hidden = (120, 120, 120)
    made.visual.face_colors = [faces.get(tuple(n), hidden) for n in made.face_normals.round().astype(int)]
    cloud = measure.cloud_of(made, np.random.default_rng(0))
    found = measure.views(*cloud).reshape(3, 5, measure.SIDE, measure.SIDE)
    for look, channel in AT.items():
        cover = found[channel, 4] > 0
        assert 0.75 < cover.sum() / (0.9 * measure.SIDE) ** 2 < 1.15, look
        inner = found[channel, 1:4, 6:-6, 6:-6][:, cover[6:-6, 6:-6]]
        assert (inner.argmax(0) == channel).mean() > 0.7 and (inner[channel] == 1).mean() > 0.7


def test_a_cloud_is_centred_and_even_by_area_in_the_colours_of_its_mesh():
    made = trimesh.util.concatenate([box((2, 2, 2), (10, 0, 0), (255, 0, 0)),
                                     box((1, 1, 1), (10, 1.5, 0), (0, 0, 255))])  # fmt: skip
    points, colours = measure.cloud_of(made, np.random.default_rng(0), 4000)
    assert points.dtype == np.float32 and np.abs(points.max(0) + points.min(0)).max() < 0.02
    assert np.ptp(points, axis=0).max() == pytest.approx(1.8, abs=0.01)
    assert (colours[:, 2] == 255).mean() == pytest.approx(6 / 30, abs=0.03)


def test_distances_of_known_sets():
    x = np.stack(np.meshgrid(*[np.linspace(-0.9, 0.9, 4)] * 3), -1).reshape(-1, 3)
    near, far = x + 0.01 * np.eye(3)[0], x + 0.05 * np.eye(3)[0]
    assert measure.chamfer(x, near) == pytest.approx(2e-4)
    assert measure.chamfer(x, x[:32]) == pytest.approx(np.square(measure.nearest(x, x[:32])).mean())
    assert measure.f_score(x, near) == 1 and measure.f_score(x, far) == 0
    assert measure.f_score(x[:32], x) == pytest.approx(2 / 3)  # all are right, half are found


def test_twins_are_covered_and_strangers_are_told_apart():
    rng = np.random.default_rng(0)
    real = [rng.uniform(-1, 1, (60, 3)) for _ in range(6)]
    twins = [points + 1e-3 for points in real]
    assert measure.likeness(twins, real) == {"coverage": 1, "1-NNA": 0}
    same = [real[2] + 1e-3 * (1 + i) for i in range(6)]
    assert measure.likeness(same, real)["coverage"] == pytest.approx(1 / 6)
    far = [0.1 * points for points in real]
    assert measure.likeness(far, real)["1-NNA"] == 1


def test_a_box_without_a_side_is_not_watertight_and_one_with_split_corners_is():
    made = box((1, 1, 1))
    split = trimesh.Trimesh(made.triangles.reshape(-1, 3), np.arange(36).reshape(-1, 3), process=False)
    assert closed(made) and closed(split)
    split.update_faces(np.arange(12) > 0)
    assert not closed(split)


def test_files_are_told_apart_by_the_tools_that_are_there(tmp_path, monkeypatch):
    Model(named("crate")).save(tmp_path / "good.glb")
    data = (tmp_path / "good.glb").read_bytes()
    (tmp_path / "bad.glb").write_bytes(data.replace(b'"max":[', b'"mix":['))
    monkeypatch.setenv("SUITE_NODE_MODULES", str(tmp_path))
    assert measure.faults_gltf([tmp_path / "good.glb"]) is None and measure.sound(None) is None
    monkeypatch.setenv("SUITE_NODE_MODULES", str(MODULES))
    share = measure.sound(measure.faults_gltf([tmp_path / "good.glb", tmp_path / "bad.glb"]))
    assert share == (0.5 if (MODULES / "gltf-validator").is_dir() and shutil.which("node") else None)


# what is asked


def test_the_prompts_ask_for_what_training_never_has():
    every = prompts(500)
    assert every == prompts(500) and prompts(3) != prompts(3, seed=1)
    assert list(dict.fromkeys(p.kind for p in every)) == list(KINDS)
    assert Counter(p.kind for p in prompts(5)) == dict.fromkeys(KINDS, 5)
    for p in every:
        assert p.name in p.text and p.name in NAMES and held_out_name(p.name) == (p.kind == "new")
        assert (p.kind == "colour") == bool(p.colour) and (p.kind == "material") == bool(p.material)
        if p.colour or p.material:
            assert held_out_colour(p.name, p.colour or p.material)
            assert (p.colour or p.material) not in SHOWN.get(p.name, "").split()
    assert {p.name for p in every if p.kind == "name"} == set(ASKED)
    assert len({(p.name, p.colour, p.material) for p in every}) == len(every)


def test_the_names_that_are_asked_for_are_those_of_the_shipped_recipe():
    recipe = train.read_recipe(storage.find("mesh") / "recipe.toml")
    assert set(recipe["data"]["names"]) == set(ASKED) <= set(NAMES)
    assert not any(map(held_out_name, ASKED))


def test_a_prompt_tells_the_colours_that_fit_it():
    assert Prompt("a chair", "name", "chair").colours == ()
    assert Prompt("a red chair", "colour", "chair", "red").colours == ("red",)
    assert Prompt("a golden man", "material", "man", None, "gold").colours == ("yellow",)
    assert "brown" in Prompt("a wooden dog", "material", "dog", None, "wood").colours


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """Five crates, one of them kept from the judge, a chair and a pole of a name that is held out."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    folder.mkdir()
    stems = [f"c{n}" for n in range(200)]
    kept = next(stem for stem in stems if held_out("judge", f"{stem}.npz", share=0.15))
    free = [stem for stem in stems if not held_out("judge", f"{stem}.npz", share=0.15)][:4]
    lines = [write_shape(folder, stem, box((1, 0.5 + 0.1 * n, 0.3)), "crate", (200, 60, 60))
             for n, stem in enumerate([*free, kept])]  # fmt: skip
    lines.append(write_shape(folder, "chair", chair(), "chair", (225, 50, 50)))
    lines.append(write_shape(folder, "pole", box((0.2, 1, 0.2)), "kettle", (60, 130, 230)))
    lines.append(write_shape(folder, "rare", box((1, 1, 1)), "unicorn", (60, 130, 230)))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder.parent


def test_the_judge_is_kept_from_some_files_of_names_with_several(pack):
    trained, kept = parted(pack)
    assert [shape.name for shape in kept] == ["crate"] and held_out("judge", kept[0].path.name, share=0.15)
    assert Counter(shape.name for shape in trained) == {"crate": 4, "chair": 1, "kettle": 1}
    asked = [Prompt("a green crate", "colour", "crate", "green"), Prompt("a crate", "name", "crate"),
             Prompt("a tree", "name", "tree"), Prompt("a stone chair", "material", "chair", None, "stone")]
    real = real_shapes(asked, pack)
    assert list(real) == [0, 1, 3] and real[0][0] == real[1][0] == kept[0].path
    seen = looks([(drawn.points, drawn.colours) for _, drawn in real.values()], Boxes())
    assert [look["colour"] for look in seen] == ["green", "red", "gray"]


# what is judged


def test_name_and_colour_are_judged_apart():
    prompt = Prompt("a green chair", "colour", "chair", "green")
    look = {"names": ["bench", "chair"], "colour": "green"}
    assert verdict(prompt, look) == Verdict(named=True, seen=True, right=True)
    assert verdict(prompt, look | {"colour": "red"}) == Verdict(named=True, seen=False, right=False)
    assert verdict(prompt, look | {"names": ["bench"]}) == Verdict(named=False, seen=True, right=False)
    assert verdict(Prompt("a chair", "name", "chair"), look | {"colour": "red"}).right


def test_an_oracle_scores_one_and_a_shuffled_one_near_nothing(tmp_path):
    asked, sheet = prompts(3), tmp_path / "sheet.png"
    report = evaluate(drawing(asked), Boxes(), 3, 0, sheet=sheet)
    assert all(row["right"] == row["first"] == 1 for row in report["scores"].values())
    assert report["meshes"]["watertight"] == 1 and report["meshes"]["triangles"] == 12
    assert Image.open(sheet).width > 1000 and len(report["clouds"]) == len(report["prompts"]) == len(asked)
    texts = [prompt.text for prompt in asked]
    others = judging.others([prompt.kind for prompt in asked])
    turned = {text: texts[i] for text, i in zip(texts, others, strict=True)}
    assert evaluate(drawing(asked, turned=turned), Boxes(), 3, 0)["scores"]["mean"]["right"] < 0.2


def test_what_is_grey_and_open_is_named_but_neither_of_the_colour_nor_watertight(monkeypatch):
    def pale(prompt):
        made = named(prompt.name)
        made.update_faces(np.arange(12) > 1)
        return made

    monkeypatch.setitem(sys.modules, "pxr", None)  # as where usd-core is not installed
    report = evaluate(drawing(prompts(2), pale), Boxes(), 2, 0)
    assert report["meshes"]["USD"] is None
    rows, asked = report["scores"], [p for p in prompts(2) if p.kind == "material"]
    assert rows["colour"]["seen"] == 0 and rows["colour"]["named"] == rows["name"]["right"] == 1
    assert rows["material"]["seen"] == sum("gray" in p.colours for p in asked) / 2
    assert rows["mean"]["seen"] == (rows["colour"]["seen"] + rows["material"]["seen"]) / 2
    assert report["meshes"]["watertight"] == 0


def test_the_judge_s_own_scores_are_its_own():
    asked = prompts(3)
    real = {i: measure.cloud_of(painted(p), np.random.default_rng(0)) for i, p in enumerate(asked) if i != 1}
    found = real_scenes(Boxes(), asked, real)
    assert found["real"]["mean"]["right"] == 1 and found["chance"]["mean"]["right"] < 0.2
    assert found["real"]["name"]["prompts"] == 2


class Known:
    """A pipeline whose latents decode to a solid of known half-sides, whatever they are of."""

    adapter, device = adapter, "cpu"

    def __init__(self, half=(0.18, 0.9, 0.18)):
        along = (torch.arange(48) + 0.5) / 24 - 1
        places = torch.stack(torch.meshgrid(along, along, along, indexing="ij"))
        deep = (torch.tensor(half)[:, None, None, None] - places.abs()).amin(0)
        field = torch.stack([20 * deep, *[torch.zeros_like(deep)] * 3])[None]
        self.latent = SimpleNamespace(encode=self.encode, decode=lambda z: field)

    def encode(self, x):
        assert x.shape == (1, 4, CELLS, CELLS, CELLS) and x.abs().max() <= 1
        return x

    def request(self, prompt, **fields):
        return MeshRequest(prompt=prompt, **fields)


def test_a_shape_that_comes_back_as_it_was_has_the_best_f_score(pack, monkeypatch):
    monkeypatch.setattr(judge, "DENSE", 8192)
    pole = [shape.path for shape in load(pack) if shape.held]
    assert len(pole) == 1
    good, bad = (reconstructed(Known(half), pole) for half in ((0.18, 0.9, 0.18), (0.9, 0.2, 0.2)))
    assert good["decoded"]["F-score"] > 0.95 and good["the same"]["F-score"] > 0.99
    assert bad["decoded"]["F-score"] < 0.3 and bad["decoded"]["chamfer"] > 30 * good["decoded"]["chamfer"]
    assert good["shapes"] == 1 and good["the same"] == bad["the same"]


# how the judge is trained


RECIPE = {
    "text": "words",
    "network": {"type": "classifier", "channels": 15, "widths": [8, 8], "stride": 4, "grid": 2,
                "text_width": 8},
    "train": {"steps": 4, "batch": 4, "rate": 1e-3, "decay": 0.1, "seed": 1, "every": 2},
}  # fmt: skip


@pytest.fixture
def reads_words(monkeypatch, words):
    for module in (naming, judge_train):
        monkeypatch.setattr(module, "load_text", lambda name: words)


def test_an_example_is_its_shape_varied_but_within_bounds(pack):
    drawn = judge_train.pool(parted(pack)[0][:1])[0]
    clouds = [judge_train.varied(drawn, np.random.default_rng(n)) for n in range(40)]
    sides = np.array([np.ptp(points, axis=0) for points, _ in clouds])
    true = np.ptp(drawn.points, axis=0)
    assert np.abs(np.median(sides, 0) - true).max() < 0.25 and (sides.std(0) > 0.01).all()
    assert all(np.abs(points).max() <= 1 and 1024 <= len(points) <= 2048 for points, _ in clouds)
    told = Counter(look["colour"] for look in looks(clouds, Boxes()))
    assert 0.4 < told["red"] / 40 < 0.9 and len(told) > 5 and set(told) <= set(COLOURS)
    again = judge_train.varied(drawn, np.random.default_rng(3))
    assert all((a == b).all() for a, b in zip(again, clouds[3], strict=True))


def test_a_killed_training_goes_on_to_the_same_weights(pack, tmp_path, reads_words, monkeypatch):
    judge_train.train(RECIPE, pack, tmp_path / "whole")
    calls, varied = [], judge_train.varied

    def killed(*args):
        calls.append(args)
        if len(calls) == 14:
            raise KeyboardInterrupt
        return varied(*args)

    monkeypatch.setattr(judge_train, "varied", killed)
    with pytest.raises(KeyboardInterrupt):
        judge_train.train(RECIPE, pack, tmp_path / "killed")
    judge_train.train(RECIPE, pack, tmp_path / "killed")
    assert len(calls) == 14 + 2 * 4  # from the checkpoint after two steps
    whole, mended = (storage.weights(tmp_path / name) for name in ("whole", "killed"))
    assert all(torch.equal(whole[key], mended[key]) for key in whole)
    assert storage.config(tmp_path / "whole")["trained_on"] == {"shapes": 6, "names": 3}


def test_it_learns_to_tell_a_chair_from_a_crate(pack, tmp_path, reads_words, monkeypatch):
    names = ("chair", "crate", "kettle")
    monkeypatch.setattr(judge_train, "NAMES", names)
    options = {"steps": 30, "batch": 8, "rate": 1e-2, "cache": str(pack / "cache")}
    judge_train.train(RECIPE | {"train": RECIPE["train"] | options}, pack, tmp_path / "judge")
    namer, _ = measure.namer(names, tmp_path / "judge")
    trained, kept = parted(pack)
    for shape in (*kept, next(shape for shape in trained if shape.name == "chair")):
        cloud = measure.cloud_of(opened("shape", shape.path), np.random.default_rng(1))
        assert namer.names[int(namer.scores([cloud]).argmax())] == shape.name


@pytest.fixture
def tiny_judge(tmp_path):
    """The folder of a judge of random weights."""
    options = {key: value for key, value in RECIPE["network"].items() if key != "type"}
    settings = {"modality": "mesh", "kind": "judge", "text": "words", "network": RECIPE["network"]}
    storage.save(tmp_path / "judge", NETWORKS["classifier"](**options), settings)
    return tmp_path / "judge"


def test_the_command_tells_and_writes_what_it_found(
    pack, tmp_path, tiny_judge, tiny_mesh_model, reads_words, monkeypatch, capsys
):
    monkeypatch.setattr(judge, "FEW", 1)
    monkeypatch.setattr(judge, "DENSE", 2048)
    judge_train.record(tiny_judge, pack, count=1)
    argv = ["--model", tiny_mesh_model, "--judge", tiny_judge, "--count", 1, "--steps", 1, "--texture", 0]
    argv += ["--triangles", 500, "--json", tmp_path / "found.json", "--sheet", tmp_path / "sheet.png"]
    assert cli.main(["eval", "mesh", *map(str, argv)]) == 0
    told, report = capsys.readouterr().out, json.loads((tmp_path / "found.json").read_text())
    assert all(f"| {kind} | 1 |" in told for kind in KINDS) and "watertight 1.00" in told
    assert "1 of 1 names, 227 to choose from" in told and "likeness" not in report
    assert report["request"]["triangles"] == 500 and report["request"]["num_inference_steps"] == 1
    assert len(report["prompts"]) == len(KINDS) == report["meshes"]["number"]
    cells = next(line for line in told.splitlines() if line.startswith("| name")).split(" | ")
    assert cells[5] == "-" and Image.open(tmp_path / "sheet.png").width > 1000
    assert cli.main(["eval", "mesh", *map(str, argv), "--data", str(pack)]) == 0
    told, report = capsys.readouterr().out, json.loads((tmp_path / "found.json").read_text())
    assert "1 held-out shapes through the latents and back" in told
    assert 0 <= report["reconstruction"]["decoded"]["F-score"] < 0.95
    assert 0 <= report["likeness"]["1-NNA"] <= 1 and "coverage" in told


@pytest.mark.parametrize("argv, said", [
    (["--count", "0"], "count is 0; it must be 1 to 500"),
    (["--count", "x"], "invalid int value: 'x'"),
    (["--triangles", "9"], "triangles is '9'; it must be at least 100"),
    (["--model", "nowhere"], "model 'nowhere' was not found"),
    (["--json", "nowhere/found.json"], "json is 'nowhere/found.json'; it must be a .json file"),
    (["--sheet", "sheet.gif"], "sheet is 'sheet.gif'; it must be a .png file"),
    (["--data", "nowhere"], "data is 'nowhere'; there is no such folder"),
    (["--data", "tests"], "cannot be read as training data"),
])  # fmt: skip
def test_what_cannot_be_done_is_refused_in_one_sentence(argv, said, tiny_mesh_model, capsys):
    assert cli.main(["eval", "mesh", "--model", str(tiny_mesh_model), *argv]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("recipe", [True, False])
def test_the_judge_s_training_refuses_what_are_no_packs(recipe, tmp_path, capsys):
    (tmp_path / "metadata.jsonl").write_text(write_shape(tmp_path, "a", box((1, 1, 1)), "unicorn", (9, 9, 9)))
    (tmp_path / "recipe.toml").write_text('text = "words"\n[network]\n[train]\n')
    argv = ["--data", str(tmp_path), "--out", str(tmp_path / "judge")]
    assert judge_train.main(argv + (["--recipe", str(tmp_path / "recipe.toml")] if recipe else [])) == 2
    error = capsys.readouterr().err
    assert "holds no shape of the names that are asked for; it must hold the packs" in error
    assert error.count("\n") == 1 and not (tmp_path / "judge").exists()


DATA = os.environ.get("SUITE_DATA")


@pytest.mark.skipif(not DATA, reason="SUITE_DATA names no folder with the unpacked packs")
def test_the_names_are_those_of_three_shapes_or_that_are_held_out():
    count = Counter(shape.name for shape in load(Path(DATA)))
    assert set(NAMES) == {name for name in count if count[name] >= 3 or held_out_name(name)}
