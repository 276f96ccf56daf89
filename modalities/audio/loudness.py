"""Loudness and peaks of a sound as broadcasters measure them; a limiter that brings both where asked; stereo of mono.

Shapes: C channels, N samples; a sound is (C, N) float32 in [-1, 1]. Units: LUFS of integrated loudness, dBTP of
true peak, dB of gain.

Source: ITU-R BS.1770-4.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import signal
from scipy.ndimage import minimum_filter1d

BLOCK = 0.4  # seconds that loudness is measured over; a shorter sound is followed by silence
NEAR, TURNS = 0.02, 12  # dB from the target that will do, and how often to try
MARGIN = 0.1  # dB below the ceiling, for meters that see between samples otherwise than ours
REACH = 12.0  # dB that the limiter takes off a peak at most
AHEAD, RELEASE = 0.003, 120.0  # its attack in seconds, its release in dB a second
SHARP = 12  # samples on each side that tell what the waveform does between two samples
SIDE, BAND, WIDTH = 0.006, 2.0, 0.5  # of `widened`: reach in seconds, ERBs a band, size of the difference


def loudness(samples: NDArray[np.float32], rate: int) -> float:
    """Integrated loudness.

    Args:
        samples: (C, N), up to 5 channels.
        rate: Hz.
    Returns: LUFS; -inf for silence.
    """
    from pyloudnorm import Meter

    short = max(0, math.ceil(BLOCK * rate) - samples.shape[1])
    wave = np.pad(samples.astype(np.float64), ((0, 0), (0, short)))
    return float(Meter(rate).integrated_loudness(wave.T))


def true_peak(samples: NDArray[np.float32], rate: int) -> float:
    """The highest peak of the waveform that runs through the samples.

    Args:
        samples: (C, N).
        rate: Hz; raised to four times, or eight below 48 kHz.
    Returns: dBTP; -inf for silence.
    """
    with np.errstate(divide="ignore"):
        return float(20 * np.log10(_peaks(samples, rate, False).max()))


def normalized(
    samples: NDArray[np.float32], rate: int, target: float, ceiling: float, loop: bool = False
) -> NDArray[np.float32]:
    """Brings a sound to a loudness and under a true peak: by gain, and by a limiter where that is not enough.

    The limiter takes REACH dB off the highest peak at most. A sound that wants more (a click and nothing else) stays
    below the target, as loud as that makes it.

    Args:
        samples: (C, N).
        rate: Hz.
        target: LUFS.
        ceiling: dBTP, at most 0.
        loop: the end goes on at the beginning, and so does the gain.
    Returns: (C, N); silence as it is.
    """
    peaks = _peaks(samples, rate, loop)
    if not (top := peaks.max()):
        return samples.copy()
    base, peaks = samples / top, peaks / top
    most = ceiling - MARGIN + REACH
    gain = min(most, target - loudness(base, rate))
    tried: list[tuple[float, float]] = []  # of each try its gain and the loudness still missing, in dB
    for _ in range(TURNS):
        made = _limited(base, peaks, rate, gain, ceiling - MARGIN, loop)
        tried.append((gain, target - loudness(made, rate)))
        missing = tried[-1][1]
        if abs(missing) < NEAR or (missing > 0 and gain == most):
            break
        ...
        gain = min(most, gain + missing)
    return made


def limited(samples: NDArray[np.float32], rate: int, ceiling: float) -> NDArray[np.float32]:
    """Takes off what is above a true peak, and leaves the rest.

    Args:
        samples: (C, N).
        rate: Hz.
        ceiling: dBTP, at most 0.
    Returns: (C, N).
    """
    return _limited(samples, _peaks(samples, rate, False), rate, 0, ceiling, False)


def _limited(samples, peaks, rate, gain, ceiling, loop):
    """Samples with gain in dB, and under the ceiling by a gain that all channels share.

    The gain falls AHEAD of a peak and rises after it at RELEASE: at each sample it is a mean of values that are all
    low enough for it.
    """
    with np.errstate(divide="ignore"):
        room = ceiling - gain - 20 * np.log10(peaks)
    if room.min() >= 0:
        return (samples * 10 ** (gain / 20)).astype(np.float32)
    ahead = max(1, round(AHEAD * rate))
    around = ahead + (round(REACH / RELEASE * rate) if loop else 0)
    need = np.pad(np.minimum(room, 0), around + ahead, "wrap" if loop else "edge")
    slope = RELEASE / rate * np.arange(len(need))
    held = np.minimum.accumulate(minimum_filter1d(need, 2 * ahead + 1) - slope) + slope
    hann = signal.windows.hann(2 * ahead + 3)[1:-1]
    curve = np.convolve(held, hann / hann.sum(), "same")[around + ahead :][: len(peaks)]
    return (samples * 10 ** ((gain + curve) / 20)).astype(np.float32)


def _peaks(samples, rate, loop):
    """(N,) the waveform's highest absolute value in any channel, within half a sample of each."""
    times = 4 if rate >= 48_000 else 8
    found = np.abs(samples).max(0)
    for channel in samples.astype(np.float32):
        wave = np.pad(channel, SHARP, "wrap" if loop else "constant")
        between = signal.upfirdn(_interpolation(times), wave, times)[2 * SHARP * times - times // 2 :]
        np.maximum(found, np.abs(between[: len(found) * times]).reshape(-1, times).max(1), out=found)
    return found


@lru_cache
def _interpolation(times):
    return (signal.firwin(2 * SHARP * times + 1, 1 / times, window=("kaiser", 5.0)) * times).astype(np.float32)


def widened(mono, rate, loop=False):
    """Stereo of mono: left and right are equally loud at every frequency, and their mean is the mono sound.

    They differ by a filter whose response is imaginary, and of either sign in turn from one band of hearing to the
    next: it delays the one channel here, the other there.

    Args:
        mono: (N,).
        rate: Hz.
        loop: the end goes on at the beginning.
    Returns: (2, N).
    """
    taps = _difference(rate)
    reach = len(taps) // 2
    padded = np.pad(mono.astype(np.float64), reach, "wrap" if loop else "constant")
    side = signal.oaconvolve(padded, taps, "valid")
    return np.stack([mono + side, mono - side]).astype(np.float32)


@lru_cache
def _difference(rate):
    """Taps of `widened`'s filter: odd in time, bands of BAND ERBs (Glasberg and Moore 1990)."""
    reach = round(SIDE * rate)
    size = 1 << (8 * reach).bit_length()
    erbs = 21.4 * np.log10(1 + 0.00437 * np.arange(size // 2 + 1) * rate / size)
    wanted = 1j * WIDTH * np.tanh(3 * np.sin(np.pi * erbs / BAND))
    wanted[[0, -1]] = 0
    taps = np.fft.fftshift(np.fft.irfft(wanted))[size // 2 - reach : size // 2 + reach + 1]
    return taps * signal.windows.hann(2 * reach + 3)[1:-1]
