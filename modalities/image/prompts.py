"""The prompts a picture model is judged on, in the manner of GenEval, and real scenes of the same prompts.

Objects are ones a stranger recognises; the pairs, colours and counts are those that training never shows, so
the prompts follow from the names alone and need no data.

Source: Ghosh et al. 2023, arXiv 2310.11513 (GenEval), section 3.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product

from PIL import Image

from modalities.image.colour import SWATCHES, colour_of, recolour
from modalities.image.compose import (
    COUNTS,
    RELATIONS,
    SPELL,
    Composer,
    arrange,
    article,
    held_out,
    held_out_object,
    held_out_pair,
    sprite,
)

# Objects of one hue, which can be painted in any other; the rest keep their own colours.
PAINTED = (
    "banana", "bird", "bread", "cat", "cheese wedge", "crab", "croissant", "deer", "dolphin", "egg",
    "eggplant", "fish", "fox", "giraffe", "goat", "jellyfish", "lemon", "onion", "pear", "pie",
    "pretzel", "shrimp", "squid", "tangerine", "teapot", "tiger", "whale",
)  # fmt: skip
OTHERS = (
    "airplane", "automobile", "bicycle", "bus", "butterfly", "camel", "carrot", "cookie", "cupcake",
    "dog", "doughnut", "duck", "elephant", "fire engine", "flamingo", "hamburger", "helicopter",
    "horse", "kangaroo", "koala", "lion", "lobster", "monkey", "octopus", "owl", "parrot", "peach",
    "penguin", "pineapple", "pizza", "rabbit", "red apple", "rocket", "rose", "shark", "snail",
    "strawberry", "sunflower", "tomato", "tractor", "tulip", "watermelon", "zebra",
)  # fmt: skip
OBJECTS = tuple(name for name in sorted(PAINTED + OTHERS) if not held_out_object(name))
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black")  # white: no ground
WORDINGS = (
    "an image of {}",
    "{}, cut out",
    "there is {} here",
    "one single {0}",
    "here you see {}",
    "{}, nothing else",
)
KINDS = ("one object", "two objects", "counting", "colours", "position", "colour attribution")


@dataclass(frozen=True)
class Prompt:
    """What is asked and what must be seen.

    Attributes:
        things: (name, colour or None) of each object; `relation` is of the first to the second.
        count: how many there are, of a single thing.
    """

    text: str
    kind: str
    things: tuple[tuple[str, str | None], ...]
    count: int = 1
    relation: str | None = None


def prompts(count: int = 16, seed: int = 0) -> list[Prompt]:
    """`count` prompts of each kind, the same on every machine; fewer where no more are held out."""
    found = []
    for kind, every in zip(KINDS, (_one, _two, _counting, _colours, _position, _attribution), strict=True):
        rng = random.Random(f"{seed}/{kind}")
        found += [prompt for _, prompt in zip(range(count), every(rng), strict=False)]
    return found


def _shuffled(rng: random.Random, every: list) -> list:
    rng.shuffle(every)
    return every


def _bare(words: str) -> str:
    return words.removeprefix("an ").removeprefix("a ")


def _one(rng: random.Random) -> Iterator[Prompt]:
    for i, name in enumerate(_shuffled(rng, list(OBJECTS))):
        wording = WORDINGS[i % len(WORDINGS)]
        yield Prompt(wording.format(name if "{0}" in wording else article(name)), KINDS[0], ((name, None),))


def _pairs(rng: random.Random, names: tuple[str, ...]) -> list[tuple[str, str]]:
    return _shuffled(rng, [pair for pair in permutations(names, 2) if held_out_pair(*pair)])


def _two(rng: random.Random) -> Iterator[Prompt]:
    for a, b in _pairs(rng, OBJECTS):
        yield Prompt(f"{article(a)} and {article(b)}", KINDS[1], ((a, None), (b, None)))


def _counting(rng: random.Random) -> Iterator[Prompt]:
    for name, number in _shuffled(rng, list(product(OBJECTS, (2, 3, 4, 5)))):
        if held_out("count", name, str(number)):
            yield Prompt(f"{COUNTS[number - 1]} {SPELL.plural(name)}", KINDS[2], ((name, None),), number)


def _colours(rng: random.Random) -> Iterator[Prompt]:
    for name, colour in _shuffled(rng, list(product(PAINTED, COLOURS))):
        if held_out("colour", name, colour):
            yield Prompt(article(f"{colour} {name}"), KINDS[3], ((name, colour),))


def _position(rng: random.Random) -> Iterator[Prompt]:
    for i, (a, b) in enumerate(_pairs(rng, OBJECTS)):
        relation = RELATIONS[i % len(RELATIONS)]
        said = f"to the {relation}" if relation.endswith("of") else relation
        yield Prompt(f"{article(a)} {said} {article(b)}", KINDS[4], ((a, None), (b, None)), relation=relation)


def _attribution(rng: random.Random) -> Iterator[Prompt]:
    for a, b in _pairs(rng, PAINTED):
        first, second = rng.sample(COLOURS, 2)
        words = f"{article(f'{first} {a}')} and {article(f'{second} {b}')}"
        yield Prompt(words, KINDS[5], ((a, first), (b, second)))


def real_scene(prompt: Prompt, composer: Composer, rng: random.Random) -> Image.Image:
    """A picture of the prompt, composed from the packs' 3d pictures of its objects."""
    if prompt.count > 1:
        places = arrange(rng, prompt.count)
    elif len(prompt.things) == 1:
        places = [(0.5, 0.5, rng.uniform(0.72, 0.86))]
    else:
        near, far, cross = rng.uniform(0.24, 0.27), rng.uniform(0.73, 0.76), rng.uniform(0.45, 0.55)
        side = rng.uniform(0.4, 0.44)
        places = [(near, cross, side), (far, cross, side)]
        if prompt.relation in ("above", "below"):
            places = [(y, x, s) for x, y, s in places]
        if prompt.relation in ("right of", "below"):
            places.reverse()
    cuts = [_cut(rng, composer, *thing) for thing in prompt.things] * prompt.count
    shown = {colour for _, colour in prompt.things} | {colour_of(cut, 0.3) for cut in cuts}
    tones = [tone for tone in SWATCHES if tone not in shown and tone != "white"]
    plain = rng.choice(tones) if "white" in shown or rng.random() < 0.3 else "white"
    picture = Image.new("RGB", (composer.size, composer.size), SWATCHES[plain])
    for cut, (x, y, share) in zip(cuts, places, strict=True):
        scale = share * composer.size / max(cut.size)
        size = (round(cut.width * scale), round(cut.height * scale))
        drawn = cut.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
        left, top = (round(c * composer.size - d / 2) for c, d in zip((x, y), drawn.size, strict=True))
        picture.paste(drawn, (left, top), drawn)
    return picture


def _cut(rng: random.Random, composer: Composer, name: str, colour: str | None) -> Image.Image:
    pictures = [item for item in composer.items if item.name == name and item.style == "3d emoji"]
    if not pictures:
        raise ValueError(f"the packs hold no 3d picture of {article(name)}")
    cut = sprite(rng.choice(pictures).path, composer.size)
    return (recolour(cut, colour) if colour else None) or cut
