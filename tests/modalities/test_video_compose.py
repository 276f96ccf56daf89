"""Composed clips against their captions: the test draws the objects, so it knows what must be seen."""

import json
import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from modalities.image.compose import held_out_object
from modalities.video import adapter, compose
from modalities.video.motion import MOTIONS, ROUND, WORDS, course
from modalities.video.picture import TOKENS

SIZE, FRAMES = 64, 12
KEPT = ("wedge", "hook")


def wedge(colour="red", alpha=255):
    """An object that shows how it is turned."""
    picture = Image.new("RGBA", (64, 64))
    ImageDraw.Draw(picture).polygon([(4, 4), (60, 60), (4, 60)], fill=colour)
    picture.putalpha(picture.getchannel("A").point(lambda a: min(a, alpha)))
    return picture


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two still objects, one more that is held out, an animation, a turntable and animations held out."""
    root = tmp_path_factory.mktemp("data")
    held = next(f"thing{i}x" for i in range(1000) if held_out_object(f"thing{i}x"))
    for pack in ("stills", "clips"):
        (root / pack).mkdir()
    rows = []
    for name in (*KEPT, held):
        wedge().save(root / "stills" / f"{name}.png")
        rows.append({"file_name": f"{name}.png", "text": name, "style": "3d emoji"})
    (root / "stills" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = next(f"{i}.webp" for i in range(1000) if compose.held_out_clip(f"{i}.webp"))
    rows = []
    for file, name, source in (("a.webp", "wedge", "fluent_anim"), ("b.webp", "cherry rainier", "fruits360"),
                               (out, "outsider", "fluent_anim")):  # fmt: skip
        frames = [wedge().rotate(15 * i) for i in range(24)]
        if source == "fruits360":
            frames = [Image.alpha_composite(Image.new("RGBA", (64, 64), "white"), frame) for frame in frames]
        frames[0].save(root / "clips" / file, save_all=True, append_images=frames[1:], lossless=True)
        rows.append({"file_name": file, "text": name, "source": source})
    (root / "clips" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


@pytest.fixture(scope="module")
def scenes(data):
    composer = compose.Composer(data, SIZE, FRAMES)
    return [composer.nth(0, number) for number in range(300)]


def test_clips_are_of_the_shape_that_was_asked_and_of_every_kind(scenes):
    assert all(scene.frames.shape == (FRAMES, SIZE, SIZE, 3) for scene in scenes)
    assert {scene.kind for scene in scenes} == {"motion", "animated", "turntable"}
    assert {scene.motion for scene in scenes if scene.kind == "motion"} == set(MOTIONS)


def test_a_quarter_of_what_moves_spins_and_no_turntable_is_drawn_for_having_more_clips(scenes, data):
    moving = [scene for scene in scenes if scene.kind == "motion"]
    assert np.mean(["spinning" in scene.motion for scene in moving]) == pytest.approx(0.25, abs=0.07)
    composer, rng = compose.Composer(data, SIZE, FRAMES), random.Random(0)
    (cherry,) = composer.turntables
    composer.turntables = [cherry] * 9 + [compose.Item(cherry.path, "plum", cherry.style, 1.0)]
    drawn = [composer._turntable(rng).name for _ in range(60)]
    assert drawn.count("plum") == pytest.approx(30, abs=12)


def test_captions_say_what_moves_and_how(scenes):
    for scene in scenes:
        if scene.kind == "motion":
            said = (scene.motion, *WORDS[scene.motion])
            assert scene.name in scene.caption and any(word in scene.caption for word in said)
        elif scene.kind == "turntable":
            assert "rainier cherry" in scene.caption and "turntable" in scene.caption
        else:
            assert "animat" in scene.caption and "wedge" in scene.caption


def test_words_for_one_motion_are_said_of_no_other():
    said = [word for motion in MOTIONS for word in (motion, *WORDS[motion])]
    assert len(said) == len(set(said)) and set(WORDS) == set(MOTIONS)


def test_what_is_held_out_is_never_shown(data):
    composer = compose.Composer(data, SIZE, FRAMES)
    assert {item.name for item in composer.pictures.items} == set(KEPT)
    assert [item.name for item in composer.animated] == ["wedge"]
    assert [item.name for item in composer.turntables] == ["rainier cherry"]
    pairs = {(s.name, s.motion) for s in (composer.nth(1, i) for i in range(400)) if s.kind == "motion"}
    assert pairs and not any(compose.held_out_motion(*pair) for pair in pairs)
    assert any(compose.held_out_motion(name, motion) for name in KEPT for motion in MOTIONS)


def test_only_the_objects_that_are_named_move(data):
    composer = compose.Composer(data, SIZE, FRAMES, ["hook"])
    assert {item.name for item in composer.pictures.items} == {"hook"} and not composer.animated


def test_an_animation_keeps_its_order_from_wherever_it_begins(scenes):
    shown = next(scene for scene in scenes if scene.kind == "turntable").frames
    steps = np.abs(np.diff(shown.astype(int), axis=0)).mean((1, 2, 3))
    closing = np.abs(shown[0].astype(int) - shown[-1]).mean()
    assert steps.min() > 0 and max(steps.max(), closing) < 2 * min(steps.min(), closing)
    firsts = {scene.frames[0].tobytes() for scene in scenes if scene.kind == "turntable"}
    assert len(firsts) > 5


def test_photos_lose_their_white_ground(data):
    cuts = compose.frames_of(data / "clips" / "b.webp", 4)
    red = [np.asarray(wedge().rotate(90 * i).getchannel("A")) > 127 for i in range(4)]
    for cut, shown in zip(cuts, red, strict=True):
        assert ((np.asarray(cut)[..., 3] > 127) == shown).mean() > 0.98


def test_dark_photos_are_lit_all_alike_and_bright_ones_stay():
    dark, darker = wedge((100, 50, 0), 200), wedge((80, 40, 0), 200)
    one, other = (np.asarray(cut)[48, 16].tolist() for cut in compose.lit([dark, darker]))
    assert (one, other) == ([245, 123, 0, 200], [196, 98, 0, 200])
    bright = wedge((255, 9, 9))
    assert compose.lit([bright])[0].tobytes() == bright.tobytes()


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_course_goes_where_its_words_say(motion):
    states = [course(motion, random.Random(0))(i / 24) for i in range(25)]
    first, last = states[0], states[-1]
    xs, ys, sides = ([getattr(state, name) for state in states] for name in ("x", "y", "side"))
    moved = {name for name in ("x", "y", "side", "angle", "opacity")
             if len({round(getattr(state, name), 6) for state in states}) > 1}  # fmt: skip
    wanted = {
        "flying from left to right": ({"x"}, last.x - first.x > 0.4),
        "flying from right to left": ({"x"}, first.x - last.x > 0.4),
        "rising": ({"y"}, first.y - last.y > 0.4),
        "falling": ({"y"}, last.y - first.y > 0.4),
        "bouncing": ({"y"}, min(ys) < first.y - 0.3 and max(ys) == pytest.approx(first.y)),
        "spinning clockwise": ({"angle"}, last.angle == 360),
        "spinning counterclockwise": ({"angle"}, last.angle == -360),
        "growing": ({"side"}, last.side > 2 * first.side),
        "shrinking": ({"side"}, first.side > 2 * last.side),
        "fading in": ({"opacity"}, (first.opacity, last.opacity) == (0, 1)),
        "fading out": ({"opacity"}, (first.opacity, last.opacity) == (1, 0)),
        "swinging from side to side": ({"x"}, min(xs) < 0.32 and max(xs) > 0.68),
        "pulsing": ({"side"}, max(sides) > 1.2 * first.side > 1.4 * min(sides)),
        "standing still": (set(), True),
    }[motion]
    assert (moved, wanted[1]) == (wanted[0], True)
    if motion in ROUND:
        near = [getattr(last, name) for name in ("x", "y", "side")]
        assert near == pytest.approx([first.x, first.y, first.side]) and last.angle % 360 == first.angle


def test_an_object_is_drawn_where_its_state_says_at_fractions_of_pixels():
    white = np.full((SIZE, SIZE, 3), 255.0)
    square = Image.new("RGBA", (32, 32), "black")
    state = compose.State(x=0.25 + 0.25 / SIZE, y=0.75, side=0.25)
    dark = 1 - compose.drawn(square, state, white).mean(-1) / 255
    y, x = np.indices(dark.shape) + 0.5
    middle = (dark * x).sum() / dark.sum(), (dark * y).sum() / dark.sum()
    assert middle == pytest.approx((16.25, 48), abs=0.03) and dark.sum() == pytest.approx(16**2, rel=0.02)
    half = compose.drawn(square, compose.State(opacity=0.5), white)
    assert half[32, 32].tolist() == pytest.approx([128] * 3, abs=1)
    turned = compose.drawn(wedge("black"), compose.State(angle=90), white) < 128
    plain = compose.drawn(wedge("black"), compose.State(), white) < 128
    assert (turned == np.rot90(plain, -1)).mean() > 0.97  # clockwise


def test_the_same_number_is_the_same_clip(data):
    one, other = (compose.Drawing(data, 3, SIZE, FRAMES)(7) for _ in range(2))
    assert (one[0] == other[0]).all() and one[1] == other[1] and (one[2] == other[2]).all()


def test_examples_give_some_frames_beside_the_caption(data):
    draw = adapter.examples(data, 0, {"size": SIZE, "frames": FRAMES, "objects": [], "pool": 1})
    given = {"": 0, "first": 0, "last": 0, "both": 0}
    for number in range(100):
        signal, _, tokens = draw(number)
        assert signal.shape == (3, FRAMES, SIZE, SIZE) and signal.dtype == np.uint8
        first, last = tokens[: TOKENS // 2].any(), tokens[TOKENS // 2 :].any()
        given["both" if first and last else "first" if first else "last" if last else ""] += 1
    assert given[""] > 40 and given["first"] > 10 and given["both"] > 3
