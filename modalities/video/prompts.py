"""The prompts a video model is judged on, and real clips of the same prompts.

Objects are those that pictures are judged on; that they move so, or that they have such colours, is what
training never shows. So the prompts follow from the names alone and need no data.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from modalities.image.colour import recolour
from modalities.image.compose import article, sprite
from modalities.image.prompts import COLOURS, OBJECTS, PAINTED
from modalities.packs import held_out, read_rows
from modalities.video.compose import Array, drawn, frames_of, held_out_clip, held_out_motion, moving
from modalities.video.motion import MOTIONS, State

KINDS = ("motion", "colour")


@dataclass(frozen=True)
class Prompt:
    """What is asked and what must be seen."""

    text: str
    kind: str
    name: str
    motion: str
    colour: str | None = None


def prompts(count: int = 16, seed: int = 0) -> list[Prompt]:
    """`count` prompts of each kind, the motions in turn, the same on every machine."""
    tones = [
        (name, tone) for name, tone in product(PAINTED, COLOURS)
        if tone not in PAINTED[name] and held_out("colour", name, tone)
    ]  # fmt: skip
    found = []
    for kind in KINDS:
        rng = random.Random(f"{seed}/{kind}")
        for number in range(count):
            motion = MOTIONS[number % len(MOTIONS)]
            pairs = [(name, None) for name in OBJECTS] if kind == "motion" else tones
            name, colour = rng.choice([pair for pair in pairs if held_out_motion(pair[0], motion)] or pairs)
            phrase = f"{colour} {name}" if colour else name
            found.append(Prompt(f"{article(phrase)} {motion}", kind, name, motion, colour))
    return found


def real_clip(
    prompt: Prompt, stills: Mapping[str, Sequence[Path]], size: int, frames: int, seed: int
) -> Array:
    """A real object that moves as the prompt asks, on white: (frames, size, size, 3) uint8."""
    rng = random.Random(seed)
    cut = sprite(rng.choice(stills[prompt.name]), size)
    if prompt.colour:
        cut = recolour(cut, prompt.colour) or cut
    return moving(cut, prompt.motion, rng, np.full((size, size, 3), 255.0, np.float32), frames)


def animations(data: Path, size: int, frames: int) -> list[Array]:
    """The animations that training never shows, on white: each (frames, size, size, 3) uint8."""
    white = np.full((size, size, 3), 255.0, np.float32)
    rows = [row for row in read_rows(data / "clips") if held_out_clip(row["file_name"])]
    cuts = [frames_of(data / "clips" / row["file_name"], frames) for row in rows]
    return [np.stack([drawn(cut, State(side=0.86), white) for cut in each]) for each in cuts]
