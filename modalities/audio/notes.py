"""Instruments and drums of a General MIDI sound font, and notes played on them.

`render` is a function of its events alone: every call starts from a synthesizer that has been reset.
"""

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from modalities.audio import RATE

FONT = "/usr/share/sounds/sf2/FluidR3_GM.sf2"
BLOCK = 64  # samples; the synthesizer hears of events between its blocks only
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
PERCUSSION = 128  # the bank of drum kits


@dataclass(frozen=True)
class Instrument:
    """A melodic sound: its program (0 to 127), its lowest and highest key, and what it can do."""

    name: str
    program: int
    low: int
    high: int
    sustains: bool
    chords: bool = False
    verb: str = "play"  # a choir sings
    slow: bool = False  # whether two notes a second run into one another

    @property
    def keys(self) -> tuple[int, ...]:
        """Its keys that sound in tune."""
        return tuple(key for key in range(self.low, self.high + 1) if (self.name, key) not in UNTUNED)


@dataclass(frozen=True)
class Drum:
    """A sound of the drum kit: one hit of it in words, several, and the keys that sound so."""

    name: str
    hit: str
    hits: str
    keys: tuple[int, ...]


@dataclass(frozen=True)
class Event:
    """A note: its start, how long it is held (seconds), key, velocity, and program; None is the drums."""

    start: float
    seconds: float
    key: int
    velocity: int
    program: int | None


# (instrument, key) that the sound font plays more than 20 cents off pitch
UNTUNED = {("violin", 78), ("violin", 79), ("violin", 80), ("recorder", 73)}

INSTRUMENTS = {instrument.name: instrument for instrument in (
    Instrument("piano", 0, 48, 84, False, True),
    Instrument("music box", 10, 60, 84, False, True),
    Instrument("vibraphone", 11, 53, 84, False, True),
    Instrument("marimba", 12, 48, 84, False, True),
    Instrument("xylophone", 13, 65, 84, False, True),
    Instrument("organ", 20, 48, 84, True, True),
    Instrument("accordion", 21, 53, 84, True, True),
    Instrument("harmonica", 22, 60, 84, True, True),
    Instrument("guitar", 24, 48, 79, False, True),
    Instrument("electric guitar", 29, 48, 79, True, True),
    Instrument("bass guitar", 33, 48, 60, False),
    Instrument("violin", 40, 55, 84, True, slow=True),
    Instrument("cello", 42, 48, 72, True, slow=True),
    Instrument("harp", 46, 48, 84, False, True),
    Instrument("string orchestra", 48, 48, 84, True, True, slow=True),
    Instrument("choir", 53, 48, 79, True, True, "sing", True),
    Instrument("trumpet", 56, 55, 82, True),
    Instrument("trombone", 57, 48, 70, True),
    Instrument("french horn", 60, 48, 74, True),
    Instrument("saxophone", 65, 49, 80, True),
    Instrument("oboe", 68, 58, 84, True),
    Instrument("clarinet", 71, 50, 84, True),
    Instrument("recorder", 74, 60, 84, True),
    Instrument("flute", 73, 60, 84, True),
    Instrument("pan flute", 75, 60, 84, True),
    Instrument("sitar", 104, 48, 72, False),
    Instrument("banjo", 105, 48, 79, False),
)}

DRUMS = {drum.name: drum for drum in (
    Drum("kick drum", "a kick drum hit", "kick drum hits", (35, 36)),
    Drum("snare drum", "a snare drum hit", "snare drum hits", (38, 40)),
    Drum("hi-hat", "a hi-hat hit", "hi-hat hits", (42,)),
    Drum("open hi-hat", "an open hi-hat hit", "open hi-hat hits", (46,)),
    Drum("crash cymbal", "a crash cymbal hit", "crash cymbal hits", (49, 57)),
    Drum("low tom", "a low tom hit", "low tom hits", (41, 43)),
    Drum("high tom", "a high tom hit", "high tom hits", (48, 50)),
    Drum("hand clap", "a hand clap", "hand claps", (39,)),
    Drum("tambourine", "a tambourine hit", "tambourine hits", (54,)),
    Drum("cowbell", "a cowbell hit", "cowbell hits", (56,)),
    Drum("bongo", "a bongo hit", "bongo hits", (60, 61)),
    Drum("maracas", "a maracas shake", "maracas shakes", (70,)),
    Drum("claves", "a claves hit", "claves hits", (75,)),
    Drum("woodblock", "a woodblock hit", "woodblock hits", (76, 77)),
    Drum("triangle", "a triangle hit", "triangle hits", (81,)),
)}


def named(key: int) -> str:
    """The note of a MIDI key: 69 is "A4"."""
    return f"{NAMES[key % 12]}{key // 12 - 1}"


def frequency(key: float) -> float:
    """Hz of a MIDI key in equal temperament, A4 (69) at 440."""
    return float(440 * 2 ** ((key - 69) / 12))


def render(events: Sequence[Event], seconds: float) -> np.ndarray:
    """Plays the events on the sound font, without reverberation.

    Args:
        events: at most nine programs among them; starts are kept to 64 samples.
        seconds: how long is listened, from time 0; what rings on is cut.
    Returns: (N,) float32 at 24 kHz.
    Raises:
        ImportError: pyfluidsynth or libfluidsynth is missing.
        ValueError: there is no sound font.
    """
    library, font = loaded()
    channels = {program: number for number, program in enumerate(sorted(
        {event.program for event in events if event.program is not None}))}
    synth, number = fresh(library, font)
    for program, channel in channels.items():
        synth.program_select(channel, number, 0, program)
    synth.program_select(9, number, PERCUSSION, 0)
    moves = []
    for event in events:
        channel = 9 if event.program is None else channels[event.program]
        moves.append((round(event.start * RATE / BLOCK), event.velocity, event.key, channel))
        moves.append((round((event.start + event.seconds) * RATE / BLOCK), 0, event.key, channel))
    blocks = -(-round(seconds * RATE) // BLOCK)
    pieces, now = [np.zeros(0, np.float32)], 0
    for at, velocity, key, channel in sorted(moves):  # a key is let go before it is struck again
        if at >= blocks:
            break
        if at > now:
            pieces.append(listen(library, synth, at - now))
            now = at
        if velocity:
            synth.noteon(channel, key, velocity)
        else:
            synth.noteoff(channel, key)
    pieces.append(listen(library, synth, blocks - now))
    library.fluid_synth_remove_sfont(synth.synth, font)
    synth.delete()
    return np.concatenate(pieces)[: round(seconds * RATE)]


def listen(library: Any, synth: Any, blocks: int) -> np.ndarray:
    """The next samples, (64 * blocks,) float32, in the synthesizer's floats, which it does not dither."""
    sound = np.empty((2, blocks * BLOCK), np.float32)
    left, right = (side.ctypes.data_as(ctypes.c_void_p) for side in sound)
    library.fluid_synth_write_float(synth.synth, blocks * BLOCK, left, 0, 1, right, 0, 1)
    return np.asarray(sound.mean(0))


def fresh(library: Any, font: int) -> tuple[Any, int]:
    """A synthesizer, and the font's number on it; one that was reset would still sound of what it played."""
    import fluidsynth

    dry = {"synth.reverb.active": 0, "synth.chorus.active": 0, "synth.polyphony": 64}
    synth = fluidsynth.Synth(gain=0.6, samplerate=float(RATE), channels=16, **dry)
    return synth, library.fluid_synth_add_sfont(synth.synth, font)


@lru_cache(maxsize=1)
def loaded() -> tuple[Any, int]:
    """The library and the address of the sound font, read once in a process."""
    try:
        import fluidsynth
    except ImportError as error:
        raise ImportError(
            f"playing notes needs FluidSynth ({error}): pip install 'diffusion-suite[soundfont]' and, on "
            "Debian, apt install libfluidsynth3 fluid-soundfont-gm") from None
    path = os.environ.get("SOUNDFONT", FONT)
    if not Path(path).is_file():
        raise ValueError(f"SOUNDFONT is {path!r}; it must be a General MIDI .sf2 file that is there "
                         "(on Debian: apt install fluid-soundfont-gm)")
    library: Any = fluidsynth._fl
    address = ctypes.c_void_p
    library.fluid_set_log_function(2, None, None)  # warnings: every fresh channel has no sound yet
    library.fluid_synth_get_sfont_by_id.argtypes = (address, ctypes.c_int)
    library.fluid_synth_get_sfont_by_id.restype = address
    library.fluid_synth_add_sfont.argtypes = library.fluid_synth_remove_sfont.argtypes = (address, address)
    library.fluid_synth_write_float.argtypes = (
        address, ctypes.c_int, address, ctypes.c_int, ctypes.c_int, address, ctypes.c_int, ctypes.c_int)
    keeper = fluidsynth.Synth(samplerate=float(RATE))
    number = keeper.sfload(path)
    if number < 0:
        raise ValueError(f"SOUNDFONT is {path!r}; it must be a sound font that FluidSynth can read")
    return library, library.fluid_synth_get_sfont_by_id(keeper.synth, number)
