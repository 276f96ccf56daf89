"""Shapes with exact captions, as they are or in another colour or material, drawn from a seed and a number.

Scene n of seed s is the same on every machine and needs no other scene. What is held out for evaluation is
decided by a hash of the names, so training and evaluation agree without sharing a list.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modalities.image.colour import COLOURS, SWATCHES, words
from modalities.image.compose import SPELL, coloured, plural
from modalities.mesh.grid import filled, gridded, shown, stretched, surface_points
from modalities.mesh.picture import splat, tokens
from modalities.mesh.sample import EXTENT, Sampled
from modalities.mesh.shapes import Shape, held_out_colour, load
from modalities.packs import read_rows
from suite.storage import replacing

Array = NDArray[Any]
MASS = {"armor", "bacon", "bamboo", "bread", "broccoli", "butter", "cheese", "grass", "hay", "lettuce",
        "meat", "sushi", "wheat", "soda", "toilet paper", "paper towel"}  # take no article
LEAST = 0.6  # the share of a shape that answers to its colour word
STRETCH = 0.05  # by how much an axis may be longer or shorter
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
    """A shape as a grid, its caption and what the caption tells."""

    grid: Array
    caption: str
    name: str
    colour: str | None = None
    material: str | None = None
    path: Path | None = None


class Composer:
    """Draws shapes of the pack, without the names, colours and materials that are held out."""

    def __init__(self, data: Path, cache: Path | None = None, names: Sequence[str] = ()) -> None:
        """Reads the pack's metadata; meshes are read when drawn.

        Args:
            data: the folder of the packs, or the pack.
            cache: a folder in which each shape's grid is kept; nowhere if it is None.
            names: what is drawn; everything if it is empty.
        Raises: ValueError, in one sentence, if there is nothing to draw.
        """
        found = load(data)
        self.shapes = [s for s in found if not s.held and (not names or s.name in names)]
        if not self.shapes:
            raise ValueError(f"no shapes to train on were found in {data}; it must hold the shapes pack")
        self.cache = cache
        count = Counter(s.name for s in self.shapes)
        self.weights = [  # of four times as many shapes twice as many scenes, and of furniture twice as many
            count[s.name] ** -0.5 * (2 if re.fullmatch(FURNITURE, s.name) else 1) for s in self.shapes
        ]

    def nth(self, seed: int, number: int) -> Scene:
        """The scene of this number; the same on every machine."""
        return self.scene(random.Random(f"{seed}/{number}"))

    def scene(self, rng: random.Random) -> Scene:
        """One scene: mostly shapes as they are, a third of them coloured, a tenth of a material."""
        shape = rng.choices(self.shapes, self.weights)[0]
        grid = kept(shape.path, self.cache)
        near = shown(grid)
        colours = grid[1:, near].T
        kind = rng.choices(("plain", "colour", "material"), (55, 33, 12))[0]
        colour, material, painted = None, None, colours
        if kind == "colour":
            painted, colour = self._tinted(rng, shape, colours)
        elif kind == "material":
            painted, material = self._made_of(rng, shape, colours)
        if colour is None and material is None:
            if shape.material and rng.random() < 0.5:
                material = None if held_out_colour(shape.name, shape.material) else shape.material
            elif rng.random() < 0.4:
                colour = shown_colour(shape.name, colours)
        caption = worded(rng, shape, colour, material)
        grid = grid.copy()
        grid[1:, near] = painted.T
        sides = [rng.uniform(1 - STRETCH, 1 + STRETCH) for _ in range(3)]
        way = np.diag([sides[0] * rng.choice((-1, 1)), *sides[1:]])  # half of the scenes are mirrored
        return Scene(stretched(filled(grid), way), caption, shape.name, colour, material, shape.path)

    def _tinted(self, rng: random.Random, shape: Shape, colours: Array) -> tuple[Array, str | None]:
        """The colours in one that is not held out for it; as they are, and None, where it takes none."""
        free = [c for c in COLOURS if not held_out_colour(shape.name, c)]
        for colour in rng.sample(free, min(3, len(free))):
            turned = None if coloured(shape.name) else tinted(colours, colour)
            if turned is not None:
                return turned, colour
        return colours, None

    def _made_of(self, rng: random.Random, shape: Shape, colours: Array) -> tuple[Array, str | None]:
        """The colours of a material that suits it and is not held out; as they are, and None, if none is."""
        free = [m for m in materials_of(shape.name) if not held_out_colour(shape.name, m)]
        if not free:
            return colours, None
        material = rng.choice(free)
        return made_of(colours, material), material


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


@lru_cache(maxsize=4096)  # a grid is 128 KiB
def kept(path: Path, cache: Path | None = None) -> Array:
    """The grid of a shape, kept in a folder if one is given."""
    file = cache / path.name if cache else None
    if file and file.is_file():
        with np.load(file, allow_pickle=False) as found:
            return np.asarray(found["grid"])
    grid = gridded(path)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as beside, beside.open("wb") as part:
            np.savez_compressed(part, grid=grid)
    return grid


def moved(drawn: Sampled, way: Array, rng: np.random.Generator, points: int) -> Sampled:
    """Some points of a shape under a linear map about its centre, made to fit again.

    Args:
        drawn: of which there are more.
        way: (3, 3) float, what is done to a point.
        rng: what chooses.
        points: N at most.
    """
    whole = drawn.points @ way.T
    low, high = whole.min(0), whole.max(0)
    centre, scale = (low + high) / 2, EXTENT / (high - low).max()
    some = rng.permutation(len(whole))[:points]
    normals = drawn.normals[some] @ np.linalg.inv(way)
    return Sampled(
        ((whole[some] - centre) * scale).astype(np.float32),
        (normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)).astype(np.float32),
        drawn.colours[some],
    )


def shown_colour(name: str, colours: Array) -> str | None:
    """The colour word that a shape's colours (N, 3) answer to, if it may be told."""
    colour, share = dominant(colours)
    return colour if share >= LEAST and not coloured(name) and not held_out_colour(name, colour) else None


def dominant(colours: Array) -> tuple[str, float]:
    """The colour word that most of (N, 3) sRGB answer to, and their share."""
    names, counts = np.unique(words(colours), return_counts=True)
    return str(names[counts.argmax()]), float(counts.max() / len(colours))


def tinted(colours: Array, colour: str) -> Array | None:
    """Colours (N, 3) with the dominant one turned into another, or None if they would not answer to that."""
    old, share = dominant(colours)
    shown_words = words(colours)  # of several colours, all but the darkest are turned
    part = shown_words == old if share >= LEAST else shown_words != "black"
    made = painted(colours, SWATCHES[colour], part)
    return made if (words(made) == colour).mean() >= LEAST else None


def made_of(colours: Array, material: str) -> Array:
    """Colours (N, 3) in the colour of a material."""
    return painted(colours, MATERIALS[material][1], np.ones(len(colours), bool))


def painted(colours: Array, colour: tuple[int, int, int], part: Array) -> Array:
    """Colours (N, 3) with some (N,) bool in one colour, light and dark among them as before."""
    light = colours.astype(np.float32).mean(1)
    mean = max(float(light[part].mean()) if part.any() else 1.0, 1.0)
    shade = np.clip(light / mean, 0.75, 1.15)[:, None]
    return np.where(part[:, None], np.clip(np.array(colour) * shade, 0, 255), colours).astype(np.uint8)


def materials_of(name: str) -> list[str]:
    """The materials of which a shape of this name may be."""
    return [material for material, (*_, suits) in MATERIALS.items() if re.fullmatch(suits, name)]


class Drawing:
    """The n-th training example of a folder: a scene of the packs, or a mesh with its caption."""

    def __init__(self, data: Path, seed: int, options: Mapping[str, Any]) -> None:
        """Takes the folder, the seed, and of the recipe's `[data]` what is used.

        That is `cache`, `names`, and whether `pictures` go with the captions.
        """
        self.data, self.seed = data, seed
        self.rows = read_rows(data) if (data / "metadata.jsonl").is_file() else []
        cache = Path(options["cache"]) if "cache" in options else None
        self.composer = None if self.rows else Composer(data, cache, options.get("names", ()))
        self.pictures = bool(options.get("pictures", False))

    def __call__(self, number: int) -> tuple[Array, str] | tuple[Array, str, Array]:
        """The grid (4, R, R, R) uint8 and its caption; with pictures, one of the two may be empty."""
        grid, caption = self.drawn(number)
        if not self.pictures:
            return grid, caption
        rng = np.random.default_rng((self.seed, number))
        told = tokens(splat(*surface_points(grid), rng))
        seen, said = rng.choice([(1, 1), (1, 0), (0, 1)], p=TOLD_BY)
        return grid, caption * said, told * np.float32(seen)

    def drawn(self, number: int) -> tuple[Array, str]:
        """The grid and the caption."""
        if self.composer:
            scene = self.composer.nth(self.seed, number)
            return scene.grid, scene.caption
        row = self.rows[number % len(self.rows)]
        return filled(kept(self.data / row["file_name"])), row["text"]
