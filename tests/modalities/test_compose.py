"""Composed scenes against their captions: the test draws the objects, so it knows what a caption must say."""

import json
import random
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from modalities.image import compose
from modalities.image.colour import COLOURS, SWATCHES, words

SIZE = 64
OWN = {  # each object has a shape, in one piece, and a colour that no other has
    "ball": ("red", lambda draw: draw.ellipse),
    "box": ("blue", lambda draw: draw.rectangle),
    "lozenge": ("green", lambda draw: lambda box, fill: draw.regular_polygon((32, 32, 26), 4, 45, fill)),
    "tent": ("orange", lambda draw: lambda box, fill: draw.regular_polygon((32, 32, 26), 3, 0, fill)),
    "nut": ("purple", lambda draw: lambda box, fill: draw.regular_polygon((32, 32, 26), 6, 0, fill)),
    "plate": ("yellow", lambda draw: lambda box, fill: draw.ellipse((6, 16, 58, 48), fill)),
}
PLURAL = {
    "ball": "balls",
    "box": "boxes",
    "lozenge": "lozenges",
    "tent": "tents",
    "nut": "nuts",
    "plate": "plates",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A pack of the objects, one more in two styles, and one that is held out."""
    root = tmp_path_factory.mktemp("data")
    (root / "stills").mkdir()
    rows = []
    held = next(name for name in (f"thing{i}x" for i in range(1000)) if compose.held_out_object(name))
    for name, (colour, shape) in [*OWN.items(), (held, OWN["ball"])]:
        picture = Image.new("RGBA", (64, 64))
        shape(ImageDraw.Draw(picture))((6, 6, 58, 58), fill=SWATCHES[colour])
        picture.save(root / "stills" / f"{name}.png")
        rows.append({"file_name": f"{name}.png", "text": name, "style": "3d emoji", "keywords": ["toy"]})
    rows.append({**rows[0], "text": "spare", "style": "clip art"})
    (root / "stills" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert not any(compose.held_out_object(name) for name in OWN)
    return root


@pytest.fixture(scope="module")
def scenes(data):
    composer = compose.Composer(data, SIZE)
    return [composer.nth(0, number) for number in range(2000)]


def plain(scenes, kind):
    """The scenes of a kind whose ground is one colour."""
    found = [scene for scene in scenes if scene.kind == kind and "gradient" not in scene.ground]
    assert len(found) > 40
    return found


def pieces(scene):
    """(H, W) int labels of what differs from the ground, and how many there are."""
    pixels = np.asarray(scene.picture).astype(int)
    return ndimage.label((abs(pixels - pixels[0, 0]) > 24).any(-1), np.ones((3, 3)))


def centre(scene, thing):
    """(x, y) of the pixels that have the thing's colour, in pixels."""
    colour = thing.colour or OWN[thing.name][0]
    pixels = np.asarray(scene.picture)
    found = (words(pixels.reshape(-1, 3)) == colour).reshape(pixels.shape[:2])
    y, x = np.nonzero(found)
    return x.mean(), y.mean()


def test_the_number_in_the_caption_is_the_number_of_pieces(scenes):
    seen = set()
    for scene in plain(scenes, "count"):
        said = rf"({'|'.join(compose.COUNTS)}) (?:(?:{'|'.join(COLOURS)}) )?(\w+)"
        word, name = re.search(said, scene.caption).groups()
        number = 1 + compose.COUNTS.index(word)
        assert pieces(scene)[1] == number == len(scene.things), scene.caption
        assert name == PLURAL.get(scene.things[0].name, "spares"), scene.caption
        seen.add(number)
    assert seen == {2, 3, 4, 5}


def test_every_other_kind_shows_as_many_pieces_as_it_has_things(scenes):
    for kind in ("one", "size", "colour", "pair"):
        for scene in plain(scenes, kind):
            assert pieces(scene)[1] == len(scene.things) == 1 + (kind == "pair"), scene.caption


def test_the_left_object_is_left_and_the_upper_one_above(scenes):
    seen = set()
    for scene in plain(scenes, "pair"):
        first, second = scene.things
        colours = {thing.colour or OWN[thing.name][0] for thing in scene.things}
        between = r"(and|(?:to the |on the )?(\w+ of)|above|below) an?"
        said = rf"(?:\w+ )?{first.name} {between} (?:\w+ )?{second.name}"
        relation = re.search(said, scene.caption)
        assert relation, scene.caption
        relation = relation[2] or relation[1]
        assert relation == scene.relation
        if len(colours) < 2:
            continue
        (x, y), (u, v) = centre(scene, first), centre(scene, second)
        right = {"and": x < u, "left of": x < u, "right of": x > u, "above": y < v, "below": y > v}[relation]
        assert right, scene.caption
        seen.add(relation)
    assert seen == {"and", *compose.RELATIONS}


def test_an_object_has_the_colour_that_its_caption_gives_it(scenes):
    turned = 0
    for kind in ("one", "colour", "count", "pair"):
        for scene in plain(scenes, kind):
            labels, _ = pieces(scene)
            for thing in scene.things:
                said = re.search(rf"(\w+) {thing.name}", scene.caption)
                said = said[1] if said and said[1] in COLOURS else None
                if kind != "one":
                    assert said == thing.colour, scene.caption
                left, top, right, bottom = (round(SIZE * side) for side in thing.box)
                there = np.s_[top:bottom, left:right]
                pixels = np.asarray(scene.picture)[there][labels[there] > 0]
                name = thing.colour or OWN.get(thing.name, OWN["ball"])[0]
                assert said in (None, name), scene.caption
                assert (words(pixels) == name).mean() > 0.6, scene.caption
                turned += thing.colour is not None
    assert turned > 100


def test_big_is_bigger_than_small_and_all_of_it_is_in_the_picture(scenes):
    sides = {}
    for scene in plain(scenes, "size"):
        word = re.search(r"big|large|small|tiny", scene.caption)[0]
        left, top, right, bottom = scene.things[0].box
        assert min(left, top) > -0.01 and max(right, bottom) < 1.01
        sides.setdefault(word, []).append(max(right - left, bottom - top))
    assert max(sides["tiny"]) < min(sides["small"]) < max(sides["small"]) < 0.5
    assert min(sides["big"] + sides["large"]) > 0.8


def test_what_is_held_out_is_never_drawn_nor_said(scenes):
    drawn = set()
    for scene in scenes:
        names = [thing.name for thing in scene.things]
        assert not any(map(compose.held_out_object, names))
        for colour, name in re.findall(rf"({'|'.join(COLOURS)}) ({'|'.join(OWN)})", scene.caption):
            assert not compose.held_out("colour", name, colour), scene.caption
            drawn.add((name, colour))
        if scene.kind == "pair":
            assert not compose.held_out_pair(*names)
        if scene.kind == "count":
            assert not compose.held_out("count", names[0], str(len(names)))
    kept = {
        (name, colour) for name in OWN for colour in COLOURS if not compose.held_out("colour", name, colour)
    }
    assert len(kept & drawn) > 0.9 * len(kept) > 0.7 * len(OWN) * len(COLOURS)


def test_a_pair_has_one_style_and_the_caption_names_it_or_none(scenes):
    for scene in scenes:
        styles = {thing.style for thing in scene.things}
        assert len(styles) == 1
        assert not {"3d emoji", "clip art"} - styles & {
            s for s in ("3d emoji", "clip art") if s in scene.caption
        }


def test_the_ground_is_what_the_caption_says_and_no_object_has_its_colour(scenes):
    for scene in scenes:
        said = re.search(r" on an? ([\w ]+) background$", scene.caption)
        assert said[1] == scene.ground if said else scene.ground == "white"
        if "gradient" not in scene.ground:
            corners = np.asarray(scene.picture)[[0, 0, -1, -1], [0, -1, 0, -1]]
            assert set(words(corners)) == {scene.ground}
        grounds = scene.ground.replace(" gradient", "").split(" and ")
        assert not {thing.colour or OWN.get(thing.name, ("red",))[0] for thing in scene.things} & set(grounds)


def test_a_number_and_a_seed_name_a_scene(data, scenes):
    again = compose.Composer(data, SIZE)
    for number in (7, 3, 700):
        scene = again.nth(0, number)
        assert scene.caption == scenes[number].caption and scene.things == scenes[number].things
        assert scene.picture.tobytes() == scenes[number].picture.tobytes()
    assert len({again.nth(1, number).picture.tobytes() for number in range(20)}) > 15


@pytest.mark.parametrize("number", (1, 2, 3, 4, 5))
def test_arranged_places_leave_room_between_them_and_to_the_edge(number):
    for seed in range(300):
        places = compose.arrange(random.Random(seed), number)
        assert len(places) == number
        for i, (x, y, side) in enumerate(places):
            assert side / 2 < min(x, y) and max(x, y) < 1 - side / 2
            assert all(max(abs(x - u), abs(y - v)) > side + 0.015 for u, v, _ in places[:i])


def test_held_out_shares_are_what_they_say_and_pairs_have_no_order():
    names = [f"name {i}" for i in range(4000)]
    assert np.mean([compose.held_out("colour", name, "red") for name in names]) == pytest.approx(
        0.1, abs=0.02
    )
    assert np.mean([compose.held_out_object(name) for name in names]) == pytest.approx(0.03, abs=0.01)
    assert all(compose.held_out_pair(a, b) == compose.held_out_pair(b, a) for a, b in pairwise(names))


def test_names_and_articles_are_english():
    said = ("an apple", "a bus", "an octopus", "a glass", "grapes", "scissors", "an hourglass")
    assert tuple(compose.article(phrase.split()[-1]) for phrase in said) == said
    row = {"text": "Apple Red Yellow 2", "source": "fruits360"}
    assert compose.plain_name(row) == "red yellow apple"
    assert compose.plain_name({"text": "Red apple"}) == "red apple"


def test_a_photo_loses_its_white_ground_but_not_the_white_inside():
    photo = Image.new("RGB", (64, 64), (250, 250, 250))
    ImageDraw.Draw(photo).ellipse((16, 16, 48, 48), fill="white", outline="red", width=4)
    alpha = np.asarray(compose.cut_out(photo))[..., 3]
    assert alpha[0, 0] == alpha[63, 63] == alpha[2, 32] == 0
    assert alpha[32, 32] == alpha[17, 32] == 255


def test_a_picture_s_own_transparency_is_kept_whatever_its_mode(tmp_path):
    picture = Image.new("RGBA", (32, 32))
    ImageDraw.Draw(picture).ellipse((4, 10, 27, 21), fill="red")
    for mode in ("RGBA", "P", "LA"):
        picture.convert(mode).save(tmp_path / f"{mode}.png")
        cut = compose.sprite(tmp_path / f"{mode}.png", 48)
        assert cut.mode == "RGBA" and cut.size == (48, 24)  # cropped to what is opaque, 24 x 12, and enlarged
        assert cut.getpixel((0, 0))[3] < 128 and cut.getpixel((24, 12))[3] == 255


def test_objects_that_cannot_be_counted_or_paired_are_drawn_alone(tmp_path):
    (tmp_path / "stills").mkdir()
    picture = Image.new("RGBA", (32, 32))
    ImageDraw.Draw(picture).ellipse((4, 4, 27, 27), fill="red")
    picture.save(tmp_path / "stills" / "a.png")
    (tmp_path / "stills" / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "scissors"}\n\n')
    composer = compose.Composer(tmp_path, 32)
    kinds = {composer.nth(0, number).kind for number in range(60)}
    assert kinds == {"one", "colour", "size"}


def test_a_bus_can_be_counted(tmp_path):
    (tmp_path / "stills").mkdir()
    Image.new("RGBA", (32, 32), "red").save(tmp_path / "stills" / "a.png")
    (tmp_path / "stills" / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "bus"}')
    composer = compose.Composer(tmp_path, 32)
    counted = [scene for scene in map(composer.nth, [0] * 60, range(60)) if scene.kind == "count"]
    assert counted and all("buses" in scene.caption for scene in counted)


def test_a_picture_that_does_not_show_what_it_is_called_is_left_out(tmp_path):
    (tmp_path / "shapes").mkdir()
    misnamed = sorted(compose.MISNAMED)
    rows = [{"file_name": name, "text": "tomato"} for name in (*misnamed, "real.png")]
    for row in rows:
        (tmp_path / "shapes" / row["file_name"]).touch()
    (tmp_path / "shapes" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert len(misnamed) == 15
    assert [item.path.name for item in compose.Composer(tmp_path).items] == ["real.png"]


def imagefolder(folder, *rows):
    folder.mkdir(exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def test_an_imagefolder_gives_its_pictures_upright_on_white_with_their_captions(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    upper = Image.new("RGB", (64, 64), "blue")
    upper.paste("red", (0, 0, 64, 32))
    upper.save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGBA", (32, 32)).save(tmp_path / "b.png")
    Image.fromarray(np.full((32, 32), 128 * 257, np.uint16)).save(tmp_path / "c.png")
    (tmp_path / "products").mkdir()  # as a user may call a folder; metadata.jsonl says what this is
    imagefolder(tmp_path, *({"file_name": name, "text": name} for name in ("a.jpg", "b.png", "c.png")))
    draw = compose.Drawing(tmp_path, 0, 32)
    (turned, caption), (clear, _), (grey, _), again = (draw(number) for number in range(4))
    assert caption == "a.jpg" and np.array_equal(again[0], turned)
    assert turned[2, 4, 16] > 200 > 60 > turned[0, 4, 16] and turned[0, 28, 16] > 200
    assert (clear == 255).all() and (grey == 128).all()


@pytest.mark.parametrize("row, said", [
    ({"file_name": "a.png"}, "line 2 must be an object with file_name and text"),
    ({"file_name": "a.png", "text": None}, "line 2 must be an object with file_name and text"),
    ([], "line 2 must be an object with file_name and text"),
    ({"file_name": "b.png", "text": "x"}, "line 2 names 'b.png'; there is no such file"),
    ("{", "cannot be read as training data"),
])  # fmt: skip
def test_a_line_that_is_no_picture_s_is_named(tmp_path, row, said):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=f"metadata.jsonl.*{said}"):
        compose.Drawing(imagefolder(tmp_path, {"file_name": "a.png", "text": "x"}, row), 0)


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    draw = compose.Drawing(imagefolder(tmp_path, {"file_name": "a.png", "text": "x"}), 0)
    with pytest.raises(ValueError, match=r"a\.png'; it must be a picture that can be read"):
        draw(0)


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "stills").mkdir()
    with pytest.raises(ValueError, match="stills"):
        compose.Composer(tmp_path)
    (tmp_path / "stills" / "metadata.jsonl").write_text("")
    with pytest.raises(ValueError, match="no pictures"):
        compose.Composer(tmp_path)
