"""The judge of pictures, held to scenes whose truth is known."""

import json
import math
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from modalities.image import judge, judge_train, measure
from modalities.image.colour import colour_of, shares
from modalities.image.compose import held_out, held_out_object, held_out_pair, load, sprite
from modalities.image.judge import Verdict, evaluate, scores, verdict
from modalities.image.prompts import COLOURS, KINDS, OBJECTS, PAINTED, Prompt, prompts, real_scene, stills
from suite import cli, storage
from suite.nn import NETWORKS
from tests.conftest import Words

SIDE = 128


def scene(*discs, ground="white", noise=0.0):
    """Discs (x, y, radius, colour) on a ground."""
    picture = Image.new("RGB", (SIDE, SIDE), ground)
    draw = ImageDraw.Draw(picture)
    for x, y, radius, colour in discs:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)
    pixels = np.asarray(picture, float) + noise * np.random.default_rng(0).normal(size=(SIDE, SIDE, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


class Silhouettes:
    """Names objects by their outline, of which every name has its own; stands in for the trained network."""

    names, side = list(OBJECTS), 64

    def __init__(self):
        self.known = np.stack([self.outline(self.draw(name).split()[3].resize((64, 64))) for name in OBJECTS])

    @staticmethod
    def draw(name):
        """A red disc with a rim of its own, as RGBA."""
        rng = random.Random(name)
        radii = [rng.choice((20, 31)) for _ in range(14)]
        corners = [(2 * math.pi * i / 14, r) for i, r in enumerate(radii)]
        points = [(32 + r * math.cos(a), 32 + r * math.sin(a)) for a, r in corners]
        picture = Image.new("RGBA", (64, 64))
        ImageDraw.Draw(picture).polygon(points, (222, 40, 44, 255))
        return picture

    @staticmethod
    def outline(mask):
        box = mask.point(lambda a: 255 * (a > 128)).getbbox()
        return np.asarray(mask.crop(box).resize((32, 32)), float).ravel() / 255

    def scores(self, crops):
        found = torch.zeros(len(crops), len(self.names))
        for row, crop in zip(found, crops, strict=True):
            mask = Image.fromarray(255 * measure.parts(crop)[0].mask.astype(np.uint8))
            row[:] = torch.from_numpy(-((self.known - self.outline(mask)) ** 2).mean(1))
        return (300 * found).log_softmax(-1)

    def features(self, pictures):
        return torch.stack([measure.tensor([p], 8).flatten() for p in pictures])


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """A pack that holds one picture of every object the evaluation asks for, and two of another style.

    It also holds three objects that are held out.
    """
    folder = tmp_path_factory.mktemp("packs") / "stills"
    folder.mkdir()
    rows = []
    strange = [name for name in (f"thing{i}x" for i in range(1000)) if held_out_object(name)][:3]
    for number, name in enumerate((*OBJECTS, *strange)):
        Silhouettes.draw(name).save(folder / f"{number}.png")
        styles = ("3d emoji", "flat emoji", "flat emoji")
        rows += [{"file_name": f"{number}.png", "text": name, "style": style} for style in styles]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder.parent


def test_prompts_are_the_same_for_a_seed_and_ask_for_what_training_never_showed():
    asked = prompts(16, seed=3)
    assert asked == prompts(16, seed=3) != prompts(16, seed=4)
    assert [sum(p.kind == kind for p in asked) for kind in KINDS] == [16] * 6
    for prompt in asked:
        names = [name for name, _ in prompt.things]
        assert not any(map(held_out_object, names))
        assert all(name in prompt.text or prompt.count > 1 for name in names)
        if len(names) == 2:
            assert held_out_pair(*names)
        elif prompt.count > 1:
            assert held_out("count", names[0], str(prompt.count))
        elif prompt.things[0][1]:
            assert held_out("colour", *prompt.things[0])
        assert not any(colour in PAINTED.get(name, ()) for name, colour in prompt.things)


DATA = os.environ.get("SUITE_DATA")
with_packs = pytest.mark.skipif(not DATA, reason="SUITE_DATA names no folder with the unpacked packs")


@with_packs
def test_training_shows_an_object_in_no_other_colours_than_those_we_know():
    found = {name: set() for name in PAINTED}
    for item in load(Path(DATA), PAINTED):
        picture = np.asarray(sprite(item.path, 256))
        found[item.name].add(next(iter(shares(picture[..., :3], picture[..., 3]))))
    assert {name: found[name] & set(COLOURS) for name in PAINTED} == {n: set(c) for n, c in PAINTED.items()}


@with_packs
def test_what_a_negative_prompt_negates_is_there():
    paths = stills(Path(DATA))
    for name, colour in judge.NEGATED.items():
        for path in paths[name]:
            assert colour_of(sprite(path, 256), 0.5) == colour, name


@pytest.mark.parametrize("ground", ["white", "#4285eb", "gradient"])
@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5])
def test_parts_are_counted_on_any_even_ground(ground, number):
    places = [(30, 30), (95, 34), (34, 98), (98, 98), (64, 64)][:number]
    picture = scene(*((x, y, 14, "#e23034") for x, y in places), noise=3)
    if ground == "gradient":
        pixels = np.asarray(picture, float) - np.linspace(0, 120, SIDE)[:, None, None]
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    elif ground != "white":
        picture = scene(*((x, y, 14, "#fad43c") for x, y in places), ground=ground, noise=3)
    assert len(measure.parts(picture)) == number


def test_a_stray_is_no_object_and_a_hole_is_no_colour():
    picture = scene((40, 64, 30, "#48ac54"), (40, 64, 22, "white"), (110, 20, 5, "black"))
    (part,) = measure.parts(picture)
    assert measure.colour(picture, part) == "green"
    assert part.centre == pytest.approx((40, 64), abs=1)
    assert part.box == (10, 34, 71, 95)


def test_place_is_told_by_centres():
    left, right = sorted(
        measure.parts(scene((30, 64, 20, "red"), (98, 70, 18, "blue"))), key=lambda p: p.centre
    )
    found = {r for r in ("left of", "right of", "above", "below") if measure.stands(left, right, r)}
    assert found == {"left of"}  # farther to the left than above
    assert {r for r in found if measure.stands(right, left, r)} == set() and measure.stands(
        right, left, "right of"
    )


def test_a_crop_shows_one_object_alone():
    picture = scene((40, 64, 20, "#e23034"), (84, 64, 20, "#4285eb"))
    crop = np.asarray(measure.crop(picture, measure.parts(picture)[0], 64))
    assert set(measure.shares(crop.reshape(8, -1, 3))) <= {"red", "pink", "white"} | {"blue", "purple"}
    assert len({"red", "blue"} & {w for w, s in measure.shares(crop).items() if s > 0.1}) == 1


def test_kernel_distance_is_the_closed_form_of_two_points():
    x, y = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    within_x, within_y, across = 1.0, 1.0, (1.5**3 * 3 + 0.5**3) / 4
    assert measure.kernel_distance(x, y) == pytest.approx(within_x + within_y - 2 * across)


def test_kernel_distance_is_none_between_equals_and_some_between_others():
    z = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
    real = {"held out": z[100:300], "asked": z[300:]}
    found = measure.kernel_distances(z[:100], real)
    assert abs(found["of pictures"] - found["of real scenes"]) < 5 * found["of real scenes, deviation"]
    assert abs(found["of real scenes"]) < 0.1
    assert measure.kernel_distances(z[:100] + 1, real)["of pictures"] > 0.5


def test_real_scenes_are_right_and_those_of_other_prompts_are_chance(packs):
    found = judge.real_scenes(Silhouettes(), stills(packs), count=3)
    assert found["real"]["mean"]["right"] > 0.95, found["real"]
    assert found["chance"]["mean"]["right"] < 0.1


def test_the_kernel_distance_is_to_objects_that_no_training_shows(packs, monkeypatch):
    drawn = []
    monkeypatch.setattr("modalities.image.prompts.real_scene", lambda prompt, *_: drawn.append(prompt))
    namer = Silhouettes()
    namer.features = lambda scenes: torch.zeros(len(scenes), 2)
    found = judge.reference(namer, stills(packs), count=2, draws=3)
    assert {key: len(rows) for key, rows in found.items()} == {"held out": 36, "asked": 36}
    for strange, asked in zip(drawn[::2], drawn[1::2], strict=True):
        assert all(held_out_object(name) for name, _ in strange.things) and asked in prompts(2)
        assert [colour for _, colour in strange.things] == [colour for _, colour in asked.things]


def test_an_oracle_scores_near_one_and_a_shuffled_one_near_nothing(packs):
    real = stills(packs)
    by_text = {p.text: p for p in prompts(3)}
    plain = {f"{'an' if n[0] in 'aeiou' else 'a'} {n}": n for n in OBJECTS}

    def draw(prompt, seed, negative_prompt="", guidance_scale=4):
        if prompt in plain:  # the check of negative prompts
            asked = next(iter(by_text.values()))
            one = type(asked)(prompt, "one object", ((plain[prompt], "green" if negative_prompt else "red"),))
            return real_scene(one, real, random.Random(seed), SIDE)
        return real_scene(by_text[prompt], real, random.Random(seed), SIDE)

    report = evaluate(draw, Silhouettes(), 3, 0)
    assert report["scores"]["mean"]["right"] > 0.9
    reds = report["negative prompt"]
    assert reds["colour without"] > reds["colour with"] and reds["named with"] > 0.9
    texts = list(by_text)
    turned = dict(zip(texts, texts[5:] + texts[:5], strict=True))
    report = evaluate(lambda p, **fields: draw(turned.get(p, p), **fields), Silhouettes(), 3, 0)
    assert report["scores"]["mean"]["right"] < 0.1


def test_both_ways_of_being_wrong_are_told_apart():
    prompt = next(p for p in prompts(1) if p.kind == "colours")
    asked = {"red": "green"}.get(prompt.things[0][1], prompt.things[0][1])
    namer = Silhouettes()
    shape = namer.draw(prompt.things[0][0]).resize((100, 100))
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    picture.paste(shape, (14, 14), shape)
    assert verdict(prompt, picture, namer) == Verdict(named=True, seen=asked == "red", right=asked == "red")
    assert verdict(prompt, Image.new("RGB", (SIDE, SIDE), "white"), namer) == Verdict(False, False, False)
    table = scores([prompt, prompt], [Verdict(True, True, False), Verdict(True, False, True)])
    assert table["mean"] == {"prompts": 2, "right": 0.5, "named": 1.0, "seen": 0.5}


class Sides:
    """Names what is on a picture's left "cat" and what is on its right "dog", whatever the pixels are."""

    names, side = ("cat", "dog"), 64

    def scores(self, crops):
        return torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()[: len(crops)]


DISCS = ((30, 64, 21, "#e23034"), (98, 64, 20, "#4285eb"))  # the larger one, which is the first part, is left


@pytest.mark.parametrize("colours, relation, right, seen", [
    (("red", "blue"), None, True, True),
    (("blue", "red"), None, False, True),  # the colours are there, on the wrong objects
    (("red", "red"), None, False, False),
    ((None, None), "left of", True, True),
    ((None, None), "right of", False, True),
    ((None, None), "above", False, False),
    (("blue", "red"), "right of", False, True),
    (("blue", "red"), "left of", False, False),
])  # fmt: skip
def test_pixels_alone_know_no_names(colours, relation, right, seen):
    things = tuple(zip(Sides.names, colours, strict=True))
    prompt = Prompt("", "position", things, relation=relation)
    assert verdict(prompt, scene(*DISCS), Sides()) == Verdict(True, seen, right)


def test_what_nobody_asked_for_is_wrong():
    cat, dog = ("cat", None), ("dog", None)
    one, two = Prompt("", "one object", (cat,)), Prompt("", "two objects", (cat, dog))
    assert verdict(one, scene(DISCS[0]), Sides()) == Verdict(True, True, True)
    assert verdict(one, scene(*DISCS), Sides()) == Verdict(True, False, False)
    assert verdict(two, scene(*DISCS), Sides()) == Verdict(True, True, True)
    namer = Sides()
    namer.scores = lambda crops: torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5]]).log()
    assert verdict(two, scene(*DISCS, (64, 20, 18, "#48ac54")), namer) == Verdict(True, False, False)


def test_turning_the_hue_keeps_grey_grey():
    grey = torch.full((8, 4, 32, 32), 128, dtype=torch.uint8)
    grey[:, 3] = 255
    x = judge_train.augmented(grey, torch.Generator().manual_seed(0))[:, :, 12:20, 12:20]
    assert (x.mean((2, 3)).std(1) < 0.02).all()


RECIPE = {
    "text": "words",
    "network": {"type": "classifier", "widths": [8, 8], "stride": 8, "text_width": Words.width},
    "train": {"steps": 4, "batch": 8, "asked": 0.5, "rate": 1e-3, "decay": 0.1, "seed": 1, "every": 2},
}


@pytest.fixture
def reads_words(monkeypatch, words):
    for module in (measure, judge_train):
        monkeypatch.setattr(module, "load_text", lambda name: words)


def test_a_killed_training_goes_on_to_the_same_weights(packs, tmp_path, reads_words, monkeypatch):
    judge_train.train(RECIPE, packs, tmp_path / "whole")
    calls, augmented = [], judge_train.augmented

    def killed(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return augmented(*args)

    monkeypatch.setattr(judge_train, "augmented", killed)
    with pytest.raises(KeyboardInterrupt):
        judge_train.train(RECIPE, packs, tmp_path / "killed")
    judge_train.train(RECIPE, packs, tmp_path / "killed")
    assert len(calls) == 6  # steps 1 to 3 and the killed one, then 3 and 4 again
    whole, mended = (storage.weights(tmp_path / name) for name in ("whole", "killed"))
    assert all(torch.equal(whole[key], mended[key]) for key in whole)


def test_the_command_tells_and_writes_what_it_found(
    packs, tmp_path, tiny_model, reads_words, monkeypatch, capsys
):
    monkeypatch.setattr(judge, "NEGATED", {"banana": "yellow"})
    options = {key: value for key, value in RECIPE["network"].items() if key != "type"}
    folder = tmp_path / "judge"
    settings = {
        "modality": "image",
        "kind": "judge",
        "text": "words",
        "side": 64,
        "network": RECIPE["network"],
    }
    storage.save(folder, NETWORKS["classifier"](**options), settings)
    judge_train.record(folder, packs, count=1)
    argv = ["--model", tiny_model, "--judge", folder, "--count", 1, "--steps", 2, "--guidance-scale", 2]
    argv += ["--json", tmp_path / "found.json", "--sheet", tmp_path / "sheet.png"]
    assert cli.main(["eval", "image", *map(str, argv)]) == 0
    told, report = capsys.readouterr().out, json.loads((tmp_path / "found.json").read_text())
    assert all(f"| {kind} | 1 |" in told for kind in KINDS) and "kernel distance" in told
    assert len(report["prompts"]) == 6 and report["request"]["num_inference_steps"] == 2
    assert report["judge"]["held_out_pictures"]["asked names"]["pictures"] == len(OBJECTS)
    assert Image.open(tmp_path / "sheet.png").width > 1000
    chance = report["judge"]["chance"]["position"]
    assert f"| {chance['right']:.2f} | {chance['seen']:.2f} |" in told


@pytest.mark.parametrize(
    "argv, said",
    [
        (["--count", "0"], "count is 0; it must be 1 to 500"),
        (["--count", "x"], "invalid int value: 'x'"),
        (["--steps", "0"], "num_inference_steps is '0'; it must be at least 1"),
        (["--guidance-scale", "nan"], "guidance_scale is 'nan'; it must be a finite number"),
        (["--model", "nowhere"], "model 'nowhere' was not found"),
        (["--json", "nowhere/found.json"], "json is 'nowhere/found.json'; it must be a .json file"),
        (["--sheet", "sheet.gif"], "sheet is 'sheet.gif'; it must be a .png file"),
        (["--data", "nowhere"], "data is 'nowhere'; there is no such folder"),
        (["--data", "tests"], "tests holds no 3d picture of an airplane; it must hold the packs"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(argv, said, capsys):
    assert cli.main(["eval", "image", *argv]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("recipe", [True, False])
def test_the_judge_s_training_refuses_what_are_no_packs(recipe, tmp_path, capsys):
    argv = ["--data", str(tmp_path), "--out", str(tmp_path / "judge")]
    argv += ["--recipe", str(Path(__file__).parents[2] / "models/image-judge/recipe.toml")] if recipe else []
    assert judge_train.main(argv) == 2
    error = capsys.readouterr().err
    assert "holds no 3d picture of an airplane; it must hold the packs" in error and error.count("\n") == 1
    assert not (tmp_path / "judge").exists()
