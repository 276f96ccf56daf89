"""Recorded sounds of the pack, by what a stranger would call them, cut to single events where they are such.

An event begins where the energy rises above what lies around it and ends where it has died away; a texture
sounds the same throughout, so that any piece of it is one.
"""

import re
import zlib
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from modalities.audio import RATE
from modalities.audio.read import mono, opened
from modalities.packs import read_rows

FRAME = 120  # samples, 5 ms; the step in which energy is measured
LEVEL = 0.1  # RMS of what sounds, -20 dBFS
PEAK = 0.95
LONGEST = 4.8  # seconds of one event


@dataclass(frozen=True)
class Sounding:
    """A class of sounds and its words; `gap` is the silence (seconds) that parts two events of it.

    What is struck can be struck again while it still rings; what has a gap of 0.2 or more is one however it
    swells.
    """

    name: str
    phrases: tuple[str, ...]
    several: str | None  # "dog barks", if it can be counted
    kind: str  # "event" or "texture"
    pattern: str  # what the pack calls it
    gap: float = 0.12


@dataclass(frozen=True)
class Clip:
    """One file of the pack; held files are never composed."""

    path: Path
    name: str
    weight: float
    held: bool = False


def event(name: str, phrase: str, several: str | None, pattern: str, gap: float = 0.12) -> Sounding:
    """A row of the table; phrases are parted by a bar."""
    return Sounding(name, tuple(phrase.split("|")), several, "event", pattern, gap)


def texture(name: str, phrase: str, pattern: str) -> Sounding:
    """A row of the table; phrases are parted by a bar."""
    return Sounding(name, tuple(phrase.split("|")), None, "texture", pattern)


SOUNDS = {sounding.name: sounding for sounding in (
    event("dog", "a dog barking", "dog barks", "dog bark|dog"),
    event("rooster", "a rooster crowing", "rooster crows", "rooster", 0.3),
    event("sneeze", "a person sneezing|a sneeze", "sneezes", "person sneeze", 0.4),
    event("car horn", "a car horn honking|a car horn", "car horn honks", "car horn|honking"),
    event("door slam", "a door slamming", "door slams",
          r"door ?slam( tunnel)?|door close|door shut|closingdoor|slam"),
    event("bell", "a bell ringing", "bell rings", "bell|bell hits|bell light|(small)?templebell|iron bell"),
    event("doorbell", "a doorbell ringing|a doorbell", None, "doorbell", 0.6),
    event("glass breaking", "glass breaking|glass shattering", None, "glass break", 0.4),
    event("camera", "a camera taking a picture|a camera shutter", None, "camera", 0.4),
    event("scream", "a person screaming|a scream", "screams", "scream|man yelling|rebel yell", 0.3),
    event("paper tearing", "paper tearing|paper being torn", None, "paper rip|rip", 0.4),
    event("whistle", "a whistle blowing", "whistle blows", "(toy )?whistle", 0.2),
    event("gong", "a gong|a gong being struck", "gong hits", "gong( shot)?", 0.5),
    event("crash cymbal", "a crash cymbal|a cymbal crash", "crash cymbal hits",
          "(crash |china )?cymbal|drum cymbal (hard|open|soft)|drum splash .*"),
    event("hand drum", "a hand drum", "hand drum hits", "hand drum|conga|hit drum"),
    event("tabla", "a tabla drum|a tabla", "tabla hits", "tabla .+"),
    event("kick drum", "a kick drum|a bass drum", "kick drum hits",
          "bass drum .*|drum heavy kick|electronic (hollow|soft) kick"),
    event("snare drum", "a snare drum", "snare drum hits",
          "snare drum .*|drum snare .*|electronic ((lo|hi|mid) )?snare"),
    event("hi-hat", "a hi-hat", "hi-hat hits", "hi-hat .*|drum cymbal closed"),
    event("cowbell", "a cowbell", "cowbell hits", "cowbell[12] .*|drum cowbell"),
    event("woodblock", "a woodblock", "woodblock hits", "woodblock pitched .*"),
    event("laser", "a laser|a laser gun firing", "laser shots", "(synth |resonant fm )?laser( gun)?", 0.25),
    event("click", "a click", "clicks", "(click|tick|select|switch|toggle) interface sound|click", 0.04),
    event("metal clang", "a metal clang|metal being struck", "metal clangs",
          "((short|small) )?metal ?hit( short)?|metal (strike|beam hit)|drymetalhit|clangs?"),
    event("trash can", "a trash can being hit", "trash can hits",
          "(trash|garbage) ?can (resonant )?hits?|dumpster hit|barel (hit|strike)"),
    event("explosion", "an explosion", "explosions", "explosion|sound effect cineboom", 0.5),
    event("thunder", "thunder|a clap of thunder", None, "thunder", 1.0),
    texture("baby", "a baby crying", "baby cry"),
    texture("clock", "a clock ticking", "clock tick"),
    texture("rain", "rain|rain falling", "rain|ambient rain"),
    texture("sea waves", "sea waves|waves on a beach", "sea waves"),
    texture("helicopter", "a helicopter|a helicopter flying", "helicopter"),
    texture("chainsaw", "a chainsaw|a chainsaw running", "chainsaw"),
    texture("fire", "a crackling fire|a fire crackling", "fire crackling"),
    texture("running water", "running water|water running", "running water|water (tap long|in sink)|shower"),
    texture("bubbling", "water bubbling|bubbles in water", "water ?bubbles"),
    texture("river", "a river flowing|a river", "(wild )?river|waterfall"),
    texture("wind chimes", "wind chimes", "wind chimes|chime|chimeballs"),
    texture("siren", "a police siren", "police siren|ambient policesiren"),
    texture("engine", "an engine running|an engine", "(car|boat) engine|engine noise|(loud)?motor"),
    texture("train", "a train passing|a train", "train|train passing|(subway|underground) train( b line)?"),
    texture("creaking door", "a door creaking|a creaking door", "door (creak|squeak)|creaky door|old door"),
    texture("keys", "keys jingling", "keys|key jingle"),
    texture("coins", "coins dropping", "dropping coins|pennies|rolling coins"),
    texture("coin spinning", "a coin spinning", "coin ?spin(ning)?|spinning large coin"),
    texture("footsteps", "footsteps|a person walking", "footsteps long|walking( on wood)?|heels on tile"),
    texture("laughter", "people laughing|laughter", "laughter|laughing crowd"),
    texture("birds", "birds singing|birds chirping", "birds?( ?in ?a ?park| outside)?|ch[ri]+ping"),
    texture("telephone", "a telephone ringing", "old phone|modern phone|sound effect phone.*"),
    texture("drill", "a drill|a power drill", "(power)?drill( short| small)?"),
    texture("crumpling", "paper crumpling", "paper (crumple|bag)|crinkle|crumpled bag"),
    texture("sticky tape", "sticky tape being pulled", "(duct|scotch|surgical) tape|packing ?tape|tape pull"),
    texture("shaker", "a shaker", "(egg )?shaker( slow)?"),
    texture("tambourine shake", "a tambourine being shaken", "tambourine"),
    texture("chain", "a chain rattling|chains rattling", "chains?( rattle| hits)?|tinklingchain.*"),
    texture("chewing", "a person eating|a person chewing", "eating .*|chewing"),
    texture("pouring", "a drink being poured", "pouring soda|beer pour"),
    texture("ping pong", "a ping pong ball bouncing", "ping pong( solo)?"),
    texture("didgeridoo", "a didgeridoo", "diger?i?a?doo"),
    texture("jaw harp", "a jaw harp", "(jaw|mouth) harp"),
    texture("theremin", "a theremin", "(oily |gurgling )?theremin( .*)?"),
    texture("rainstick", "a rainstick", "rainstick"),
    texture("robot", "a robot", "sound effect robot.*"),
    texture("ratchet", "a ratchet turning", "ratchet|ratchet2 loud"),
    texture("wine glass", "a wine glass ringing", "wineglasstone|glass (tone|harmonica)"),
)}


def load(data: Path) -> list[Clip]:
    """The files of the pack below `data` that the table names, with a tenth of each larger class held out.

    Of a class of ten files or more, whole recordings are held out, in the order of a hash of their names,
    until they are a tenth of its files.
    """
    classes: dict[str, list[tuple[Path, str]]] = defaultdict(list)
    for row in read_rows(data / "sounds"):
        path = data / "sounds" / row["file_name"]
        name = next((sounding.name for sounding in SOUNDS.values()
                     if re.fullmatch(sounding.pattern, row["text"].lower())), None)
        if name:
            classes[name].append((path, row.get("url_id") or path.stem))
    clips = []
    for name, files in classes.items():
        held: set[str] = set()
        if len(files) >= 10:
            for group in sorted({group for _, group in files}, key=lambda group: zlib.crc32(group.encode())):
                if sum(other in held for _, other in files) < len(files) / 10:
                    held.add(group)
        weight = min(len(files), 40) ** 0.5 / len(files)
        clips += [Clip(path, name, weight, group in held) for path, group in files]
    return clips


def decoded(path: Path) -> np.ndarray:
    """A file as (N,) float32 at 24 kHz, its channels averaged."""
    return mono(*opened("file_name", str(path)), RATE)


def energy(wave: np.ndarray) -> np.ndarray:
    """(N / FRAME,) level of each frame in dB below the loudest."""
    frames = wave[: len(wave) // FRAME * FRAME].reshape(-1, FRAME)
    level = 10 * np.log10((frames.astype(np.float64) ** 2).mean(1) + 1e-12)
    return np.asarray(level - level.max()) if len(level) else level


def levelled(wave: np.ndarray, gain: float = 0.0) -> np.ndarray:
    """Brings what sounds to a common RMS (`gain` dB from it), with its peak below 1.

    Frames 30 dB or more below the loudest count as silence.
    """
    if not wave.any():
        return wave
    loud = energy(wave) > -30
    frames = wave[: len(loud) * FRAME].reshape(-1, FRAME)
    rms = float(np.sqrt((frames[loud] ** 2).mean())) if loud.any() else float(np.sqrt((wave**2).mean()))
    scale = min(LEVEL * 10 ** (gain / 20) / rms, PEAK / float(abs(wave).max()))
    return np.asarray(wave * np.float32(scale))


def faded(wave: np.ndarray, rise: float = 0.003, fall: float = 0.02) -> np.ndarray:
    """A copy with its ends brought to silence, in seconds of rise and fall."""
    wave = wave.copy()
    for seconds, side in ((rise, wave), (fall, wave[::-1])):
        number = min(len(wave) // 2, round(seconds * RATE))
        side[:number] *= 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, number, endpoint=False, dtype=np.float32))
    return wave


def trimmed(wave: np.ndarray) -> np.ndarray:
    """Without what is 45 dB below the loudest at either end."""
    loud = np.flatnonzero(energy(wave) > -45)
    return wave[max(0, loud[0] - 1) * FRAME:(loud[-1] + 2) * FRAME] if len(loud) else wave


@lru_cache(maxsize=2048)
def clip(path: Path) -> np.ndarray:
    """The whole sound, (N,) float32 at 24 kHz and the common level, without the silence at its ends."""
    return whole(path)


def whole(path: Path) -> np.ndarray:
    """As `clip`, read afresh."""
    return levelled(faded(trimmed(decoded(path))))


@lru_cache(maxsize=2048)
def takes(path: Path, gap: float = 0.12) -> tuple[np.ndarray, ...]:
    """The single events of a file, each (N,) float32 at the common level, loudest first.

    Events are parted by `gap` seconds that are 26 dB below the loudest, or near the file's own noise, and,
    where the gap is below 0.2 s, by a rise of 9 dB within 60 ms.
    """
    wave = whole(path)
    level = energy(wave)
    if not len(level):
        return ()
    noise = float(np.percentile(level, 15)) if len(wave) > RATE else -99.0
    floor = max(-26.0, min(noise + 8, -10.0))
    on = np.flatnonzero(level > floor)
    breaks = np.flatnonzero(np.diff(on) > gap * RATE / FRAME)
    starts, ends = list(on[[0, *(breaks + 1)]]), list(on[[*breaks, -1]])
    if gap < 0.2:
        for onset in struck(level, max(floor, -18.0), round(max(gap, 0.05) * RATE / FRAME)):
            number = int(np.searchsorted(starts, onset, "right")) - 1
            if number >= 0 and starts[number] + gap * RATE / FRAME < onset < ends[number]:
                ends.insert(number, onset - 1)
                starts.insert(number + 1, onset)
    found = []
    for number, (first, last) in enumerate(zip(starts, ends, strict=True)):
        limit = starts[number + 1] - 2 if number + 1 < len(starts) else len(level)
        quiet = np.flatnonzero(level[last:limit] < max(-36.0, noise + 3))  # where it has died away
        last = min(limit, last + quiet[0] if len(quiet) else limit)
        piece = wave[max(0, first - 1) * FRAME:last * FRAME]
        if 0.02 * RATE < len(piece) and level[first:last].max() > -10:
            tail = 0.4 if len(piece) > LONGEST * RATE else min(0.06, 0.3 * len(piece) / RATE)
            piece = faded(piece[: round(LONGEST * RATE)], fall=tail)
            found.append((float(level[first:last].max()), levelled(piece)))
    return tuple(piece for _, piece in sorted(found, key=lambda pair: -pair[0]))


def struck(level: np.ndarray, floor: float, apart: int) -> list[int]:
    """Frames, more than `apart` from one another, where the level rises by 9 dB to above `floor` in 60 ms."""
    before = np.array([level[max(0, at - 12):at + 1].min() for at in range(len(level))])
    onsets: list[int] = []
    for at in np.flatnonzero((level - before > 9) & (level > floor)):
        if not onsets or at - onsets[-1] > apart:
            onsets.append(int(at))
    return onsets
