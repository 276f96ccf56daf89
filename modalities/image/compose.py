"""Scenes with exact captions, composed from the packs' RGBA objects: recoloured, counted, paired, placed, sized, grounded.

A scene is drawn from a random generator alone, so a seed names it. What is held out for evaluation is decided by a hash
of the names, so training and evaluation agree without sharing a list.
"""

import json
import random
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import inflect
from PIL import Image, ImageDraw

from modalities.image.colour import COLOURS, SWATCHES, colour_of, recolour

COUNTS = ("one", "two", "three", "four", "five")
RELATIONS = ("left of", "right of", "above", "below")
STYLES = {"3d emoji": "3d emoji", "flat emoji": "flat emoji", "noto emoji": "flat emoji", "cartoon emoji": "flat emoji",
          "flat icon": "flat icon", "clip art": "clip art", "product photo": "product photo",
          "product render": "product render"}
SOURCES = {"fluent3d": 1.0, "fluent-emoji-flat": 0.2, "noto": 0.2, "fxemoji": 0.06, "flat-color-icons": 0.1,
           "openclipart": 0.03, "fruits360": 0.03, "sweethome3d": 0.2}
GROUPS = {"food-drink": 1.0, "animals-nature": 1.0, "objects": 0.8, "travel-places": 0.7, "activities": 0.6,
          "people-body": 0.25, "smileys-emotion": 0.4, "symbols": 0.1, "flags": 0.05}
FRUITS = ("apple", "grape", "cherry", "pear", "tomato", "banana", "cantaloupe", "kiwi", "strawberry", "pitahaya",
          "mandarine", "peach", "grapefruit", "avocado", "lemon", "physalis", "plum", "nectarine")
SPELL = inflect.engine()


@dataclass(frozen=True)
class Item:
    """One RGBA picture of the packs."""

    path: Path
    name: str
    style: str
    weight: float
    keywords: tuple[str, ...] = ()


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


def held_out(*names: str, share: float = 0.1) -> bool:
    """Whether this combination is kept from training: a hash of the names, the same on every machine."""
    return zlib.crc32(" | ".join(names).encode()) % 1000 < 1000 * share


def held_out_object(name: str) -> bool:
    """Whether every picture of this object is kept from training."""
    return held_out("object", name, share=0.03)


def held_out_pair(first: str, second: str) -> bool:
    """Whether these two objects are never shown together in training, in whatever order."""
    return held_out("pair", *sorted((first, second)))


def load(data: Path) -> list[Item]:
    """The usable pictures of the packs `stills`, `flat`, `products` and `renders` below `data`, or of an imagefolder there."""
    folders = [p for p in (data / name for name in ("stills", "flat", "products", "renders")) if p.is_dir()] or [data]
    items = []
    for folder in folders:
        for line in (folder / "metadata.jsonl").read_text().splitlines():
            row = json.loads(line)
            weight = SOURCES.get(row.get("source"), 0.1 if folder.name == "renders" else 1.0) * GROUPS.get(row.get("group"), 1.0)
            name = plain_name(row)
            if row.get("source") == "fluent-emoji-flat" and re.search(r" (light|medium|dark)( |$)", row["text"]):
                weight *= 0.05
            items.append(Item(folder / row["file_name"], name, STYLES.get(row.get("style"), row.get("style") or "picture"),
                              weight, tuple(row.get("keywords") or ())))
    return items


def plain_name(row: dict[str, Any]) -> str:
    """The object's name as a person would say it: "apple red yellow" of the photos becomes "red yellow apple"."""
    name = re.sub(r"\s+\d+$", "", str(row["text"]).lower().strip())
    first, _, rest = name.partition(" ")
    if row.get("source") == "fruits360":
        return f"{rest} {first}" if first in FRUITS and rest else name
    return name


def article(name: str) -> str:
    """The name with its article; plural names take none."""
    return name if name.endswith("s") and not name.endswith("ss") else SPELL.a(name)


@lru_cache(maxsize=16384)
def sprite(path: Path, side: int) -> Image.Image:
    """The object cropped to what is opaque, its longer side `side` pixels; photos on white get their ground cut away."""
    picture: Image.Image = Image.open(path)
    if picture.mode != "RGBA" or picture.getextrema()[3][0] > 250:  # type: ignore[index]
        picture = cut_out(picture.convert("RGB"))
    box = picture.getchannel("A").point(lambda a: 255 * (a > 16)).getbbox()
    picture = picture.crop(box) if box else picture
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")


def cut_out(picture: Image.Image) -> Image.Image:
    """An RGB photo on a white ground as RGBA: what a flood from the four corners reaches becomes transparent."""
    work, key = picture.copy(), (255, 0, 255)
    for corner in ((0, 0), (work.width - 1, 0), (0, work.height - 1), (work.width - 1, work.height - 1)):
        if min(work.getpixel(corner)) > 225:  # type: ignore[arg-type]
            ImageDraw.floodfill(work, corner, key, thresh=36)
    alpha = Image.new("L", work.size)
    alpha.putdata([0 if p == key else 255 for p in work.get_flattened_data()])
    picture = picture.copy()
    picture.putalpha(alpha)
    return picture


class Composer:
    """Draws scenes from the packs; `evaluation` draws the combinations that training never shows."""

    def __init__(self, data: Path, size: int = 256, evaluation: bool = False) -> None:
        """Reads the packs' metadata; pictures are read when drawn."""
        self.size, self.evaluation = size, evaluation
        every = load(data)
        self.items = [i for i in every if held_out_object(i.name) == evaluation] if evaluation else \
            [i for i in every if not held_out_object(i.name)]
        if not self.items:
            raise ValueError(f"no pictures for training were found in {data}; it must hold the packs or metadata.jsonl")
        self.known = [i for i in every if not held_out_object(i.name)]
        self.weights = [i.weight for i in self.items]
        by_name: dict[str, list[Item]] = defaultdict(list)
        for item in self.items:
            by_name[item.name].append(item)
        self.by_name = dict(by_name)

    def item(self, rng: random.Random) -> Item:
        """One picture, drawn by weight."""
        return rng.choices(self.items, self.weights)[0]

    def scenes(self, seed: int) -> Iterator[Scene]:
        """Scenes without end; the n-th of a seed is always the same."""
        n = 0
        while True:
            yield self.scene(random.Random(f"{seed}/{n}"))
            n += 1

    def scene(self, rng: random.Random) -> Scene:
        """One scene: mostly single objects, then counts, pairs and sizes."""
        kind = rng.choices(("one", "colour", "count", "pair", "size"), (46, 20, 12, 16, 6))[0]
        return getattr(self, f"_{kind}")(rng)

    # Each builder returns a finished scene; objects are boxes (centre x, centre y, side) as shares of the picture.

    def _one(self, rng: random.Random) -> Scene:
        item = self.item(rng)
        picture = sprite(item.path, self.size)
        colour = colour_of(picture) if rng.random() < 0.4 else None
        phrase = self._phrase(item, colour if colour and not held_out("colour", item.name, colour) else None)
        side = rng.uniform(0.72, 0.86)
        return self._finish(rng, "one", article(phrase), [(item, picture, (0.5, 0.5, side), None)], phrase=phrase)

    def _size(self, rng: random.Random) -> Scene:
        item = self.item(rng)
        word, side = rng.choice((("big", 0.92), ("large", 0.92), ("small", 0.38), ("tiny", 0.28)))
        spread = (1 - side) / 3
        centre = (0.5 + rng.uniform(-spread, spread), 0.5 + rng.uniform(-spread, spread), side * rng.uniform(0.94, 1.04))
        return self._finish(rng, "size", SPELL.a(f"{word} {item.name}"), [(item, sprite(item.path, self.size), centre, None)])

    def _tinted(self, rng: random.Random) -> tuple[Item, Image.Image, str | None]:
        """An object in a colour that is not held out for it; its own picture and None after twelve vain tries."""
        for _ in range(12):
            item, colour = self.item(rng), rng.choice(COLOURS)
            if any(word in item.name.split() for word in COLOURS) or held_out("colour", item.name, colour):
                continue
            turned = recolour(sprite(item.path, self.size), colour)
            if turned:
                return item, turned, colour
        return item, sprite(item.path, self.size), None

    def _colour(self, rng: random.Random) -> Scene:
        item, picture, colour = self._tinted(rng)
        phrase = self._phrase(item, colour)
        side = rng.uniform(0.72, 0.86)
        return self._finish(rng, "colour", article(phrase), [(item, picture, (0.5, 0.5, side), colour)], phrase=phrase)

    def _count(self, rng: random.Random) -> Scene:
        number = rng.choice((2, 2, 3, 3, 4, 5))
        item, picture, colour = self._tinted(rng) if rng.random() < 0.35 else (self.item(rng), None, None)
        while held_out("count", item.name, str(number)) or item.name.endswith("s"):
            item, picture, colour = self.item(rng), None, None
        picture = picture or sprite(item.path, self.size)
        places = [(item, picture, place, colour) for place in arrange(rng, number)]
        phrase = self._phrase(item, colour)
        return self._finish(rng, "count", f"{COUNTS[number - 1]} {SPELL.plural(phrase)}", places)

    def _pair(self, rng: random.Random) -> Scene:
        a, pa, ca = self._tinted(rng) if rng.random() < 0.4 else (self.item(rng), None, None)
        for _ in range(50):
            b, pb, cb = self._tinted(rng) if rng.random() < 0.4 else (self.item(rng), None, None)
            if b.name != a.name and not held_out_pair(a.name, b.name) and STYLES.get(a.style) == STYLES.get(b.style):
                break
        else:
            return self._one(rng)
        relation = rng.choice(("and", *RELATIONS))
        near, far, side = rng.uniform(0.24, 0.27), rng.uniform(0.73, 0.76), rng.uniform(0.4, 0.47)
        cross = 0.5 + rng.uniform(-0.06, 0.06)
        first = {"and": (near, cross), "left of": (near, cross), "right of": (far, cross),
                 "above": (cross, near), "below": (cross, far)}[relation]
        second = (1 - first[0] if first[0] != cross else cross, 1 - first[1] if first[1] != cross else cross)
        first_phrase, second_phrase = article(self._phrase(a, ca)), article(self._phrase(b, cb))
        said = relation if relation in ("and", "above", "below") else rng.choice((relation, f"to the {relation}", f"on the {relation}"))
        return self._finish(rng, "pair", f"{first_phrase} {said} {second_phrase}", [
            (a, pa or sprite(a.path, self.size), (*first, side), ca),
            (b, pb or sprite(b.path, self.size), (*second, side), cb)], relation=relation)

    def _phrase(self, item: Item, colour: str | None) -> str:
        return f"{colour} {item.name}" if colour and colour not in item.name.split() else item.name

    def _finish(self, rng: random.Random, kind: str, words: str, placed: list[tuple[Item, Image.Image, tuple[float, ...], str | None]],
                phrase: str | None = None, relation: str | None = None) -> Scene:
        """Draws the ground and the objects and words the caption around `words`."""
        item = placed[0][0]
        if phrase and rng.random() < 0.2:
            words = phrase  # "red apple"
        if kind == "one" and item.keywords and rng.random() < 0.12:
            words = f"{words}, {', '.join(rng.sample(item.keywords, min(2, len(item.keywords))))}"
        style = item.style
        if rng.random() < (0.3 if style == "3d emoji" else 0.9):
            words = rng.choice((f"{SPELL.a(style)} of {words}", f"{words}, {style}", f"{words}, {style} style"))
        elif rng.random() < 0.1:
            words = f"a picture of {words}"
        ground, picture = self._ground(rng, {c for *_, c in placed if c} | {colour_of(p, 0.3) for _, p, *_ in placed})
        if ground != "white" or rng.random() < 0.1:
            words = f"{words} on {SPELL.a(ground)} background"
        things = []
        for item, cut, (x, y, side), colour in placed:
            scale = side * self.size / max(cut.size)
            drawn = cut.convert("RGBa").resize((max(1, round(cut.width * scale)), max(1, round(cut.height * scale))),
                                               Image.Resampling.BICUBIC, reducing_gap=2.0).convert("RGBA")
            left, top = round(x * self.size - drawn.width / 2), round(y * self.size - drawn.height / 2)
            picture.paste(drawn, (left, top), drawn)
            things.append(Thing(item.name, item.style, (left / self.size, top / self.size, (left + drawn.width) / self.size,
                                                        (top + drawn.height) / self.size), colour))
        return Scene(picture, words, kind, things, ground, relation)

    def _ground(self, rng: random.Random, avoid: set[str | None]) -> tuple[str, Image.Image]:
        """A ground's name and picture: white mostly, else a plain colour that no object has, or a gradient."""
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


def arrange(rng: random.Random, number: int) -> list[tuple[float, float, float]]:
    """Places for `number` equal objects that do not overlap: (centre x, centre y, side) as shares of the picture."""
    rows = {1: [[0.5]], 2: [[0.26, 0.74]], 3: rng.choice(([[0.5], [0.26, 0.74]], [[0.26, 0.74], [0.5]], [[0.19, 0.5, 0.81]])),
            4: [[0.27, 0.73], [0.27, 0.73]], 5: rng.choice(([[0.19, 0.5, 0.81], [0.3, 0.7]], [[0.3, 0.7], [0.19, 0.5, 0.81]]))}[number]
    widest = max(len(row) for row in rows)
    side = {1: 0.8, 2: 0.42, 3: 0.27}[widest] * rng.uniform(0.92, 1.0)
    heights = {1: [0.5], 2: [0.27, 0.73]}[len(rows)]
    jitter = 0.02
    return [(x + rng.uniform(-jitter, jitter), y + rng.uniform(-jitter, jitter), side)
            for row, y in zip(rows, heights, strict=True) for x in row]
