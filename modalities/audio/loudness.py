"""Loudness and peaks as broadcasters measure them; a limiter that brings both where asked; stereo of mono.

Shapes: C channels, N samples; a sound is (C, N) float32 in [-1, 1].
Units: LUFS of integrated loudness, dBTP of true peak, dB of gain.

Source: ITU-R BS.1770-4.
"""

from __future__ import annotations

import math
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import signal
from scipy.ndimage import minimum_filter1d

Wave: TypeAlias = NDArray[Any]

BLOCK = 0.4  # seconds that loudness is measured over; a shorter sound is measured with silence after it
NEAR, TRIES = 0.02, 12  # dB from the target that will do, and how often to try
MARGIN = 0.1  # dB kept below the ceiling, for meters that see between samples otherwise than ours
REACH = 18.0  # dB that the limiter takes off a peak at most; more makes noise of crackles
AHEAD, RELEASE = 0.0015, 480.0  # its attack in seconds, its release in dB a second
SHARP = 12  # samples on each side that tell what the waveform does between two samples
SIDE, BAND, WIDTH = 0.006, 4.0, 0.6  # of `widened`: reach in seconds, ERBs a band, size of what differs


def loudness(samples: Wave, rate: int) -> float:
    """Integrated loudness.

    Args:
        samples: (C, N), up to 5 channels.
        rate: Hz.
    Returns: LUFS; -inf for silence.
    """
    from pyloudnorm import Meter

    short = max(0, math.ceil(BLOCK * rate) - samples.shape[1])
    wave = np.pad(samples.astype(np.float64), ((0, 0), (0, short)))
    with np.errstate(divide="ignore"):
        return float(Meter(rate).integrated_loudness(wave.T))


def true_peak(samples: Wave, rate: int) -> float:
    """The highest peak of the waveform that runs through the samples.

    Args:
        samples: (C, N).
        rate: Hz; it is raised to four times, or to eight below 48 kHz.
    Returns: dBTP; -inf for silence.
    """
    return float(_decibels(_peaks(samples, rate).max()))


def normalized(samples: Wave, rate: int, target: float, ceiling: float, loop: bool = False) -> Wave:
    """Brings a sound to a loudness and under a true peak: by gain, and by a limiter where gain is not enough.

    The limiter takes REACH dB off the highest peak at most. A sound that wants more (a click and nothing
    else) stays below the target, as loud as that makes it.

    Args:
        samples: (C, N).
        rate: Hz.
        target: LUFS.
        ceiling: dBTP, at most 0.
        loop: the end goes on at the beginning, and so does the limiter's gain.
    Returns: (C, N) float32; silence as it is.
    """
    peaks = _peaks(samples, rate, loop)
    if not (top := peaks.max()):
        return samples.copy()
    base, peaks = samples / top, peaks / top
    most = ceiling - MARGIN + REACH
    gain, pace, last = min(most, target - _agreed(base, rate)), 1.0, None
    best = (math.inf, base)
    for _ in range(TRIES):
        made = _limited(base, peaks, rate, gain, ceiling - MARGIN, loop)
        missing = target - _agreed(made, rate)
        best = min(best, (abs(missing), made), key=itemgetter(0))
        if best[0] < NEAR or (missing > 0 and gain == most):
            break
        if last and last[1] != missing:
            pace = min(4.0, max(0.5, (gain - last[0]) / (last[1] - missing)))
        last, gain = (gain, missing), min(most, gain + pace * missing)
    return best[1]


def limited(samples: Wave, rate: int, ceiling: float) -> Wave:
    """Takes off what is above a true peak and leaves the rest.

    Args:
        samples: (C, N).
        rate: Hz.
        ceiling: dBTP, at most 0.
    Returns: (C, N) float32.
    """
    return _limited(samples, _peaks(samples, rate), rate, 0, ceiling)


def widened(mono: Wave, rate: int, loop: bool = False) -> Wave:
    """Stereo whose mean is the mono sound, and whose channels are equally loud at every frequency.

    What differs is filtered by an imaginary response, its sign in turn one and the other from band to band:
    here the left channel comes first, there the right. Where it changes sign, and below 100 Hz or so, both
    are one.

    Args:
        mono: (N,).
        rate: Hz.
        loop: the end goes on at the beginning.
    Returns: (2, N) float32; what differs begins up to SIDE before what makes it and ends as much after.
    """
    reach = round(SIDE * rate)
    padded = np.pad(mono, reach, "wrap" if loop else "constant")
    side = signal.oaconvolve(padded, _side(rate), "valid")
    return np.stack([mono + side, mono - side]).astype(np.float32)


def _agreed(samples: Wave, rate: int) -> float:
    """Loudness between those of meters that count an unfinished last block and of meters that do not."""
    tenths = rate // 10
    whole = max(samples.shape[1] // tenths, 4) * tenths
    found = loudness(samples, rate)
    if 2 * (samples.shape[1] - whole) < tenths:
        return found
    return (found + loudness(samples[:, :whole], rate)) / 2


def _limited(samples: Wave, peaks: Wave, rate: int, gain: float, ceiling: float, loop: bool = False) -> Wave:
    """Samples with gain, under the ceiling by a further gain that all channels share.

    That one begins to fall AHEAD of a peak and rises after it at RELEASE; at each sample it is a mean of
    values that are all low enough for it.

    Args:
        samples: (C, N).
        peaks: (N,), as `_peaks` finds them.
        rate: Hz.
        gain: dB.
        ceiling: dBTP.
        loop: whether the end goes on at the beginning.
    """
    room = ceiling - gain - _decibels(peaks)
    decibels: Any = gain
    if room.min() < 0:
        ahead = max(1, round(AHEAD * rate))
        around = 2 * ahead + (round(REACH / RELEASE * rate) if loop else 0)
        need = np.pad(np.minimum(room, 0), around, "wrap" if loop else "edge")
        rising = RELEASE / rate * np.arange(len(need))
        held = np.minimum.accumulate(minimum_filter1d(need, 2 * ahead + 1) - rising) + rising
        bell = signal.windows.hann(2 * ahead + 3)[1:-1]
        decibels = gain + np.convolve(held, bell / bell.sum(), "same")[around : around + len(room)]
    return (samples * 10 ** (decibels / 20)).astype(np.float32)


def _peaks(samples: Wave, rate: int, loop: bool = False) -> Wave:
    """(N,) the waveform's highest absolute value in any channel, within half a sample of each sample."""
    times, near = 4 if rate >= 48_000 else 8, 2 * SHARP
    found = np.abs(samples).max(0)
    for channel in samples.astype(np.float32):
        np.maximum(found, _between(channel, times, "wrap" if loop else "constant"), out=found)
        if not loop:  # some meters take a sound's mirror to be before and after it
            head = _between(channel[: 2 * near], times, "reflect")[:near]
            tail = _between(channel[-2 * near :], times, "reflect")[-near:]
            found[:near] = np.maximum(found[:near], head)
            found[-near:] = np.maximum(found[-near:], tail)
    return found


def _between(wave: Wave, times: int, beyond: str) -> Wave:
    """(N,) the highest absolute value around each sample, at `times` the rate; `beyond` as in `np.pad`."""
    padded = np.pad(wave, SHARP, beyond)
    raised = signal.upfirdn(_interpolation(times), padded, times)[2 * SHARP * times - times // 2 :]
    return np.abs(raised[: len(wave) * times]).reshape(-1, times).max(1)


def _decibels(amplitude: Wave) -> Wave:
    with np.errstate(divide="ignore"):
        return 20 * np.log10(amplitude.astype(np.float64))


@lru_cache
def _interpolation(times: int) -> Wave:
    taps = signal.firwin(2 * SHARP * times + 1, 1 / times, window=("kaiser", 5.0))
    return (taps * times).astype(np.float32)


@lru_cache
def _side(rate: int) -> Wave:
    """The filter of what differs in `widened`: odd in time, so imaginary in frequency.

    Source of the scale of ERBs: Glasberg and Moore 1990, Hearing Research 47, equation 4.
    """
    reach = round(SIDE * rate)
    size = 1 << (8 * reach).bit_length()
    erbs = 21.4 * np.log10(1 + 0.00437 * np.arange(size // 2 + 1) * rate / size)
    response = 1j * WIDTH * np.tanh(3 * np.sin(np.pi * erbs / BAND))
    response[[0, -1]] = 0
    taps = np.roll(np.fft.irfft(response), size // 2)[size // 2 - reach : size // 2 + reach + 1]
    return taps * signal.windows.hann(2 * reach + 3)[1:-1]
