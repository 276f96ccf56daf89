"""The prompts a sound model is judged on, and real scenes of the same prompts.

Notes, numbers of notes and hits, and pairs of sounds are those that training never has; single sounds and
numbers of recorded events are said as training never says them. So the prompts follow from names alone and
need no data.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modalities.audio.compose import (
    NUMBERS,
    ROOM,
    SPELL,
    TEMPOS,
    beat_on,
    finish,
    held_out_count,
    held_out_note,
    held_out_pair,
    play,
)
from modalities.audio.notes import DRUMS, INSTRUMENTS, RATE, named
from modalities.audio.sounds import SOUNDS, Clip, clip, faded, levelled, load, takes

# Recorded sounds of eighteen files or more, of which two or more are held out: the judge can learn them.
HEARD = (
    "baby", "bell", "chainsaw", "click", "clock", "dog", "door slam", "fire", "helicopter", "hi-hat",
    "kick drum", "metal clang", "rain", "rooster", "sea waves", "sneeze", "tabla", "trash can",
)  # fmt: skip
COUNTED = {  # how often the shortest of a sound's held-out events fits into a scene, up to five
    "bell": 5, "click": 5, "dog": 5, "door slam": 5, "hi-hat": 5, "kick drum": 5, "metal clang": 5,
    "rooster": 3, "sneeze": 5, "tabla": 5, "trash can": 5,
}  # fmt: skip
NAMES = tuple(sorted({*HEARD, *INSTRUMENTS, *DRUMS}))  # from which the judge chooses
WORDINGS = (
    "a recording of {}",
    "you can hear {}",
    "this is {}",
    "{} and nothing else",
    "listen to {}",
    "an audio clip of {}",
)
KINDS = ("note", "two notes", "repeats", "events", "sound", "then", "over")
MEASURED = KINDS[:4]  # in the others no more is asked than which sounds they are, and when


@dataclass(frozen=True)
class Prompt:
    """What is asked and what must be heard.

    Attributes:
        names: classes of sounds, instruments or drums, in order; of "over" the one in front comes first.
        keys: MIDI keys of the notes, in order.
        count: how many events, notes or hits there are, if that is asked.
        tempo: their beats a minute, if that is.
    """

    text: str
    kind: str
    names: tuple[str, ...]
    keys: tuple[int, ...] = ()
    count: int | None = None
    tempo: int | None = None


def prompts(count: int = 16, seed: int = 0) -> list[Prompt]:
    """`count` prompts of each kind, the same on every machine; fewer where no more are held out."""
    found = []
    for kind, every in zip(KINDS, (_note, _two, _repeats, _events, _sound, _then, _over), strict=True):
        rng = random.Random(f"{seed}/{kind}")
        found += [prompt for _, prompt in zip(range(count), every(rng), strict=False)]
    return found


def _shuffled(rng: random.Random, every: list) -> list:
    rng.shuffle(every)
    return every


def _strange(rng: random.Random) -> list[tuple[str, int]]:
    """Instruments, each with a note it never plays in training."""
    every = [(name, key) for name, instrument in INSTRUMENTS.items() for key in instrument.keys]
    return _shuffled(rng, [pair for pair in every if held_out_note(*pair)])


def _plays(name: str, what: str) -> str:
    return f"{SPELL.a(name)} {INSTRUMENTS[name].verb}ing {what}"


def _note(rng: random.Random) -> Iterator[Prompt]:
    for name, key in _strange(rng):
        yield Prompt(_plays(name, named(key)), KINDS[0], (name,), (key,))


def _two(rng: random.Random) -> Iterator[Prompt]:
    for name, key in _strange(rng):
        near = [other for other in INSTRUMENTS[name].keys if 1 < abs(other - key) <= 12]
        keys = _shuffled(rng, [key, rng.choice(near)])
        yield Prompt(_plays(name, ", then ".join(map(named, keys))), KINDS[1], (name,), tuple(keys))


def _repeats(rng: random.Random) -> Iterator[Prompt]:
    for name, number in _shuffled(rng, list(product((*DRUMS, *INSTRUMENTS), range(2, len(NUMBERS) + 1)))):
        if held_out_count(name, number):
            tempo = rng.choice([tempo for tempo in TEMPOS if (number - 1) * 60 / tempo < ROOM - 1])
            several = DRUMS[name].hits if name in DRUMS else f"{name} notes"
            said = f"{NUMBERS[number - 1]} {several} at {tempo} bpm"
            yield Prompt(said, KINDS[2], (name,), count=number, tempo=tempo)


def _events(rng: random.Random) -> Iterator[Prompt]:
    every = [(name, number) for name, most in COUNTED.items() for number in range(2, most + 1)]
    every.sort(key=lambda pair: (not held_out_count(*pair), rng.random()))
    for i, (name, number) in enumerate(every):
        said = f"{NUMBERS[number - 1]} {SOUNDS[name].several}"
        yield Prompt(WORDINGS[i % len(WORDINGS)].format(said), KINDS[3], (name,), count=number)


def _sound(rng: random.Random) -> Iterator[Prompt]:
    for i, name in enumerate(_shuffled(rng, list(HEARD))):
        yield Prompt(WORDINGS[i % len(WORDINGS)].format(SOUNDS[name].phrases[0]), KINDS[4], (name,))


def _pairs(rng: random.Random) -> list[tuple[str, str]]:
    return _shuffled(rng, [pair for pair in permutations(HEARD, 2) if held_out_pair(*pair)])


def _then(rng: random.Random) -> Iterator[Prompt]:
    for first, second in _pairs(rng):
        said = f"{SOUNDS[first].phrases[0]}, then {SOUNDS[second].phrases[0]}"
        yield Prompt(said, KINDS[5], (first, second))


def _over(rng: random.Random) -> Iterator[Prompt]:
    for how in ("{} over {}", "{} with {} in the background"):
        for first, second in _pairs(rng):
            if (SOUNDS[first].kind, SOUNDS[second].kind) == ("event", "texture"):
                said = how.format(SOUNDS[first].phrases[0], SOUNDS[second].phrases[0])
                yield Prompt(said, KINDS[6], (first, second))


def recordings(data: Path) -> dict[str, list[Clip]]:
    """The packs' held-out sounds by name.

    Raises: ValueError if a sound of the prompts has none.
    """
    found = defaultdict(list)
    for one in load(data):
        if one.held:
            found[one.name].append(one)
    for name in HEARD:
        if name not in found:
            what = SOUNDS[name].phrases[0]
            raise ValueError(f"{data} holds too few sounds of {what}; it must hold the packs")
    return found


def real_scene(
    prompt: Prompt, clips: Mapping[str, Sequence[Clip]], rng: random.Random
) -> NDArray[np.float32]:
    """A sound of the prompt, (N,): from held-out recordings or played, composed as training scenes are."""
    name, number = prompt.names[0], prompt.count or 1
    if prompt.keys or prompt.tempo:
        step = 60 / prompt.tempo if prompt.tempo else rng.uniform(0.6, 1.4)
        starts = [step * i for i in range(max(number, len(prompt.keys)))]
        if name in DRUMS:
            parts = [(0.0, beat_on(rng, DRUMS[name], starts))]
        else:
            keys = prompt.keys or (rng.choice(INSTRUMENTS[name].keys),) * number
            notes = [(at, 0.8 * step, key) for at, key in zip(starts, keys, strict=True)]
            parts = [(0.0, play(rng, INSTRUMENTS[name], notes))]
    elif prompt.kind == "over":
        ground = sounding(rng, clips, prompt.names[1], rng.uniform(3, ROOM))
        front = sounding(rng, clips, name, len(ground) / RATE - 0.8)
        start = rng.uniform(0.1, 1) * max(0.3, (len(ground) - len(front)) / RATE - 0.35)
        parts = [(start, front), (0.0, levelled(ground, rng.uniform(-12, -7)))]
    else:
        number, at, parts = number * len(prompt.names), 0.0, []
        waves = [sounding(rng, clips, one, ROOM / number - 0.25) for one in prompt.names]
        for wave in waves * (prompt.count or 1):
            parts.append((at, wave))
            at += len(wave) / RATE + rng.uniform(0.17, 0.25)
    return finish(rng, prompt.kind, "", [(at, wave, name, None) for at, wave in parts]).wave


def sounding(
    rng: random.Random, clips: Mapping[str, Sequence[Clip]], name: str, longest: float
) -> NDArray[np.float32]:
    """An event or a piece of a texture, (N,), of at most so many seconds; a longer event is cut."""
    some = _shuffled(rng, list(clips[name]))
    if SOUNDS[name].kind == "texture":
        wave = clip(some[0].path)
        number = min(len(wave), round(rng.uniform(min(1.5, longest), longest) * RATE))
        start = rng.randint(0, len(wave) - number)
        return levelled(faded(wave[start : start + number], 0.03, 0.08))
    found = [take for one in some for take in takes(one.path, SOUNDS[name].gap)[:1]]
    number = round(longest * RATE)
    fitting = [take for take in found if len(take) <= number]
    return fitting[0] if fitting else faded(min(found, key=len)[:number])
