"""Colour words on pixels whose colour is known."""

import colorsys
from itertools import pairwise, product

import numpy as np
import pytest
from PIL import Image, ImageDraw

from modalities.image.colour import COLOURS, HUES, SWATCHES, colour_of, recolour, shares, words

VIVID = ("red", "orange", "yellow", "green", "blue", "purple", "pink")


def disc(fill, side=64):
    """A disc of one colour on nothing, with a darker rim."""
    picture = Image.new("RGBA", (side, side))
    rim = tuple(int(0.8 * v) for v in fill)
    ImageDraw.Draw(picture).ellipse((4, 4, side - 5, side - 5), fill=fill, outline=rim, width=2)
    return picture


def word(rgb):
    return str(words(np.array([rgb], np.uint8))[0])


@pytest.mark.parametrize("name", COLOURS)
def test_a_swatch_answers_to_its_word_and_so_do_its_neighbours(name):
    assert word(SWATCHES[name]) == name
    for shift in product((-8, 8), repeat=3):  # as far as grounds stray from it
        assert word([min(255, max(0, v + s)) for v, s in zip(SWATCHES[name], shift, strict=True)]) == name


@pytest.mark.parametrize("name, rgb", [
    ("red", (255, 0, 0)), ("yellow", (255, 255, 0)), ("green", (0, 255, 0)), ("blue", (0, 0, 255)),
    ("green", (0, 128, 0)), ("orange", (255, 128, 0)), ("purple", (128, 0, 255)), ("pink", (255, 160, 180)),
    ("black", (0, 0, 0)), ("white", (255, 255, 255)), ("gray", (128, 128, 128)), ("brown", (120, 70, 30)),
])  # fmt: skip
def test_the_colours_everyone_knows(name, rgb):
    assert word(rgb) == name


@pytest.mark.parametrize("name", HUES)
def test_the_hue_a_word_turns_to_answers_to_it(name):
    assert word([round(255 * v) for v in colorsys.hsv_to_rgb(HUES[name] / 360, 0.9, 0.9)]) == name


def test_greys_are_black_then_gray_then_white_and_every_pixel_has_a_word():
    ramp = words(np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)).tolist()
    changes = [b for a, b in pairwise(ramp) if a != b]
    assert [ramp[0], *changes] == ["black", "gray", "white"]
    pixels = np.random.default_rng(0).integers(0, 256, (5000, 3)).astype(np.uint8)
    assert set(words(pixels)) <= set(COLOURS)


def test_shares_count_the_object_s_pixels_only():
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[:2], rgb[2:] = SWATCHES["red"], SWATCHES["blue"]
    assert shares(rgb) == {"red": 0.5, "blue": 0.5}
    alpha = np.full((4, 4), 255, np.uint8)
    alpha[:1] = 0
    assert list(shares(rgb, alpha).items()) == [("blue", pytest.approx(2 / 3)), ("red", pytest.approx(1 / 3))]
    assert shares(rgb, 0 * alpha) == {}


def test_an_object_answers_to_a_colour_that_enough_of_it_has():
    picture = disc(SWATCHES["green"])
    assert colour_of(picture) == "green"
    ImageDraw.Draw(picture).rectangle((4, 4, 59, 31), fill=SWATCHES["purple"])
    assert colour_of(picture) is None  # 56 x 28 purple pixels, half a disc of 28 green
    assert colour_of(picture, 0.5) == "purple"
    assert colour_of(Image.new("RGBA", (8, 8))) is None


@pytest.mark.parametrize("wanted", COLOURS)
@pytest.mark.parametrize("own", VIVID)
def test_a_recoloured_object_answers_to_its_word_and_keeps_its_outline(own, wanted):
    before = disc(SWATCHES[own])
    turned = recolour(before, wanted)
    if (own, wanted) == ("pink", "red"):  # a pale red is pink
        assert turned is None
        return
    assert colour_of(turned) == wanted
    assert np.array_equal(np.asarray(turned)[..., 3], np.asarray(before)[..., 3])


@pytest.mark.parametrize("wanted", COLOURS)
def test_a_red_object_takes_every_colour(wanted):
    assert recolour(disc(SWATCHES["red"]), wanted) is not None


def test_what_has_no_colour_is_not_recoloured():
    assert recolour(disc(SWATCHES["gray"]), "red") is None
    assert recolour(Image.new("RGBA", (8, 8)), "red") is None
