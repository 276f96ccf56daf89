"""Scenes with exact captions, composed of RGBA objects: coloured, counted, paired, placed, sized, grounded.

A scene is drawn from a random generator alone, so a seed names it. What is held out for evaluation is decided
by a hash of the names, so training and evaluation agree without sharing a list.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias, cast

import inflect
import numpy as np
from PIL import Image, ImageDraw, ImageOps

from modalities.image.colour import COLOURS, SWATCHES, colour_of, recolour
from modalities.image.read import on_ground, opened
from modalities.image.shapes import render
from modalities.packs import held_out, read_rows

COUNTS = ("one", "two", "three", "four", "five")
RELATIONS = ("left of", "right of", "above", "below")
STYLES = {"noto emoji": "flat emoji", "cartoon emoji": "flat emoji"}  # the others go by their own names
PACKS = ("stills", "flat", "products", "shapes")
SOURCES = {"fluent3d": 1.0, "fluent-emoji-flat": 0.2, "noto": 0.2, "fxemoji": 0.06, "flat-color-icons": 0.1,
           "openclipart": 0.03, "fruits360": 0.03, "sweethome3d": 0.2}
GROUPS = {"food-drink": 1.0, "animals-nature": 1.0, "objects": 0.8, "travel-places": 0.7, "activities": 0.6,
          "people-body": 0.25, "smileys-emotion": 0.4, "symbols": 0.1, "flags": 0.05}
FRUITS = ("apple", "grape", "cherry", "pear", "tomato", "banana", "cantaloupe", "kiwi", "strawberry",
          "pitahaya", "mandarine", "peach", "grapefruit", "avocado", "lemon", "physalis", "plum", "nectarine")
MISNAMED = {  # pictures of something else beside or in place of what their names say
    *(f"quaternius-{n:04}.npz" for n in (856, 857, *range(913, 917), *range(919, 923))),  # seedlings, vines
    "openclipart-06394.webp", "openclipart-06498.webp", "openclipart-06573.webp",  # tags with a barcode
    "openclipart-07216.webp", "openclipart-07259.webp",  # a rider on the bicycle, two buses
}
SPELL: Any = inflect.engine()


@dataclass(frozen=True)
class Item:
    """One RGBA picture of the packs."""

    path: Path
    name: str
    style: str
    weight: float
    keywords: tuple[str, ...] = ()


Place: TypeAlias = tuple[float, float, float]  # centre x, centre y, side, as shares of the picture
Placed: TypeAlias = tuple[Item, Image.Image, Place, str | None]  # its cut, place, tint


@dataclass
class Thing:
    """One object as it stands in a scene; box is left, top, right, bottom as shares of the picture."""

    name: str
    style: str
    box: tuple[float, float, float, float]
    colour: str | None = None


@dataclass
class Scene:
    """A picture, its caption and what is in it."""

    picture: Image.Image
    caption: str
    kind: str
    things: list[Thing] = field(default_factory=list)
    ground: str = "white"
    relation: str | None = None


def held_out_object(name: str) -> bool:
    """Whether every picture of this object is kept from training."""
    return held_out("object", name, share=0.03)


def held_out_pair(first: str, second: str) -> bool:
    """Whether these two objects are never shown together in training, in whatever order."""
    return held_out("pair", *sorted((first, second)))


def load(data: Path, objects: Sequence[str] = ()) -> list[Item]:
    """The pictures of the packs below `data`; only of `objects`, in every style, if any are named."""
    rows = {pack: read_rows(data / pack) for pack in PACKS if (data / pack).is_dir()}
    items = []
    for pack, told in rows.items():
        for row in told:
            name, source = plain_name(row), row.get("source")
            style = row.get("style") or ("product render" if pack == "shapes" else "picture")
            if objects and name not in objects:
                continue
            weight = SOURCES.get(source or "", 0.1 if pack == "shapes" else 1.0)
            weight *= GROUPS.get(row.get("group") or "", 1.0)
            if source == "fluent-emoji-flat" and re.search(r" (light|medium|dark)( |$)", row["text"]):
                weight *= 0.05  # the same person in another skin
            keywords = tuple(row.get("keywords") or ())
            path = data / pack / row["file_name"]
            items.append(Item(path, name, STYLES.get(style, style), weight, keywords))
    return items


def plain_name(row: dict[str, Any]) -> str:
    """The object's name as one says it: "apple red yellow" of the photos becomes "red yellow apple"."""
    name = re.sub(r"\s+\d+$", "", str(row["text"]).lower().strip())
    first, _, rest = name.partition(" ")
    if row.get("source") == "fruits360":
        return f"{rest} {first}" if first in FRUITS and rest else name
    return name


def coloured(name: str) -> bool:
    """Whether a name says its colour already."""
    return not set(COLOURS).isdisjoint(name.split())


def plural(name: str) -> bool:
    """Whether a name is one of several, as "grapes" is and "bus" and "glass" are not."""
    return name.endswith("s") and not name.endswith(("ss", "us"))


def article(name: str) -> str:
    """The name with its article; plural names take none."""
    return name if plural(name) else str(SPELL.a(name))


@lru_cache(maxsize=16384)
def sprite(path: Path, side: int) -> Image.Image:
    """The object cropped to what is opaque, its longer side `side` pixels.

    Photos lose their white ground, meshes are rendered.
    """
    if path.suffix == ".npz":
        picture = render(path, side)
    else:
        with Image.open(path) as file:
            picture = file.convert("RGBA")
    if cast(tuple[float, float], picture.getchannel("A").getextrema())[0] > 250:
        picture = cut_out(picture.convert("RGB"))
    box = picture.getchannel("A").point(lambda a: 255 * (a > 16)).getbbox()
    picture = picture.crop(box) if box else picture
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")


def cut_out(picture: Image.Image) -> Image.Image:
    """An RGB photo on a white ground as RGBA: what a flood from the corners reaches becomes transparent."""
    work, key = picture.copy(), (255, 0, 255)
    for corner in ((0, 0), (work.width - 1, 0), (0, work.height - 1), (work.width - 1, work.height - 1)):
        if min(cast(tuple[int, ...], work.getpixel(corner))) > 225:
            ImageDraw.floodfill(work, corner, key, thresh=36)
    alpha = Image.fromarray(np.where((np.asarray(work) == key).all(-1), 0, 255).astype(np.uint8))
    picture = picture.copy()
    picture.putalpha(alpha)
    return picture


class Composer:
    """Draws scenes from the packs, without the objects and combinations that are held out."""

    def __init__(self, data: Path, size: int = 256, objects: Sequence[str] = ()) -> None:
        """Reads the packs' metadata; pictures are read when drawn.

        Args:
            data: the folder of the packs.
            size: of the scenes, in pixels.
            objects: names of what is drawn, in every style; everything if it is empty.
        """
        self.size = size
        self.items = [item for item in load(data, objects)
                      if not held_out_object(item.name) and item.path.name not in MISNAMED]
        if not self.items:
            raise ValueError(f"no pictures to train on were found in {data}; it must hold the packs")
        self.weights = [item.weight for item in self.items]

    def item(self, rng: random.Random) -> Item:
        """One picture, drawn by weight."""
        return rng.choices(self.items, self.weights)[0]

    def nth(self, seed: int, number: int) -> Scene:
        """The scene of this number; the same on every machine."""
        return self.scene(random.Random(f"{seed}/{number}"))

    def scene(self, rng: random.Random) -> Scene:
        """One scene: mostly single objects, then counts, pairs and sizes."""
        kind = rng.choices(("one", "colour", "count", "pair", "size"), (46, 20, 12, 16, 6))[0]
        scene: Scene = getattr(self, f"_{kind}")(rng)
        return scene

    # Each builder returns a finished scene; places are (centre x, centre y, side) as shares of the picture.

    def _one(self, rng: random.Random) -> Scene:
        item = self.item(rng)
        picture = sprite(item.path, self.size)
        colour = colour_of(picture) if rng.random() < 0.4 else None
        known = colour and not coloured(item.name) and not held_out("colour", item.name, colour)
        phrase = self._phrase(item, colour if known else None)
        placed: list[Placed] = [(item, picture, arrange(rng, 1)[0], None)]
        return self._finish(rng, "one", article(phrase), placed, phrase=phrase)

    def _size(self, rng: random.Random) -> Scene:
        item = self.item(rng)
        word, side = rng.choice((("big", 0.92), ("large", 0.92), ("small", 0.38), ("tiny", 0.28)))
        side *= rng.uniform(0.94, 1.04)
        spread = (1 - side) / 3
        place = (0.5 + rng.uniform(-spread, spread), 0.5 + rng.uniform(-spread, spread), side)
        picture = sprite(item.path, self.size)
        return self._finish(rng, "size", article(f"{word} {item.name}"), [(item, picture, place, None)])

    def _tinted(self, rng: random.Random) -> tuple[Item, Image.Image, str | None]:
        """An object in a colour that is not held out for it; as it is, and None, after twelve vain tries."""
        for _ in range(12):
            item, colour = self.item(rng), rng.choice(COLOURS)
            if coloured(item.name) or held_out("colour", item.name, colour):
                continue
            turned = recolour(sprite(item.path, self.size), colour)
            if turned:
                return item, turned, colour
        return item, sprite(item.path, self.size), None

    def _colour(self, rng: random.Random) -> Scene:
        item, picture, colour = self._tinted(rng)
        phrase = self._phrase(item, colour)
        placed: list[Placed] = [(item, picture, arrange(rng, 1)[0], colour)]
        return self._finish(rng, "colour", article(phrase), placed, phrase=phrase)

    def _count(self, rng: random.Random) -> Scene:
        number = rng.choice((2, 2, 3, 3, 4, 5))
        item, picture, colour = self.either(rng, 0.35)
        for _ in range(50):
            several = plural(item.name) or not set(COUNTS).isdisjoint(item.name.split())
            if not several and not held_out("count", item.name, str(number)):
                break
            item, picture, colour = self.either(rng, 0.0)
        else:
            return self._one(rng)
        placed: list[Placed] = [(item, picture, place, colour) for place in arrange(rng, number)]
        phrase = self._phrase(item, colour)
        return self._finish(rng, "count", f"{COUNTS[number - 1]} {SPELL.plural(phrase)}", placed)

    def either(self, rng: random.Random, share: float) -> tuple[Item, Image.Image, str | None]:
        """An object tinted in this share of the draws, else as it is."""
        if rng.random() < share:
            return self._tinted(rng)
        item = self.item(rng)
        return item, sprite(item.path, self.size), None

    def _pair(self, rng: random.Random) -> Scene:
        a, pa, ca = self.either(rng, 0.4)
        for _ in range(50):
            b, pb, cb = self.either(rng, 0.4)
            if b.name != a.name and a.style == b.style and not held_out_pair(a.name, b.name):
                break
        else:
            return self._one(rng)
        relation = rng.choice(("and", *RELATIONS))
        first, second = beside(rng, relation)
        said = relation
        if relation in ("left of", "right of"):
            said = rng.choice((relation, f"to the {relation}", f"on the {relation}"))
        words = f"{article(self._phrase(a, ca))} {said} {article(self._phrase(b, cb))}"
        placed: list[Placed] = [(a, pa, first, ca), (b, pb, second, cb)]
        return self._finish(rng, "pair", words, placed, relation=relation)

    def _phrase(self, item: Item, colour: str | None) -> str:
        return f"{colour} {item.name}" if colour else item.name

    def _finish(self, rng: random.Random, kind: str, words: str, placed: list[Placed],
                phrase: str | None = None, relation: str | None = None) -> Scene:
        """Draws the ground and the objects and words the caption around `words`."""
        item = placed[0][0]
        if phrase and rng.random() < 0.2:
            words = phrase  # "red apple"
        if kind == "one" and item.keywords and rng.random() < 0.12:
            words = f"{words}, {', '.join(rng.sample(item.keywords, min(2, len(item.keywords))))}"
        tints = {colour for *_, colour in placed}
        words, ground, picture = self.dressed(rng, words, item.style, [cut for _, cut, *_ in placed], tints)
        things = []
        for item, cut, place, colour in placed:
            things.append(Thing(item.name, item.style, stand(picture, cut, place), colour))
        return Scene(picture, words, kind, things, ground, relation)

    def dressed(self, rng: random.Random, words: str, style: str, cuts: Sequence[Image.Image],
                tints: set[str | None]) -> tuple[str, str, Image.Image]:
        """A caption with the style and the ground of what it is about, the ground's name, and its picture."""
        if rng.random() < (0.3 if style == "3d emoji" else 0.9):
            whole = f"{SPELL.a(style)} of {words}"
            words = rng.choice((whole, f"{words}, {style}", f"{words}, {style} style"))
        elif rng.random() < 0.1:
            words = f"a picture of {words}"
        ground, picture = self._ground(rng, tints | {colour_of(cut, 0.3) for cut in cuts})
        if ground != "white" or rng.random() < 0.1:
            words = f"{words} on {SPELL.a(ground)} background"
        return words, ground, picture

    def _ground(self, rng: random.Random, avoid: set[str | None]) -> tuple[str, Image.Image]:
        """A ground's name and picture: mostly white, else a colour that no object has, or a gradient."""
        free = [c for c in SWATCHES if c not in avoid and c != "white"]
        lot = rng.random()
        if lot < 0.68 and "white" not in avoid:
            return "white", Image.new("RGB", (self.size, self.size), "white")
        name = rng.choice(free)
        colour = tuple(min(255, max(0, v + rng.randint(-8, 8))) for v in SWATCHES[name])
        plain = Image.new("RGB", (self.size, self.size), colour)
        if lot < 0.93:
            return name, plain
        other = rng.choice([c for c in free if c != name])
        mask = Image.linear_gradient("L").resize((self.size, self.size))
        plain.paste(SWATCHES[other], (0, 0), mask)
        return f"{name} and {other} gradient", plain


def stand(picture: Image.Image, cut: Image.Image, place: Place) -> tuple[float, float, float, float]:
    """Scales an RGBA object to its place and pastes it; returns its box as `Thing` has it."""
    x, y, side = place
    whole = picture.width
    scale = side * whole / max(cut.size)
    size = (max(1, round(cut.width * scale)), max(1, round(cut.height * scale)))
    drawn = cut.convert("RGBa").resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0).convert("RGBA")
    left, top = round(x * whole - drawn.width / 2), round(y * whole - drawn.height / 2)
    picture.paste(drawn, (left, top), drawn)
    return left / whole, top / whole, (left + drawn.width) / whole, (top + drawn.height) / whole


def beside(rng: random.Random, relation: str) -> tuple[Place, Place]:
    """Places for two objects, of which the first is "left of", "right of", "above", "below" or "and"."""
    near, far, side = rng.uniform(0.24, 0.27), rng.uniform(0.73, 0.76), rng.uniform(0.4, 0.44)
    cross = 0.5 + rng.uniform(-0.06, 0.06)
    at = far if relation in ("right of", "below") else near
    if relation in ("above", "below"):
        return (cross, at, side), (cross, 1 - at, side)
    return (at, cross, side), (1 - at, cross, side)


def arrange(rng: random.Random, number: int) -> list[Place]:
    """Places for `number` equal objects that do not touch."""
    if number == 1:
        return [(0.5, 0.5, rng.uniform(0.72, 0.86))]
    one, two, wide, three = [0.5], [0.26, 0.74], [0.3, 0.7], [0.19, 0.5, 0.81]
    choices = {2: [[two]], 3: [[one, two], [two, one], [three]], 4: [[two, two]],
               5: [[three, wide], [wide, three]]}
    rows = rng.choice(choices[number])
    widest = max(len(row) for row in rows)
    side = {2: 0.4, 3: 0.25}[widest] * rng.uniform(0.92, 1.0)
    heights = {1: one, 2: two}[len(rows)]
    jitter = 0.02
    return [(x + rng.uniform(-jitter, jitter), y + rng.uniform(-jitter, jitter), side)
            for row, y in zip(rows, heights, strict=True) for x in row]


class Drawing:
    """The n-th training example of a folder: a scene of the packs, or a picture of an imagefolder."""

    def __init__(self, data: Path, seed: int, size: int = 256, objects: Sequence[str] = ()) -> None:
        """Takes the folder, the seed, and the recipe's options as of `Composer`."""
        self.data, self.seed, self.size = data, seed, size
        packs = not (data / "metadata.jsonl").is_file() and any((data / pack).is_dir() for pack in PACKS)
        self.composer = Composer(data, size, objects) if packs else None
        self.rows = [] if packs else read_rows(data)
        if not packs and not self.rows:
            raise ValueError(f"{data / 'metadata.jsonl'} names no picture")

    def __call__(self, number: int) -> tuple[np.ndarray, str]:
        """The picture (3, size, size) uint8 and its caption."""
        if self.composer is not None:
            scene = self.composer.nth(self.seed, number)
            picture, caption = scene.picture, scene.caption
        else:
            row = self.rows[number % len(self.rows)]
            whole = on_ground(opened("file_name", str(self.data / row["file_name"])), "white")
            picture, caption = ImageOps.fit(whole, (self.size, self.size)), row["text"]
        return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1)), caption
