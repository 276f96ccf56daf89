"""The prompts a mesh model is judged on, and real shapes of the same prompts.

Colours and materials are those that training never has of a name, and so are new names; only single names
are said as in training. So the prompts follow from names alone and need no data.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modalities.image.colour import COLOURS, words
from modalities.image.compose import coloured
from modalities.mesh.compose import MATERIALS, made_of, materials_of, tinted, worded
from modalities.mesh.sample import Sampled, sampled
from modalities.mesh.shapes import Shape, held_out_colour, held_out_name, load
from modalities.packs import held_out

# From which the judge chooses: names of three shapes of the pack or more, and those that are held out.
NAMES = tuple(" ".join("""
    air conditioner, alien plant, alien tree, arch, armchair, armor, arrow, arrow sign, astronaut, axe,
    backpack, bamboo, banknote, banner, barrel, bathroom vanity, bathtub, bear trap, bed, beet, bench,
    berry bush, bicycle, boat, bone, book, bookcase, bottle, bow, bowl, box, briefcase, bucket, building,
    bunk bed, burger, burger patty, bush, cabinet, cactus, campfire, camping tent, can, candle, cannon, car,
    carrot, castle, ceiling lamp, chair, cheese, chest, church, cloud, coffee cup, coffee machine, coin,
    column, corn plant, corner sofa, crate, crossbow, cube, cup, curtains, cutting board, dagger, dead tree,
    desk, dinosaur, dock, dog, donut, door, dresser, fireplace, first aid kit, fish, fishing lure,
    fishing rod, floor lamp, fork, fried egg, frying pan, gem, glass, grass, gravestone, grenade,
    gun turret, half heart, hammer, heart, hedge, helmet, highlighter, hill, hills, horse, house, jar,
    kettle, key, kitchen utensil, knife, ladder, lamp, lantern, leg of ham, lever, lid, light switch,
    lily pad, log, lounge chair, man, market stall, milk carton, monster, mossy rock, motorcycle, mountain,
    mug, mushroom, necklace, nightstand, onion, open book, oven, pallet, palm tree, picture frame,
    pile of coins, pillow, pine tree, pipe, pirate, pistol, planet, plant, plate, plate of food, pot,
    pot of stew, potion bottle, potted plant, pumpkin, radiator, railing, ramp, range hood, refrigerator,
    revolver, rifle, ring, road sign, robot, rock, rover, rug, sack, sailing ship, shark, shelf, shield,
    shotgun, shovel, sign, sink, skull, snowflake, snowy rock, snowy tree, sofa, solar panel, spaceship,
    spikes, spoon, stack of boxes, stairs, star, steak, stool, stove, streetlight, sugar bowl, sushi,
    swimming pool, sword, table, table with things on it, tank, target, television, toilet, toilet paper,
    tomato, tomato slice, torch, towel, towel rack, tower, tractor, traffic light, trailer, trash can,
    treasure chest, tree, tree stump, trees, truck, van, vase, wall socket, wardrobe, washing machine,
    watchtower, water bottle, water heater, watermill, well, wheat, windmill, window, wine bottle, woman,
    woman in a dress
""".split()).split(", "))
# Of those, the ones that the shipped model is trained on.
ASKED = tuple(" ".join("""
    armchair, axe, barrel, bathtub, bed, bench, bicycle, boat, book, bookcase, bottle, bowl, box,
    bucket, burger, cabinet, cactus, candle, car, carrot, castle, chair, chest, coffee cup, corner
    sofa, crate, desk, dinosaur, dog, donut, door, dresser, fish, floor lamp, gem, glass, helmet,
    horse, house, jar, ladder, lamp, lounge chair, mug, mushroom, nightstand, oven, palm tree,
    pillow, potted plant, pumpkin, refrigerator, robot, rock, shelf, shield, sink, sofa, spaceship,
    stool, stove, sword, table, television, toilet, tower, tractor, trash can, tree, truck, vase,
    wardrobe, washing machine, windmill, wine bottle
""".split()).split(", "))
# Colours and materials that a shape of the pack has by itself: training shows it so, whatever is held out.
SHOWN = {
    "armchair": "green yellow orange", "banknote": "blue", "bed": "metal", "book": "pink",
    "bow": "red brown", "cabinet": "orange", "cactus": "green orange", "candle": "gray", "cannon": "gray",
    "chair": "red", "chest": "purple", "column": "gray", "corner sofa": "black", "crate": "orange",
    "cup": "yellow white", "dead tree": "brown", "dog": "orange", "fireplace": "gray", "fish": "black pink",
    "frying pan": "black white", "gem": "pink", "kitchen utensil": "black", "lamp": "white",
    "lily pad": "green", "log": "wood", "man": "brown", "market stall": "brown", "nightstand": "orange",
    "open book": "brown", "pile of coins": "orange", "planet": "black gray", "plate": "gray",
    "radiator": "white", "rock": "stone", "rug": "red", "shelf": "white", "shotgun": "black",
    "sign": "gray", "sink": "gray", "sofa": "blue", "swimming pool": "blue", "sword": "yellow",
    "table": "yellow", "toilet": "white", "tomato": "pink", "tree": "brown", "wardrobe": "black",
}  # fmt: skip
LEAST, KEPT = 3, 0.15  # shapes of a name of which the judge is not trained on all, and the share it is not
KINDS = ("name", "colour", "material", "new")
MEASURED = KINDS[1:3]  # in the others no more is asked than what it is


@dataclass(frozen=True)
class Prompt:
    """What is asked and what must be seen; a colour, a material or neither."""

    text: str
    kind: str
    name: str
    colour: str | None = None
    material: str | None = None

    @property
    def colours(self) -> tuple[str, ...]:
        """The words of which most of the surface must answer to one; none if no colour is asked."""
        if self.material:
            shades = np.array(MATERIALS[self.material][1]) * np.linspace(0.75, 1.15, 9)[:, None]
            return tuple(sorted(set(words(shades.clip(0, 255).astype(np.uint8)).tolist())))
        return (self.colour,) if self.colour else ()


def prompts(count: int = 16, seed: int = 0) -> list[Prompt]:
    """`count` prompts of each kind, worded as in training, the same on every machine; fewer if there are."""
    plain = [name for name in ASKED if not coloured(name)]
    tones = [pair for pair in product(plain, COLOURS) if _never(*pair)]
    stuffs = [(name, made) for name in plain for made in materials_of(name) if _never(name, made)]
    every = (
        [(name, None, None) for name in ASKED],
        [(name, colour, None) for name, colour in tones],
        [(name, None, material) for name, material in stuffs],
        [(name, None, None) for name in NAMES if held_out_name(name)],
    )
    found = []
    for kind, rows in zip(KINDS, every, strict=True):
        rng = random.Random(f"{seed}/{kind}")
        for name, colour, material in rng.sample(rows, min(count, len(rows))):
            text = worded(rng, Shape(Path(), name), colour, material)
            found.append(Prompt(text, kind, name, colour, material))
    return found


def _never(name: str, told: str) -> bool:
    """Whether training has no shape of this name in this colour or of this material."""
    return held_out_colour(name, told) and told not in SHOWN.get(name, "").split()


def parted(data: Path) -> tuple[list[Shape], list[Shape]]:
    """The pack's shapes of NAMES: those the judge is trained on, and those it never saw.

    Raises: ValueError, in one sentence, if there are none.
    """
    found = [shape for shape in load(data) if shape.name in NAMES]
    if not found:
        raise ValueError(f"{data} holds no shape of the names that are asked for; it must hold the packs")
    count, firsts = Counter(shape.name for shape in found), {s.name: s for s in reversed(found)}.values()
    trained, kept = [], []
    for shape in found:
        may = count[shape.name] >= LEAST and shape not in firsts  # one at least is trained on
        (kept if may and held_out("judge", shape.path.name, share=KEPT) else trained).append(shape)
    return trained, kept


def real_shapes(asked: Sequence[Prompt], data: Path) -> Mapping[int, tuple[Path, Sampled]]:
    """Of each prompt's number a real shape, painted as asked; none of a prompt for which the pack has none.

    A shape that the judge never saw is taken where a name has one, and each once if they are enough.
    """
    trained, kept = parted(data)
    found: dict[int, tuple[Path, Sampled]] = {}
    for i, prompt in enumerate(asked):
        some = [[s.path for s in part if s.name == prompt.name] for part in (kept, trained)]
        used = Counter(path for path, _ in found.values())
        for path in sorted(some[0] or some[1], key=used.__getitem__):
            drawn: Sampled = sampled(path, np.random.default_rng(0))
            colours: NDArray[np.uint8] | None = drawn.colours
            if prompt.colour:
                colours = tinted(drawn.colours, prompt.colour)
            elif prompt.material:
                colours = made_of(drawn.colours, prompt.material)
            if colours is not None:
                found[i] = path, replace(drawn, colours=colours)
                break
    return found
