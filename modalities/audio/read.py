"""Sounds from disk or memory, as a user hands them over: floats in [-1, 1], any rate, any channels.

Every sound that is not of the packs comes in through here: what to start from, audiofolders, recordings; and
the regions of it that are told in seconds.
"""

from __future__ import annotations

import errno
import io
import math
import re
import subprocess
from typing import Any

import numpy as np
import soundfile
from scipy.signal import resample_poly

from modalities.audio.loudness import Wave
from modalities.audio.save import RATES, Sound

LONGEST, QUIET = 600, 1e-4  # seconds; the peak of what is silence, which a decoder may not give back as zeros
UNTOLD = 1 << 48  # frames; libsndfile's number for a stream whose length is not told is beyond
_NUMBER = r"\s*(\d+\.?\d*|\.\d+)?\s*"
SPAN = re.compile(_NUMBER + "-" + _NUMBER)


def opened(name: str, source: Any) -> tuple[Wave, int]:
    """The sound, loaded whole.

    Args:
        name: what the sound is for, as an error calls it.
        source: a path, a `Sound`, or (rate, samples) as gradio has them: (N,) or (N, C), integers or floats.

    Returns: samples (C, N) float32, turned down if a value is beyond [-1, 1]; and the rate in Hz.

    Raises: ValueError, in one sentence, if it cannot be read or holds nothing to hear.
    """
    if isinstance(source, str):
        shown = f"{name} is {source!r}"
        samples, rate = _file(name, source)
    elif isinstance(source, Sound):
        shown, samples, rate = f"{name} is a sound", source.samples, source.sample_rate
    elif isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], (int, np.integer)):
        shown = f"{name} is a sound"
        samples, rate = _array(name, source[1]), source[0]
    else:
        kind = type(source).__name__
        raise ValueError(f"{name} is a {kind}; it must be a path, a Sound or (rate, samples)")
    if not RATES[0] <= rate <= RATES[1]:
        raise ValueError(f"{shown} of {rate} samples a second; they must be {RATES[0]} to {RATES[1]}")
    _short_enough(shown, samples.shape[1] / rate)
    if not np.isfinite(samples).all():
        raise ValueError(f"{shown}, which holds values that are no numbers; it must hold finite ones")
    if (peak := np.abs(samples).max(initial=0)) < QUIET:
        what = "silent" if samples.size else "empty"
        raise ValueError(f"{shown}, which is {what}; it must hold something to hear")
    return (samples / max(1, peak)).astype(np.float32), int(rate)


def mono(samples: Wave, rate: int, to: int) -> Wave:
    """The mean of the channels at another rate; the loudest of them, if they cancel.

    Args:
        samples: (C, N).
        rate: Hz, of the samples.
        to: Hz, of what is returned.
    Returns: (N * to / rate rounded up,) float32 in [-1, 1].
    """
    mean = samples.mean(0)
    mixed = mean if np.abs(mean).max() >= QUIET else samples[np.abs(samples).max(1).argmax()]
    common = math.gcd(rate, to)
    return resample_poly(mixed, to // common, rate // common).astype(np.float32).clip(-1, 1)


def spans(text: str, whole: float, unit: str = "seconds") -> list[tuple[float, float]]:
    """Regions of something long, as of a sound: "1-2.5,4-" is from 1 to 2.5 s and from 4 s to the end.

    Args:
        text: one or more, with commas between; a side that is not told is the beginning or the end.
        whole: the length.
        unit: of the length and the regions.
    Returns: (from, to) in the order of the text.
    Raises: ValueError for what is no region.
    """
    found, example = [], "1-2.5,4-" if whole > 1 else "0-0.3,0.5-"
    for part in text.split(","):
        sides = SPAN.fullmatch(part)
        if sides is None:
            raise ValueError(f"mask is {text!r}; it must be regions in {unit}, such as {example}")
        start, stop = float(sides[1] or 0), float(sides[2] or whole)
        if not start < stop <= whole:
            end = f"{math.floor(whole * 1000) / 1000:g}"
            told = f"{part.strip()} must begin before it ends, within {end} {unit}"
            raise ValueError(f"mask is {text!r}; {told}")
        found.append((start, stop))
    return found


def _short_enough(shown: str, seconds: float) -> None:
    if seconds > LONGEST:
        raise ValueError(f"{shown}, which lasts {seconds:.0f} s; it must last {LONGEST} s at most")


def _array(name: str, values: Any) -> Wave:
    """(C, N) of an array (N,) or (N, C); integers by their own range."""
    array = np.asarray(values)
    if array.dtype.kind not in "iuf" or array.ndim not in (1, 2):
        told = f"{array.ndim} dimensions of {array.dtype}"
        raise ValueError(f"{name} is an array with {told}; it must be (N,) or (N, channels) of numbers")
    wave = array[:, None] if array.ndim == 1 else array
    if array.dtype.kind != "f":
        half = 2.0 ** (8 * array.dtype.itemsize - 1)
        wave = wave / half - (array.dtype.kind == "u")
    return wave.T


def _file(name: str, path: str) -> tuple[Wave, int]:
    shown = f"{name} is {path!r}"
    try:
        file = open(path, "rb")
    except (OSError, ValueError) as error:  # a ValueError of a name with a null byte
        if getattr(error, "errno", None) not in (errno.ENOENT, errno.ENAMETOOLONG):
            raise ValueError(f"{shown}; it must be a sound that can be read ({error})") from None
        if path.startswith("<"):  # the request's label
            told = f"was a sound in memory, which settings cannot carry; give it with --{name} FILE"
            raise ValueError(f"{name} {told}") from None
        raise ValueError(f"{shown}; there is no such file") from None
    why = "its length is not told"
    with file:
        try:
            if found := _decoded(shown, file):
                return found
        except (soundfile.LibsndfileError, TypeError) as error:  # a TypeError of a name that ends in .raw
            why = str(getattr(error, "error_string", "Format not recognised.")).rstrip(".")
    if (decoded := _by_ffmpeg(path)) and (found := _decoded(shown, io.BytesIO(decoded))):
        return found
    raise ValueError(f"{shown}; it must be a sound that can be read ({why})")


def _decoded(shown: str, file: Any) -> tuple[Wave, int] | None:
    """Samples and rate by libsndfile; None if the file does not tell how long it is."""
    with soundfile.SoundFile(file) as sound:
        if sound.frames > UNTOLD:
            return None
        _short_enough(shown, sound.frames / sound.samplerate)
        return sound.read(dtype="float32", always_2d=True).T, sound.samplerate


def _by_ffmpeg(path: str) -> bytes | None:
    """The file's first sound as an AU file of floats (which need not tell its length), if it has one."""
    from imageio_ffmpeg import get_ffmpeg_exe

    try:
        command = [get_ffmpeg_exe(), "-nostdin", "-v", "error", "-i", f"file:{path}", "-map", "0:a:0",
                   "-t", str(LONGEST + 1), "-c:a", "pcm_f32be", "-f", "au", "-"]  # fmt: skip
    except RuntimeError:  # no ffmpeg for this machine
        return None
    done = subprocess.run(command, capture_output=True)
    return None if done.returncode else done.stdout
