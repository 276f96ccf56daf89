"""Shapes with exact captions, as they are or in another colour or material, drawn from a seed and a number.

Scene n of seed s is the same on every machine and needs no other scene. What is held out for evaluation is
decided by a hash of the names, so training and evaluation agree without sharing a list.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modalities.image.colour import COLOURS, SWATCHES, words
from modalities.image.compose import SPELL, coloured, plural
from modalities.mesh.picture import splat, tokens
from modalities.mesh.sample import EXTENT, Sampled, sampled
from modalities.mesh.shapes import Shape, held_out_colour, load
from modalities.packs import read_rows

Array = NDArray[Any]
MASS = {"armor", "bacon", "bamboo", "bread", "broccoli", "butter", "cheese", "grass", "hay", "lettuce",
        "meat", "sushi", "wheat", "soda", "toilet paper", "paper towel"}  # take no article
LEAST = 0.6  # the share of a shape that answers to its colour word
TURN, STRETCH = 10.0, 0.12  # degrees to either side, and by how much an axis may be longer or shorter
POINTS, QUERIES = 4096, 16384  # sampled once of each shape, of which every scene takes some
TOLD_BY = (0.25, 0.3, 0.45)  # shares of the examples: by picture and caption, picture, caption
FURNITURE = ("chair|armchair|bench|stool|table|desk|bed|shelf|bookcase|cabinet|dresser|wardrobe|nightstand|"
             "door|chest")
STATUES = ("horse|dog|cat|cow|bull|deer|stag|fox|wolf|rabbit|bunny|dolphin|whale|shark|dinosaur|frog|snake|"
           "dragon|angel statue|monkey head|horse statue|deer statue|knight|man|woman|teddy bear|skull")
MATERIALS: dict[str, tuple[str, tuple[int, int, int], str]] = {  # adjective, sRGB, the names that it suits
    "wood": ("wooden", (142, 92, 52),
             f"{FURNITURE}|box|crate|barrel|bowl|spoon|bucket|ladder|fence|toy .*|{STATUES}"),
    "metal": ("metal", (164, 168, 174),
              f"{FURNITURE}|barrel|box|bucket|key|ladder|fence|gate|railing|mug|trash can"),
    "gold": ("golden", (214, 172, 54),
             "crown|ring|coin|key|goblet|sword|shield|dagger|axe|arrow|star|heart|bell|vase|cup|" + STATUES),
    "stone": ("stone", (132, 128, 122),
              f"bench|table|column|arch|bowl|vase|fountain|stairs|well|tower|{STATUES}"),
    "leather": ("leather", (104, 62, 40),
                "sofa|armchair|corner sofa|handbag|bag|shoes|boots|suitcase|book"),
}
TOLD = {name: row[0] for name, row in MATERIALS.items()} | {m: m for m in ("glass", "rattan", "plastic")}


@dataclass(frozen=True)
class Scene:
    """A sampled shape, its caption and what the caption tells."""

    sampled: Sampled
    caption: str
    name: str
    colour: str | None = None
    material: str | None = None
    path: Path | None = None


class Composer:
    """Draws shapes of the pack, without the names, colours and materials that are held out."""

    def __init__(self, data: Path, cache: Path | None = None, names: Sequence[str] = (), points: int = 2048,
                 queries: int = 4096) -> None:
        """Reads the pack's metadata; meshes are read and sampled when drawn.

        Args:
            data: the folder of the packs, or the pack.
            cache: a folder in which what was sampled of each shape is kept; nowhere if it is None.
            names: what is drawn; everything if it is empty.
            points: N of a scene, at most POINTS.
            queries: Q of a scene, at most QUERIES.
        Raises: ValueError, in one sentence, if there is nothing to draw.
        """
        found = load(data)
        self.shapes = [s for s in found if not s.held and (not names or s.name in names)]
        if not self.shapes:
            raise ValueError(f"no shapes to train on were found in {data}; it must hold the shapes pack")
        self.cache, self.points, self.queries = cache, points, queries
        count = Counter(s.name for s in self.shapes)
        self.weights = [count[s.name] ** -0.5 for s in self.shapes]  # four times as many: drawn twice

    def nth(self, seed: int, number: int) -> Scene:
        """The scene of this number; the same on every machine."""
        return self.scene(random.Random(f"{seed}/{number}"))

    def scene(self, rng: random.Random) -> Scene:
        """One scene: mostly shapes as they are, a third of them coloured, a tenth of a material."""
        shape = rng.choices(self.shapes, self.weights)[0]
        drawn = pooled(shape.path, self.cache)
        kind = rng.choices(("plain", "colour", "material"), (55, 33, 12))[0]
        colour, material = None, None
        if kind == "colour":
            drawn, colour = self._tinted(rng, shape, drawn)
        elif kind == "material":
            drawn, material = self._made_of(rng, shape, drawn)
        if colour is None and material is None:
            if shape.material and rng.random() < 0.5:
                material = None if held_out_colour(shape.name, shape.material) else shape.material
            elif rng.random() < 0.4:
                colour = shown_colour(shape.name, drawn)
        caption = worded(rng, shape, colour, material)
        return Scene(self._varied(rng, drawn), caption, shape.name, colour, material, shape.path)

    def _tinted(self, rng: random.Random, shape: Shape, drawn: Sampled) -> tuple[Sampled, str | None]:
        """The shape in a colour that is not held out for it; as it is, and None, where it takes none."""
        free = [c for c in COLOURS if not held_out_colour(shape.name, c)]
        for colour in rng.sample(free, min(3, len(free))):
            turned = None if coloured(shape.name) else tinted(drawn, colour)
            if turned:
                return turned, colour
        return drawn, None

    def _made_of(self, rng: random.Random, shape: Shape, drawn: Sampled) -> tuple[Sampled, str | None]:
        """The shape of a material that suits it and is not held out; as it is, and None, if none is."""
        free = [m for m in materials_of(shape.name) if not held_out_colour(shape.name, m)]
        if not free:
            return drawn, None
        material = rng.choice(free)
        return made_of(drawn, material), material

    def _varied(self, rng: random.Random, drawn: Sampled) -> Sampled:
        """Some of the points and queries, mirrored in half of the scenes, a little turned and stretched."""
        turn = np.radians(rng.uniform(-TURN, TURN))
        stretch = [rng.uniform(1 - STRETCH, 1 + STRETCH) for _ in range(3)]
        about = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
        way = about @ np.diag([stretch[0] * rng.choice((-1, 1)), *stretch[1:]])
        return moved(drawn, way, np.random.default_rng(rng.getrandbits(64)), self.points, self.queries)


def worded(rng: random.Random, shape: Shape, colour: str | None = None, material: str | None = None) -> str:
    """A caption: "a wooden chair", "a chair made of wood", "a red chair", "a 3d model of a chair"."""
    name = rng.choice(shape.words) if shape.words and rng.random() < 0.4 else shape.name
    if not set(name.split()).isdisjoint(TOLD.values()) or coloured(name):  # its words must not contradict
        name = shape.name
    made_of = material if material and rng.random() < 0.3 else None
    parts = [colour, TOLD[material] if material and not made_of else None, name]
    phrase = " ".join(part for part in parts if part)
    said = phrase if rng.random() < 0.15 else article(phrase, name)
    said = f"{said} made of {made_of}" if made_of else said
    return f"a 3d model of {said}" if rng.random() < 0.12 and said != phrase else said


def article(phrase: str, name: str) -> str:
    """A phrase with its article, where the name that it tells of takes one."""
    head = re.split(" (?:of|with|on|in) ", name)[0]
    return phrase if name in MASS or plural(head) else str(SPELL.a(phrase))


@lru_cache(maxsize=4096)
def pooled(path: Path, cache: Path | None = None) -> Sampled:
    """What is sampled once of a shape, POINTS and QUERIES, kept in a folder if one is given."""
    kept = cache / path.name if cache else None
    if kept and kept.is_file():
        with np.load(kept, allow_pickle=False) as file:
            return Sampled(*(file[key] for key in Sampled.__dataclass_fields__))
    drawn = sampled(path, np.random.default_rng(0), POINTS, QUERIES)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside = kept.with_name(f".{kept.name}")
        np.savez(beside, **{key: getattr(drawn, key) for key in Sampled.__dataclass_fields__})
        beside.replace(kept)
    return drawn


def moved(drawn: Sampled, way: Array, rng: np.random.Generator, points: int, queries: int) -> Sampled:
    """Some points and queries of a shape under a linear map about its centre, made to fit again.

    Args:
        drawn: of which there are more.
        way: (3, 3) float, what is done to a point.
        rng: what chooses.
        points: N at most.
        queries: Q at most, half of them near the surface, without those that leave the cube.
    """
    whole = drawn.points @ way.T
    low, high = whole.min(0), whole.max(0)
    centre, scale = (low + high) / 2, EXTENT / (high - low).max()
    some = rng.permutation(len(whole))[:points]
    normals = drawn.normals[some] @ np.linalg.inv(way)
    asked = (drawn.queries @ way.T - centre) * scale
    within = np.abs(asked).max(1) <= 1
    halves = [rng.permutation(np.flatnonzero(within[s::2]) * 2 + s)[: queries // 2] for s in (0, 1)]
    taken = np.stack([np.resize(half, queries // 2) for half in halves], 1).ravel()
    return Sampled(
        ((whole[some] - centre) * scale).astype(np.float32),
        (normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)).astype(np.float32),
        drawn.colours[some], asked[taken].astype(np.float32), drawn.inside[taken], drawn.query_colours[taken],
    )


def shown_colour(name: str, drawn: Sampled) -> str | None:
    """The colour word that the shape answers to, if it may be told."""
    colour, share = dominant(drawn.colours)
    return colour if share >= LEAST and not coloured(name) and not held_out_colour(name, colour) else None


def dominant(colours: Array) -> tuple[str, float]:
    """The colour word that most of (N, 3) sRGB answer to, and their share."""
    names, counts = np.unique(words(colours), return_counts=True)
    return str(names[counts.argmax()]), float(counts.max() / len(colours))


def tinted(drawn: Sampled, colour: str) -> Sampled | None:
    """The shape with its dominant colour turned into another, or None if it would not answer to that."""
    old, share = dominant(drawn.colours)
    old_words, asked_words = words(drawn.colours), words(drawn.query_colours)
    part, asked_part = old_words == old, asked_words == old
    if share < LEAST:  # several colours: all but the darkest of them
        part, asked_part = old_words != "black", asked_words != "black"
    made = painted(drawn, SWATCHES[colour], part, asked_part)
    return made if (words(made.colours) == colour).mean() >= LEAST else None


def made_of(drawn: Sampled, material: str) -> Sampled:
    """The whole shape in the colour of a material."""
    whole = np.ones(len(drawn.colours), bool), np.ones(len(drawn.query_colours), bool)
    return painted(drawn, MATERIALS[material][1], *whole)


def painted(drawn: Sampled, colour: tuple[int, int, int], part: Array, asked_part: Array) -> Sampled:
    """The shape with some points (N,) and queries (Q,) in a colour, light and dark among them as before."""
    light = drawn.colours.astype(np.float32).mean(1)
    mean = max(float(light[part].mean()) if part.any() else 1.0, 1.0)

    def coat(colours: Array, where: Array) -> Array:
        shade = np.clip(colours.astype(np.float32).mean(1) / mean, 0.75, 1.15)[:, None]
        return np.where(where[:, None], np.clip(np.array(colour) * shade, 0, 255), colours).astype(np.uint8)

    asked = coat(drawn.query_colours, asked_part)
    return replace(drawn, colours=coat(drawn.colours, part), query_colours=asked)


def materials_of(name: str) -> list[str]:
    """The materials of which a shape of this name may be."""
    return [material for material, (*_, suits) in MATERIALS.items() if re.fullmatch(suits, name)]


def signal(drawn: Sampled) -> Array:
    """(10, N + Q) int16, 32767 is 1, as `suite.nn.surface.Surface` takes it: points, then queries."""
    count, asked = len(drawn.points), len(drawn.queries)
    places = np.concatenate([drawn.points, drawn.queries])
    normals = np.concatenate([drawn.normals, np.zeros((asked, 3))])
    colours = np.concatenate([drawn.colours, drawn.query_colours]) / 127.5 - 1
    inside = np.concatenate([np.zeros(count), np.where(drawn.inside, 1, -1)])
    rows = np.concatenate([places, normals, colours, inside[:, None]], 1)
    return np.rint(rows.clip(-1, 1) * 32767).astype(np.int16).T


class Drawing:
    """The n-th training example of a folder: a scene of the packs, or a mesh with its caption."""

    def __init__(self, data: Path, seed: int, options: Mapping[str, Any]) -> None:
        """Takes the folder, the seed, and of the recipe's `[data]` what is used.

        That is `cache`, `names`, `points`, `queries`, and whether `pictures` go with the captions.
        """
        self.data, self.seed = data, seed
        self.told = {key: options[key] for key in ("names", "points", "queries") if key in options}
        self.rows = read_rows(data) if (data / "metadata.jsonl").is_file() else []
        cache = Path(options["cache"]) if "cache" in options else None
        self.composer = None if self.rows else Composer(data, cache, **self.told)
        self.pictures = bool(options.get("pictures", False))

    def __call__(self, number: int) -> tuple[Array, str] | tuple[Array, str, Array]:
        """The signal, (10, N + Q) int16, and its caption; with pictures, one of the two may be empty."""
        drawn, caption = self.drawn(number)
        if not self.pictures:
            return signal(drawn), caption
        rng = np.random.default_rng((self.seed, number))
        told = tokens(splat(drawn, rng))
        shown, said = rng.choice([(1, 1), (1, 0), (0, 1)], p=TOLD_BY)
        return signal(drawn), caption * said, told * np.float32(shown)

    def drawn(self, number: int) -> tuple[Sampled, str]:
        """The points and the caption."""
        if self.composer:
            scene = self.composer.nth(self.seed, number)
            return scene.sampled, scene.caption
        row, counts = self.rows[number % len(self.rows)], {k: v for k, v in self.told.items() if k != "names"}
        drawn = sampled(self.data / row["file_name"], np.random.default_rng((self.seed, number)), **counts)
        return drawn, row["text"]
