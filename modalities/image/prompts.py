"""The prompts a picture model is judged on, in the manner of GenEval, and real scenes of the same prompts.

Objects are ones a stranger recognises; the pairs, colours and counts are those that training never shows, so
the prompts follow from the names alone and need no data.

Source: Ghosh et al. 2023, arXiv 2310.11513 (GenEval), section 3.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

from PIL import Image

from modalities.image.colour import SWATCHES, colour_of, recolour
from modalities.image.compose import (
    COUNTS,
    RELATIONS,
    SPELL,
    arrange,
    article,
    beside,
    held_out,
    held_out_pair,
    load,
    sprite,
    stand,
)

# Objects of one hue, which can be painted in any other; the rest keep their own colours. With each, the words
# that most of one of its pictures in the packs answers to: training shows it so, whatever is held out.
PAINTED = {
    "banana": ("orange", "yellow", "brown", "black"), "bird": ("blue", "pink"),
    "bread": ("orange", "yellow", "black"), "cat": ("orange", "yellow"), "cheese wedge": ("yellow",),
    "crab": ("red", "orange", "pink"), "croissant": ("orange", "yellow"),
    "deer": ("orange", "brown", "black"), "dolphin": ("blue",), "egg": ("orange", "black"),
    "eggplant": ("blue", "purple"), "fish": ("blue", "brown"), "fox": ("orange", "brown"),
    "giraffe": ("orange",), "goat": ("orange",), "jellyfish": ("blue",), "lemon": ("yellow",),
    "onion": ("orange", "brown"), "pear": ("yellow", "green", "brown"),
    "pie": ("orange",), "pretzel": ("orange", "brown"), "shrimp": ("red", "orange"), "squid": ("pink",),
    "tangerine": ("orange",), "teapot": ("red", "yellow", "pink"), "tiger": ("red", "orange"),
    "whale": ("blue",),
}  # fmt: skip
OTHERS = (
    "airplane", "automobile", "bicycle", "bus", "butterfly", "camel", "carrot", "cookie", "cupcake",
    "dog", "doughnut", "duck", "elephant", "fire engine", "flamingo", "hamburger", "helicopter",
    "horse", "kangaroo", "koala", "lion", "lobster", "monkey", "octopus", "owl", "parrot", "peach",
    "penguin", "pineapple", "pizza", "rabbit", "red apple", "rocket", "rose", "shark", "snail",
    "strawberry", "sunflower", "tomato", "tractor", "tulip", "watermelon", "zebra",
)  # fmt: skip
OBJECTS = tuple(sorted((*PAINTED, *OTHERS)))
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


def _one(rng: random.Random) -> Iterator[Prompt]:
    for i, name in enumerate(_shuffled(rng, list(OBJECTS))):
        wording = WORDINGS[i % len(WORDINGS)]
        yield Prompt(wording.format(name if "{0}" in wording else article(name)), KINDS[0], ((name, None),))


def _pairs(rng: random.Random, names: Sequence[str]) -> list[tuple[str, str]]:
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
        if colour not in PAINTED[name] and held_out("colour", name, colour):
            yield Prompt(article(f"{colour} {name}"), KINDS[3], ((name, colour),))


def _position(rng: random.Random) -> Iterator[Prompt]:
    for i, (a, b) in enumerate(_pairs(rng, OBJECTS)):
        relation = RELATIONS[i % len(RELATIONS)]
        said = f"to the {relation}" if relation.endswith("of") else relation
        yield Prompt(f"{article(a)} {said} {article(b)}", KINDS[4], ((a, None), (b, None)), relation=relation)


def _attribution(rng: random.Random) -> Iterator[Prompt]:
    for a, b in _pairs(rng, tuple(PAINTED)):
        first = rng.choice([colour for colour in COLOURS if colour not in PAINTED[a]])
        second = rng.choice([colour for colour in COLOURS if colour not in (first, *PAINTED[b])])
        words = f"{article(f'{first} {a}')} and {article(f'{second} {b}')}"
        yield Prompt(words, KINDS[5], ((a, first), (b, second)))


def stills(data: Path) -> dict[str, list[Path]]:
    """The packs' 3d pictures by name.

    Raises: ValueError if an object of the prompts has none.
    """
    found = defaultdict(list)
    for item in load(data):
        if item.style == "3d emoji":
            found[item.name].append(item.path)
    for name in OBJECTS:
        if name not in found:
            raise ValueError(f"{data} holds no 3d picture of {article(name)}; it must hold the packs")
    return found


def real_scene(
    prompt: Prompt, stills: Mapping[str, Sequence[Path]], rng: random.Random, size: int = 256
) -> Image.Image:
    """A picture of the prompt, composed from real pictures of its objects as training scenes are."""
    pair = len(prompt.things) == 2
    places = beside(rng, prompt.relation or "and") if pair else arrange(rng, prompt.count)
    cuts = [_cut(rng, stills[name], colour, size) for name, colour in prompt.things] * prompt.count
    shown = {colour for _, colour in prompt.things} | {colour_of(cut, 0.3) for cut in cuts}
    tones = [tone for tone in SWATCHES if tone not in shown and tone != "white"]
    plain = rng.choice(tones) if "white" in shown or rng.random() < 0.3 else "white"
    picture = Image.new("RGB", (size, size), SWATCHES[plain])
    for cut, place in zip(cuts, places, strict=True):
        stand(picture, cut, place)
    return picture


def _cut(rng: random.Random, paths: Sequence[Path], colour: str | None, size: int) -> Image.Image:
    cut = sprite(rng.choice(paths), size)
    return (recolour(cut, colour) if colour else None) or cut
