"""What is measured of clips, held to clips whose truth is known."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab

from modalities.video import measure, motion

SIDE, COUNT = 96, 24
CUT = np.zeros((64, 64, 4), np.uint8)
Y, X = np.mgrid[:64, :64] - 31.5
CUT[..., :3] = np.where((X > 0)[..., None], (220, 60, 40), (60, 90, 200))
CUT[(np.abs(Y) < 5) & (X > 8), :3] = 20, 120, 40
CUT[..., 3] = 255 * (np.hypot(X, Y) < 31)
IDEAL = {  # of the time 0 to 1: x, y, size, degrees clockwise, opacity
    "flying from left to right": lambda t: (0.2 + 0.6 * t, 0.5, 0.35, 0, 1),
    "flying from right to left": lambda t: (0.8 - 0.6 * t, 0.45, 0.35, 0, 1),
    "rising": lambda t: (0.5, 0.8 - 0.6 * t, 0.35, 0, 1),
    "falling": lambda t: (0.5, 0.2 + 0.6 * t, 0.35, 0, 1),
    "bouncing": lambda t: (0.5, 0.7 - 0.3 * abs(math.sin(2 * math.pi * t)), 0.35, 0, 1),
    "swinging from side to side": lambda t: (0.5 + 0.2 * math.sin(2 * math.pi * t), 0.5, 0.4, 0, 1),
    "spinning clockwise": lambda t: (0.5, 0.5, 0.6, 360 * t, 1),
    "spinning counterclockwise": lambda t: (0.5, 0.5, 0.6, -360 * t, 1),
    "growing": lambda t: (0.5, 0.5, 0.4 * 1.6**t, 0, 1),
    "shrinking": lambda t: (0.5, 0.5, 0.7 * 1.6**-t, 0, 1),
    "pulsing": lambda t: (0.5, 0.5, 0.5 * (1 + 0.2 * math.sin(4 * math.pi * t)), 0, 1),
    "fading in": lambda t: (0.5, 0.5, 0.6, 0, t),
    "fading out": lambda t: (0.5, 0.5, 0.6, 0, 1 - t),
    "standing still": lambda t: (0.45, 0.55, 0.6, 0, 1),
}


def drawn(x, y, size, angle, opacity, ground="white"):
    side = round(2 * size * SIDE)
    cut = Image.fromarray(CUT).resize((side, side)).rotate(-angle, Image.Resampling.BICUBIC)
    cut.putalpha(cut.getchannel("A").point(lambda a: round(a * opacity)))
    scene = Image.new("RGB", (2 * SIDE, 2 * SIDE), ground)
    scene.paste(cut, (round(2 * x * SIDE - side / 2), round(2 * y * SIDE - side / 2)), cut)
    return np.asarray(scene.resize((SIDE, SIDE), Image.Resampling.BOX))


def clip(way, ground="white"):
    return np.stack([drawn(*IDEAL[way](i / (COUNT - 1)), ground) for i in range(COUNT)])


class Tones:
    """Features of a picture: its mean colour; stands in for the trained network."""

    def features(self, pictures):
        return torch.stack([torch.from_numpy(np.asarray(p, float).mean((0, 1))) for p in pictures])


@pytest.mark.parametrize("way", IDEAL)
def test_every_motion_is_told_from_all_others(way):
    frames = clip(way, (200, 225, 250) if way in ("rising", "pulsing", "fading in") else "white")
    noise = np.random.default_rng(0).normal(0, 2, frames.shape)
    found = measure.track((frames + noise).clip(0, 255).astype(np.uint8))
    assert [name for name, holds in measure.MOTIONS.items() if holds(found)] == [way]


def test_every_motion_that_captions_speak_of_has_a_verdict():
    assert set(measure.MOTIONS) == set(motion.MOTIONS) == set(IDEAL)


def test_moves_says_so_by_name_and_refuses_another():
    assert measure.moves(clip("rising"), "rising") and not measure.moves(clip("rising"), "falling")
    assert not measure.moves(np.full((4, SIDE, SIDE, 3), 255, np.uint8), "standing still")
    with pytest.raises(ValueError, match="motion is 'sinking'; it must be one of flying"):
        measure.moves(clip("rising"), "sinking")


def test_a_subject_is_where_and_as_large_as_it_was_drawn():
    found = measure.track(np.stack([drawn(0.3, 0.6, 0.4, 0, 1), drawn(0.7, 0.6, 0.4, 0, 0.5)]))
    assert found.x == pytest.approx([0.3, 0.7], abs=0.01) and found.y == pytest.approx([0.6, 0.6], abs=0.01)
    assert found.scale == pytest.approx([0.4 * math.sqrt(math.pi) / 2] * 2, rel=0.06)
    assert found.contrast[1] / found.contrast[0] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("degrees", [360, -360, 90])
def test_a_turn_is_measured_with_its_sign(degrees):
    frames = [drawn(0.5, 0.5, 0.6, degrees * i / (COUNT - 1), 1) for i in range(COUNT)]
    assert measure.track(np.stack(frames)).turned[-1] == pytest.approx(degrees, rel=0.05)


def test_a_turn_is_measured_while_the_subject_moves_and_grows():
    frames = [drawn(0.3 + 0.02 * i, 0.5, 0.4 + 0.01 * i, 15 * i, 1) for i in range(COUNT)]
    assert measure.track(np.stack(frames)).turned[-1] == pytest.approx(345, rel=0.05)


def test_a_faint_subject_keeps_its_place_and_an_empty_clip_has_none():
    found = measure.track(clip("fading in"))
    assert np.ptp(found.scale) < 0.06 and np.ptp(found.x) < 0.02 and found.contrast[0] < 0.1
    assert measure.track(np.full((4, SIDE, SIDE, 3), 255, np.uint8)) is None


def test_a_seam_is_one_where_the_clip_goes_round():
    turning = np.stack([drawn(0.5, 0.5, 0.6, 15 * i, 1) for i in range(COUNT)])
    assert measure.seam(turning) == pytest.approx(1, abs=0.1)
    assert measure.seam(turning[:12]) > 2
    assert measure.seam(turning[[0] * 4]) == 0


def test_drift_is_the_distance_of_the_subject_s_colours_and_not_of_the_frames():
    tones = np.linspace((200, 40, 40), (160, 40, 40), COUNT).astype(np.uint8)
    frames = np.full((COUNT, SIDE, SIDE, 3), 255, np.uint8)
    for i, tone in enumerate(tones):
        frames[i, 30:60, 10 + i : 40 + i] = tone
    lab = rgb2lab(tones[None] / 255)[0]
    least = np.linalg.norm(lab[-3:].mean(0) - lab[:3].mean(0))
    assert measure.drift(frames) == pytest.approx(least, rel=0.15)
    frames[:, 30:60] = frames[0, 30:60]
    assert measure.drift(frames) == 0


def test_frechet_distance_tells_stillness_and_tints_from_likeness():
    rng = np.random.default_rng(0)
    tones = rng.integers(60, 200, (8, 6), np.uint8)
    clips = [np.broadcast_to(row[:, None, None, None], (6, 8, 8, 3)) for row in tones]
    assert measure.features(clips, Tones()).shape == (8, 6)
    assert measure.frechet(clips, clips, Tones()) == pytest.approx(0, abs=1e-6)
    tinted = [one + np.uint8(5) for one in clips]  # the means move by 5 in each channel, the steps not at all
    assert measure.frechet(clips, tinted, Tones()) == pytest.approx(3 * 25)
    slower = [np.sort(one, 0) for one in clips]  # of the same tones
    assert measure.frechet(clips, slower, Tones()) > 100


@pytest.mark.parametrize("frames", [np.zeros((1, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 4), np.uint8)])
def test_other_arrays_are_refused(frames):
    for told in (measure.track, measure.seam, measure.drift):
        with pytest.raises(ValueError, match="it must be"):
            told(frames)
