"""The judge of clips, held to clips whose truth is known."""

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from modalities.image import measure
from modalities.image.colour import SWATCHES
from modalities.image.prompts import OBJECTS
from modalities.judging import Verdict
from modalities.packs import held_out
from modalities.video import flow, judge
from modalities.video.compose import held_out_motion, moving
from modalities.video.motion import MOTIONS
from modalities.video.prompts import KINDS, Prompt, prompts
from suite import cli
from tests.conftest import write_video_models

CENT = SWATCHES["red"]


class Discs:
    """Names what it sees by its colour: red is a cat, all else a dog; stands in for the trained network."""

    names, side = OBJECTS, 16

    def scores(self, crops):
        scores = torch.full((len(crops), len(OBJECTS)), -9.0)
        for row, crop in zip(scores, crops, strict=True):
            red, _, blue = np.asarray(crop)[8, 8].astype(int)
            row[OBJECTS.index("cat" if red > blue + 6 else "dog")] = -0.01
        return scores

    def features(self, pictures):
        return torch.stack([torch.from_numpy(np.asarray(p, np.float32)).mean((0, 1)) for p in pictures])


def disc(colour=CENT):
    picture = Image.new("RGBA", (96, 96))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((2, 2, 94, 94), fill=colour)
    draw.rectangle((40, 6, 56, 30), fill=(20, 20, 20))  # or none could see that it turns
    return picture


def clip(motion, colour=CENT, seed=0):
    white = np.full((96, 96, 3), 255.0)
    return moving(disc(colour), motion, random.Random(seed), white, 24)


def test_prompts_are_what_training_never_shows():
    asked = prompts(28)
    assert [prompt.kind for prompt in asked] == [KINDS[0]] * 28 + [KINDS[1]] * 28
    assert all(held_out_motion(p.name, p.motion) for p in asked if p.kind == "motion")
    assert all(held_out("colour", p.name, p.colour) for p in asked if p.kind == "colour")
    assert {prompt.motion for prompt in asked[:14]} == set(MOTIONS) == {p.motion for p in asked[28:42]}
    assert all(p.motion in p.text and p.name in p.text for p in asked)
    assert prompts(28) == asked != prompts(28, 1)


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_clip_is_right_if_the_thing_that_was_asked_for_moves_as_was_asked(motion):
    shown = clip(motion)
    assert judge.verdict(Prompt("", "motion", "cat", motion), shown, Discs()) == Verdict(True, True, True)
    assert judge.verdict(Prompt("", "motion", "dog", motion), shown, Discs()) == Verdict(False, True, False)
    other = MOTIONS[(MOTIONS.index(motion) + 1) % len(MOTIONS)]
    assert judge.verdict(Prompt("", "motion", "cat", other), shown, Discs()) == Verdict(True, False, False)


def test_the_colour_must_be_that_which_was_asked_for():
    asked = Prompt("", "colour", "cat", "rising", "red")
    assert judge.verdict(asked, clip("rising"), Discs()).right
    blue = judge.verdict(asked, clip("rising", SWATCHES["blue"]), Discs())
    assert not blue.seen and not blue.named


def test_nothing_is_wrong():
    empty = np.full((24, 64, 64, 3), 255, np.uint8)
    asked = Prompt("", "motion", "cat", "standing still")
    assert judge.verdict(asked, empty, Discs()) == Verdict(False, False, False)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Of a model that draws every prompt as it is asked for, but for a cat in place of all things."""
    calls, tmp_path = [], tmp_path_factory.mktemp("report")

    def draw(text, seed, **more):
        calls.append((text, seed, more))
        motion = next(motion for motion in MOTIONS if text.endswith(motion))
        frames = clip(motion, seed=seed)
        return np.concatenate([frames] * 4) if more.get("num_frames") else frames

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow, "warping_error", lambda frames: float(len(frames)))  # which takes seconds
        made = judge.evaluate(draw, Discs(), 14, 5, tmp_path / "sheet.png")
    return made, calls, tmp_path / "sheet.png"


def test_every_figure_is_of_the_clips_that_were_drawn(report):
    made, calls, sheet = report
    assert made["scores"]["motion"]["seen"] == 1 and made["scores"]["motion"]["named"] == 0
    assert made["scores"]["colour"]["seen"] < 1 and made["scores"]["rising"]["prompts"] == 2
    assert made["seam"]["clips"] == 10 and made["drift"]["clips"] == 4 and made["drift"]["long"] < 1
    assert [more for *_, more in calls[:28]] == [{}] * 28
    assert [seed for _, seed, _ in calls[:28]] == list(range(5, 33))
    assert [more for *_, more in calls[28:]] == [{"loop": True}] * 10 + [{"num_frames": 96}] * 4
    assert len(made["clips"]) == 28 and made["flicker"] == 24
    assert Image.open(sheet).width > 2 * 8 * 64


def test_the_card_s_table_has_a_row_a_kind_and_a_motion(report):
    shown = judge.markdown({**report[0]})
    assert shown.count("\n| ") == 1 + 2 + 1 + len(MOTIONS) and "- seam of 10 loops" in shown
    row = next(line for line in shown.splitlines() if line.startswith("| motion |"))
    assert row.split(" | ")[1:] == ["14", "0.00 ± 0.07", "0.00", "1.00", "-", "-", "-", "- |"]


def test_the_command_judges_a_model(tmp_path, monkeypatch, words, capsys):
    monkeypatch.setattr("suite.pipeline.load_text", lambda name, limit=None: type(words)(name))
    monkeypatch.setattr(measure, "namer", lambda names, model: (Discs(), {}))
    monkeypatch.setattr(judge, "LONG", 9)
    model = write_video_models(tmp_path, "words 280", 280)
    told = ["eval", "video", "--model", str(model), "--count", "1", "--steps", "1"]
    assert cli.main([*told, "--json", str(tmp_path / "a.json")]) == 0
    assert "| mean | 2 |" in capsys.readouterr().out
    saved = json.loads((tmp_path / "a.json").read_text())
    assert saved["request"]["num_inference_steps"] == 1 and len(saved["prompts"]) == 2
    assert cli.main([*told, "--count", "0"]) == 2
    assert "count is 0; it must be 1 to 500" in capsys.readouterr().err
