"""Scenes with exact captions, composed of recorded sounds and of notes: pitched, counted, timed, in sequence.

A scene is drawn from a random generator alone, so a seed and a number name it. What is held out for
evaluation is decided by a hash of the names, so training and evaluation agree without sharing a list.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import inflect
import numpy as np
from scipy import signal

from modalities.audio import RATE, WINDOW
from modalities.audio.notes import DRUMS, INSTRUMENTS, NAMES, Drum, Event, Instrument, named, render
from modalities.audio.sounds import (
    FRAME,
    PEAK,
    SOUNDS,
    Clip,
    Sounding,
    clip,
    decoded,
    energy,
    faded,
    levelled,
    load,
    takes,
    trimmed,
)
from modalities.packs import held_out, read_rows

ROOM = 4.85  # seconds in which all of a scene sounds, from its start
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
TIMES = {1: "once", 2: "twice"}
TEMPOS = (60, 70, 80, 90, 100, 110, 120, 130, 140, 150, 160, 180, 200)  # beats a minute
KINDS = {"note": 18, "notes": 20, "chord": 6, "repeat": 16, "event": 14, "count": 9, "texture": 7, "then": 6,
         "over": 4}
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11, 12), (0, 2, 3, 5, 7, 8, 10, 12)
COURSES = {"fading in": (0.0, 1.0), "fading out": (1.0, 0.0), "getting louder": (0.12, 1.0),
           "getting quieter": (1.0, 0.12)}  # gain at the start and the end
SPEEDS = ((1, 1), (17, 18), (18, 17), (24, 25), (25, 24))  # up to a semitone
SPELL: Any = inflect.engine()


@dataclass(frozen=True)
class Heard:
    """One sound as it stands in a scene: its class or instrument, seconds, and the MIDI key of a note."""

    name: str
    start: float
    seconds: float
    key: int | None = None


@dataclass
class Scene:
    """A sound, its caption and what is heard in it."""

    wave: np.ndarray  # (WINDOW,) float32 at 24 kHz
    caption: str
    kind: str
    events: list[Heard] = field(default_factory=list)
    tempo: int | None = None  # beats a minute, if the caption says it
    course: str | None = None  # how the loudness goes


Part: TypeAlias = tuple[float, np.ndarray, str, int | None]  # start, wave, name, key


def held_out_note(instrument: str, key: int) -> bool:
    """Whether this instrument never plays this note (a MIDI key) in training, alone or among others."""
    return held_out("note", instrument, named(key), share=0.08)


def held_out_count(name: str, number: int) -> bool:
    """Whether this many of these sounds are never heard in training; one always is."""
    return number > 1 and held_out("times", name, str(number))


def held_out_pair(first: str, second: str) -> bool:
    """Whether these two sounds are never heard in one training scene, in whatever order."""
    return held_out("sounds", *sorted((first, second)))


def bare(phrase: str) -> str:
    """The phrase without its article."""
    return phrase.removeprefix("a ").removeprefix("an ")


def happens(phrase: str) -> bool:
    """Whether the phrase says that something happens, as "a dog barking" does and "a gong" does not."""
    return any(word.endswith("ing") for word in phrase.split()[1:])


def times(number: int) -> str:
    """As one says it: once, twice, three times."""
    return TIMES.get(number, f"{NUMBERS[number - 1]} times")


class Composer:
    """Draws scenes from the pack and the sound font, without what is held out."""

    def __init__(self, data: Path, kinds: Sequence[str] = ()) -> None:
        """Reads the pack's metadata; sounds are read when drawn.

        Args:
            data: the folder of the packs.
            kinds: which of KINDS are drawn; all of them if it is empty.
        """
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            raise ValueError(f"kinds has {unknown[0]!r}; they must be of {', '.join(KINDS)}")
        self.kinds = {kind: KINDS[kind] for kind in kinds or KINDS}
        self.clips: dict[str, list[Clip]] = defaultdict(list)
        for found in load(data):
            if not found.held:
                self.clips[found.name].append(found)
        if not self.clips:
            raise ValueError(f"no sounds to train on were found in {data}; it must hold the pack 'sounds'")
        self.weights = {name: sum(one.weight for one in clips) for name, clips in self.clips.items()}

    def nth(self, seed: int, number: int) -> Scene:
        """The scene of this number; the same whatever was drawn before."""
        return self.scene(random.Random(f"{seed}/{number}"))

    def scene(self, rng: random.Random) -> Scene:
        """One scene: mostly notes, alone and in sequence, then recorded sounds, counts and mixtures."""
        kind = rng.choices(tuple(self.kinds), tuple(self.kinds.values()))[0]
        scene: Scene = getattr(self, f"_{kind}")(rng)
        return scene

    # Each builder returns a finished scene; starts are in seconds from the scene's own start.

    def _note(self, rng: random.Random) -> Scene:
        instrument, key = self._pitch(rng)
        seconds = rng.uniform(0.4, 3.0)
        wave = play(rng, instrument, [(0.0, seconds, key)])
        name, who = instrument.name, SPELL.a(instrument.name)
        if rng.random() < 1 / 6:
            words = rng.choice((f"a note on {who}", who, f"{who} {instrument.verb}ing a note",
                                f"{SPELL.a(f'{name} note')}"))
        else:
            words = self._playing(rng, instrument, named(key))
        course = None
        if instrument.sustains and seconds > 1.4 and rng.random() < 0.2:
            course = rng.choice(tuple(COURSES))
        return finish(rng, "note", words, [(0.0, wave, name, key)], course=course)

    def _notes(self, rng: random.Random) -> Scene:
        number = rng.choices((2, 3, 4), (58, 25, 17))[0]
        instrument, key = self._pitch(rng)
        keys = [key]
        while len(keys) < number:
            near = [k for k in self._keys(instrument) if 0 < abs(k - keys[-1]) <= 12]
            keys.append(rng.choice(near))
        step = rng.uniform(0.35, min(1.3, ROOM / (number + 0.7)))
        said = [named(key) for key in keys]
        words = rng.choice((", then ".join(said), f"{', '.join(said[:-1])} then {said[-1]}",
                            f"{', '.join(said[:-1])} and then {said[-1]}",
                            f"the notes {', '.join(said[:-1])} and {said[-1]}"))
        return self._melody(rng, "notes", self._playing(rng, instrument, words), instrument, keys, step)

    def _chord(self, rng: random.Random) -> Scene:
        lot = rng.random()
        for _ in range(200):
            instrument, root = self._pitch(rng)
            mode, steps = rng.choice((("major", MAJOR), ("minor", MINOR)))
            degrees = (0, 2, 4) if lot < 0.5 else range(8) if lot < 0.75 else (0, 2, 4, 7)
            keys = [root + steps[degree] for degree in degrees]
            if set(keys) <= set(self._keys(instrument)) and (lot >= 0.5 or instrument.chords):
                break
        else:
            return self._note(rng)
        letter = NAMES[root % 12]
        what = f"{'an' if letter[0] in 'AEF' else 'a'} {letter} {mode}"
        if lot < 0.5:
            seconds = rng.uniform(0.6, 3.0)
            wave = play(rng, instrument, [(0.0, seconds, key) for key in keys])
            parts: list[Part] = [(0.0, wave, instrument.name, key) for key in keys[:1]]
            scene = finish(rng, "chord", self._playing(rng, instrument, f"{what} chord"), parts)
            scene.events = [Heard(instrument.name, scene.events[0].start, scene.events[0].seconds, key)
                            for key in keys]
            return scene
        word, step = ("scale", rng.uniform(0.25, 0.52)) if lot < 0.75 else ("arpeggio", rng.uniform(0.3, 0.8))
        what = f"{what} {word}"
        if rng.random() < 0.25:
            keys.reverse()
            what = f"{what} going down"
        if rng.random() < 0.4:
            what = f"{what} from {named(keys[0])}"
        return self._melody(rng, "chord", self._playing(rng, instrument, what), instrument, keys, step)

    def _melody(self, rng: random.Random, kind: str, words: str, instrument: Instrument, keys: Sequence[int],
                step: float) -> Scene:
        """Notes one after another, each held until the next."""
        held = step * rng.uniform(0.8, 0.97)
        last = min(max(held, rng.uniform(0.4, 1.2)), ROOM - step * (len(keys) - 1) - 0.1)
        played = [(step * i, held, key) for i, key in enumerate(keys)]
        played[-1] = (played[-1][0], last, keys[-1])
        scene = finish(rng, kind, words, [(0.0, play(rng, instrument, played), instrument.name, keys[0])])
        start = scene.events[0].start
        scene.events = [Heard(instrument.name, start + at, seconds, key) for at, seconds, key in played]
        return scene

    def _repeat(self, rng: random.Random) -> Scene:
        timed = rng.random() < 0.6
        tempo = rng.choice(TEMPOS)
        beat = 60 / tempo if timed else rng.uniform(0.3, 0.9)
        most = min(len(NUMBERS), int((ROOM - 0.4) / beat) + 1)
        drum = rng.choice(tuple(DRUMS.values())) if rng.random() < 0.55 else None
        instrument, key = self._pitch(rng)
        name = drum.name if drum else instrument.name
        counted = not timed or rng.random() < 0.6
        least = 1 if drum and not timed else 2
        free = [n for n in range(least, most + 1) if not held_out_count(name, n)]
        if not free or (instrument.slow and not drum and beat <= 0.5):
            return self._repeat(rng)
        number = rng.choice(free) if counted else max(free)
        held = beat * rng.uniform(0.5, 0.8)
        played = [(beat * i, held, key) for i in range(number)]
        if drum:
            wave, note = beat_on(rng, drum, [beat * i for i in range(number)]), None
            words = self._hits(rng, drum, number if counted else None)
        else:
            wave, note = play(rng, instrument, played), key
            words = self._struck(rng, instrument, key, number if counted else None)
        if timed:
            words = f"{words} at {tempo} bpm"
        course = rng.choice(tuple(COURSES)[2:]) if number > 3 and rng.random() < 0.25 else None
        scene = finish(rng, "repeat", words, [(0.0, wave, name, note)], tempo if timed else None, course)
        start = scene.events[0].start
        scene.events = [Heard(name, start + at, held, note) for at, *_ in played]
        return scene

    def _hits(self, rng: random.Random, drum: Drum, number: int | None) -> str:
        """Hits of a drum in words; None is as many as fit."""
        if number is None:
            return rng.choice((SPELL.a(drum.name) if not drum.name.endswith("s") else drum.name, drum.hits))
        return drum.hit if number == 1 else f"{NUMBERS[number - 1]} {drum.hits}"

    def _struck(self, rng: random.Random, instrument: Instrument, key: int, number: int | None) -> str:
        """One note repeated, in words."""
        who = SPELL.a(instrument.name)
        if number is None:
            return rng.choice((f"{instrument.name} notes", f"{who} repeating {named(key)}"))
        count = NUMBERS[number - 1]
        return rng.choice((f"{count} {instrument.name} notes",
                           f"{who} {instrument.verb}ing {named(key)} {times(number)}",
                           f"{count} {instrument.name} notes on {named(key)}"))

    def _event(self, rng: random.Random) -> Scene:
        """Once, or, if it is said to be happening and may come again, on and on until the window's end."""
        sounding = self._class(rng, "event")
        words, wave = self._said(rng, sounding), self._take(rng, sounding)
        parts: list[Part] = [(0.0, wave, sounding.name, None)]
        at, gap = len(wave) / RATE, max(sounding.gap, 0.15) * rng.uniform(1, 4)
        if sounding.several and happens(words) and rng.random() < 0.5:
            path = self._clip(rng, sounding.name).path
            while (waves := takes(path, sounding.gap)[:3]) and at + gap < ROOM - len(wave) / RATE:
                at += gap * rng.uniform(0.85, 1.15)
                wave = coloured(rng, rng.choice(waves), ROOM)
                parts.append((at, wave, sounding.name, None))
                at += len(wave) / RATE
        return finish(rng, "event", words, parts)

    def _count(self, rng: random.Random) -> Scene:
        for _ in range(50):
            sounding, number = self._class(rng, "event"), rng.choice((2, 2, 3, 3, 4, 5))
            if not sounding.several or held_out_count(sounding.name, number):
                continue
            longest = ROOM / number - 0.16
            file = self._clip(rng, sounding.name)
            short = [take for take in takes(file.path, sounding.gap) if len(take) < longest * RATE]
            if short:
                break
        else:
            return self._event(rng)
        same = rng.random() < 0.7
        waves = [coloured(rng, short[0] if same else rng.choice(short[:3]), longest)] * number
        if not same:
            waves = [coloured(rng, rng.choice(short[:3]), longest) for _ in range(number)]
        waves = [levelled(wave, rng.uniform(-1.5, 0)) for wave in waves]
        spare = ROOM - sum(len(wave) for wave in waves) / RATE
        least = max(0.15, sounding.gap)
        gap = rng.uniform(min(least, spare / number), min(0.6, spare / number))
        parts, at = [], 0.0
        for wave in waves:
            parts.append((at, wave, sounding.name, None))
            at += len(wave) / RATE + gap * rng.uniform(0.92, 1.08)
        phrase = rng.choice(sounding.phrases)
        words = f"{NUMBERS[number - 1]} {sounding.several}"
        if happens(phrase) and rng.random() < 0.35:
            words = f"{phrase} {times(number)}"
        return finish(rng, "count", words, parts)

    def _texture(self, rng: random.Random) -> Scene:
        sounding = self._class(rng, "texture")
        wave = self._piece(rng, sounding, rng.uniform(1.5, ROOM))
        if rng.random() < 0.75:
            while len(wave) < WINDOW:
                wave = joined(wave, self._piece(rng, sounding, rng.uniform(1.5, ROOM)))
        course = rng.choice(tuple(COURSES)) if len(wave) > 1.4 * RATE and rng.random() < 0.45 else None
        return finish(rng, "texture", self._said(rng, sounding), [(0.0, wave, sounding.name, None)],
                      course=course)

    def _then(self, rng: random.Random) -> Scene:
        for _ in range(50):
            pair = [self._class(rng, rng.choice(("event", "event", "texture"))) for _ in range(2)]
            if pair[0].name == pair[1].name or held_out_pair(pair[0].name, pair[1].name):
                continue
            waves = [self._short(rng, sounding, 2.2) for sounding in pair]
            if all(len(wave) for wave in waves):
                break
        else:
            return self._event(rng)
        gap = rng.uniform(0.12, 0.4)
        first, second = (rng.choice(sounding.phrases) for sounding in pair)
        words = f"{first}{rng.choice((', then ', ', then ', ' and then ', ' followed by '))}{second}"
        return finish(rng, "then", words, [
            (0.0, waves[0], pair[0].name, None), (len(waves[0]) / RATE + gap, waves[1], pair[1].name, None)])

    def _over(self, rng: random.Random) -> Scene:
        for _ in range(50):
            above, below = self._class(rng, "event"), self._class(rng, "texture")
            ground = self._piece(rng, below, rng.uniform(3.0, ROOM))
            wave = self._short(rng, above, len(ground) / RATE - 0.8)
            if len(wave) and len(ground) > 2 * RATE and not held_out_pair(above.name, below.name):
                break
        else:
            return self._event(rng)
        start = rng.uniform(0.35, max(0.36, (len(ground) - len(wave)) / RATE - 0.35))
        first, second = rng.choice(above.phrases), rng.choice(below.phrases)
        words = rng.choice((f"{first} over {second}", f"{first} with {second} in the background"))
        return finish(rng, "over", words, [(start, levelled(wave), above.name, None),
                                           (0.0, levelled(ground, rng.uniform(-12, -7)), below.name, None)])

    def _keys(self, instrument: Instrument) -> list[int]:
        return [key for key in instrument.keys if not held_out_note(instrument.name, key)]

    def _pitch(self, rng: random.Random) -> tuple[Instrument, int]:
        """An instrument and one of its notes."""
        instrument = rng.choice(tuple(INSTRUMENTS.values()))
        return instrument, rng.choice(self._keys(instrument))

    def _playing(self, rng: random.Random, instrument: Instrument, what: str) -> str:
        """That an instrument plays something, in words."""
        who, verb = SPELL.a(instrument.name), instrument.verb
        ing, now = f"{who} {verb}ing {what}", f"{who} {verb}s {what}"
        if verb == "sing":
            return rng.choices((ing, now, f"{what} sung by {who}"), (6, 2, 1))[0]
        return rng.choices((ing, now, f"{what} on {who}", f"{what} played on {who}"), (6, 2, 2, 1))[0]

    def _class(self, rng: random.Random, kind: str) -> Sounding:
        names = [name for name in self.clips if SOUNDS[name].kind == kind] or list(self.clips)
        return SOUNDS[rng.choices(names, [self.weights[name] for name in names])[0]]

    def _clip(self, rng: random.Random, name: str) -> Clip:
        return rng.choice(self.clips[name])

    def _said(self, rng: random.Random, sounding: Sounding) -> str:
        phrase, lot = rng.choice(sounding.phrases), rng.random()
        return bare(phrase) if lot < 0.12 else f"the sound of {phrase}" if lot < 0.18 else phrase

    def _take(self, rng: random.Random, sounding: Sounding) -> np.ndarray:
        """A single event of a class."""
        path = self._clip(rng, sounding.name).path
        found = takes(path, sounding.gap)
        return coloured(rng, rng.choice(found[:3]) if found else clip(path))

    def _piece(self, rng: random.Random, sounding: Sounding, seconds: float) -> np.ndarray:
        """A piece of a texture, at most so long."""
        wave = clip(self._clip(rng, sounding.name).path)
        number = min(len(wave), round(seconds * RATE))
        starts = [rng.randint(0, len(wave) - number) for _ in range(3)]
        start = max(starts, key=lambda at: float((wave[at:at + number] ** 2).sum()))  # not in a silence of it
        piece = trimmed(coloured(rng, wave[start:start + number], seconds))
        return levelled(faded(piece, rng.uniform(0.01, 0.08), rng.uniform(0.03, 0.15)))

    def _short(self, rng: random.Random, sounding: Sounding, longest: float) -> np.ndarray:
        """An event or a piece of a texture of at most so many seconds; empty if the event is longer."""
        if sounding.kind == "texture":
            return self._piece(rng, sounding, rng.uniform(1.2, longest))
        wave = self._take(rng, sounding)
        return wave if len(wave) <= longest * RATE else wave[:0]


def coloured(rng: random.Random, wave: np.ndarray, seconds: float = ROOM) -> np.ndarray:
    """A recording at another speed, a semitone at most, and with another balance of high and low.

    A speed that would make it longer than `seconds` is not taken.
    """
    up, down = rng.choice(SPEEDS) if rng.random() < 0.5 else (1, 1)
    tilt = rng.uniform(-0.3, 0.4)
    if up != down and len(wave) * up / down < seconds * RATE:
        wave = signal.resample_poly(wave, up, down).astype(np.float32)
    low = signal.lfilter([0.2], [1, -0.8], wave).astype(np.float32)  # below 850 Hz
    return levelled(wave + np.float32(tilt) * low)


def joined(wave: np.ndarray, after: np.ndarray, seconds: float = 0.15) -> np.ndarray:
    """Two waves in one, the end of the first faded into the beginning of the second."""
    number = min(round(seconds * RATE), len(wave), len(after))
    rise = np.linspace(0, np.pi / 2, number, dtype=np.float32)
    both = wave[len(wave) - number:] * np.cos(rise) + after[:number] * np.sin(rise)
    return np.concatenate([wave[: len(wave) - number], both, after[number:]])


def play(rng: random.Random, instrument: Instrument, notes: Sequence[tuple[float, float, int]]) -> np.ndarray:
    """Notes (start, seconds, key) on an instrument, until they have died away or there is no more room."""
    velocity = rng.randint(72, 112)
    events = [Event(at, seconds, key, min(127, velocity + rng.randint(-4, 4)), instrument.program)
              for at, seconds, key in notes]
    return ended(render(events, min(ROOM, max(at + seconds for at, seconds, _ in notes) + 1.2)))


def beat_on(rng: random.Random, drum: Drum, starts: Sequence[float]) -> np.ndarray:
    """Hits of a drum, until the last has died away or there is no more room."""
    velocity, key = rng.randint(80, 120), rng.choice(drum.keys)
    events = [Event(at, 0.2, key, min(127, velocity + rng.randint(-4, 4)), None) for at in starts]
    return ended(render(events, min(ROOM, starts[-1] + 1.6)))


def ended(wave: np.ndarray) -> np.ndarray:
    """Without what is 50 dB below the loudest at its end, which is faded."""
    loud = np.flatnonzero(energy(wave) > -50)
    return faded(wave[: (loud[-1] + 1) * FRAME if len(loud) else len(wave)], rise=0.0, fall=0.03)


def finish(rng: random.Random, kind: str, words: str, parts: Sequence[Part], tempo: int | None = None,
           course: str | None = None) -> Scene:
    """Puts the parts into the window, silent before and after them, at the common level.

    What is longer than the window fills it.
    """
    longest = max(len(part) for _, part, *_ in parts)
    wave, start = np.zeros(WINDOW, np.float32), rng.uniform(0.05, 0.15) if longest < WINDOW else 0.0
    events, end = [], 0
    for at, part, name, key in parts:
        first = round((start + at) * RATE)
        part = part[: WINDOW - first]
        wave[first:first + len(part)] += part
        events.append(Heard(name, first / RATE, len(part) / RATE, key))
        end = max(end, first + len(part))
    if course:
        begin, last = COURSES[course]
        first = round(start * RATE)
        wave[first:end] *= np.linspace(begin, last, end - first, dtype=np.float32)
        words = f"{words}{rng.choice((', ', ' '))}{course}"
    wave = levelled(wave)
    assert abs(wave).max() <= PEAK + 1e-4
    return Scene(wave, words, kind, events, tempo, course)


class Drawing:
    """The n-th training example of a folder: a scene of the packs, or a sound of an audiofolder."""

    def __init__(self, data: Path, seed: int, kinds: Sequence[str] = ()) -> None:
        """Takes the folder, the seed, and the recipe's options as of `Composer`."""
        self.data, self.seed = data, seed
        packs = not (data / "metadata.jsonl").is_file() and (data / "sounds").is_dir()
        self.composer = Composer(data, kinds) if packs else None
        self.rows = [] if packs else read_rows(data)
        if not packs and not self.rows:
            raise ValueError(f"{data / 'metadata.jsonl'} names no sound")

    def __call__(self, number: int) -> tuple[np.ndarray, str]:
        """The sound, (1, 122880) int16 at 24 kHz, and its caption."""
        if self.composer is not None:
            scene = self.composer.nth(self.seed, number)
            wave, caption = scene.wave, scene.caption
        else:
            row = self.rows[number % len(self.rows)]
            wave, caption = decoded(self.data / row["file_name"])[:WINDOW], row["text"]
            wave = np.pad(wave, (0, WINDOW - len(wave)))
        return np.rint(np.clip(wave, -1, 1) * 32767).astype(np.int16)[None], caption
