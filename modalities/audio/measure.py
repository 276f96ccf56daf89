"""What a sound holds, told by its samples and by the network that names sounds.

Shapes: N samples at RATE, L frames, K events, D features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d
from torch import Tensor
from torch.nn import functional as F

from modalities.audio import RATE, WINDOW
from modalities.audio.sounds import FRAME, energy, levelled
from modalities.naming import Namer
from modalities.naming import namer as load_namer
from suite.loss import spectral_loss
from suite.nn.vocoder import SPAN, Vocoder

Wave = NDArray[np.float32]
LOW, HIGH = 60.0, 2200.0  # Hz, what a fundamental may be
HOP, LOOK = 512, 2048  # samples between two measurements of it, and that each looks at
SMOOTH = 11  # samples of the window that damps partials above 4 kHz, which hide where a period ends
PERIODIC = 0.15  # how far from its own shift by a period a frame may be
STEADY = 0.15  # seconds for which a pitch must hold to be a note
FAINT = 0.06  # of the loudest moment's power, which a note must reach: one that dies seems to leap
RISE, SHARE = 0.05, 0.1  # of the mean band at an onset: in the units of `Vocoder.mel`, and of the strongest
APART = 0.09  # seconds between two onsets at least
QUIET, GAP = -28.0, 0.12  # dB below the loudest and seconds that part two events


def track(wave: Wave) -> NDArray[np.float64]:
    """The fundamental over time.

    Args:
        wave: (N,) at RATE.
    Returns: (N // HOP,) MIDI keys, 69 is 440 Hz; NaN where no period is found.
    Source: de Cheveigné and Kawahara 2002, doi 10.1121/1.1458024, steps 1 to 5 (YIN).
    """
    count, most = len(wave) // HOP, int(RATE / LOW) + 2
    smooth = np.convolve(wave.astype(np.float64), np.hanning(SMOOTH + 2)[1:-1], "same")
    padded = np.pad(smooth, (LOOK // 2, LOOK + most))
    frames = np.lib.stride_tricks.sliding_window_view(padded, LOOK + most)[::HOP][:count]
    size = 1 << (LOOK + most - 1).bit_length()
    across = np.fft.rfft(frames[:, :LOOK], size).conj() * np.fft.rfft(frames, size)
    power = np.cumsum(np.pad(frames**2, ((0, 0), (1, 0))), 1)
    power = power[:, LOOK:][:, :most] - power[:, :most]
    apart = power[:, :1] + power - 2 * np.fft.irfft(across)[:, :most]
    mean = np.cumsum(apart[:, 1:], 1) / np.arange(1, most)
    apart[:, 0], apart[:, 1:] = 1, apart[:, 1:] / mean.clip(1e-9)
    low = apart[:, 1:-1] < PERIODIC
    low[:, : int(RATE / HIGH)] = False
    low &= (power[:, 0] > 3e-3 * power[:, 0].max(initial=0))[:, None]
    row, lags, first = np.arange(count), np.arange(1, most - 1), low.argmax(1)[:, None] + 1
    near = (lags >= first) & (lags <= 1.2 * first)
    lag = np.where(near, apart[:, 1:-1], np.inf).argmin(1) + 1
    before, at, after = (apart[row, lag + step] for step in (-1, 0, 1))
    bend = (before - 2 * at + after).clip(1e-12)
    keys = 69 + 12 * np.log2(RATE / (lag + (before - after) / bend / 2) / 440)
    return np.where(low.any(1), keys, np.nan)


def pitches(wave: Wave) -> list[float]:
    """The notes of a melody as MIDI keys, in order; one that is struck again counts once."""
    power = (wave[: len(wave) // HOP * HOP].reshape(-1, HOP) ** 2).mean(1)
    runs: list[tuple[list[float], list[float]]] = [([], [])]
    for key, loud in zip(track(wave).tolist(), power.tolist(), strict=True):
        if runs[-1][0] and not abs(key - median(runs[-1][0])) < 0.5:
            runs.append(([], []))
        if not math.isnan(key):
            runs[-1][0].append(key)
            runs[-1][1].append(loud)
    notes: list[float] = []
    for keys, louds in runs:
        if len(keys) * HOP >= STEADY * RATE and max(louds) > FAINT * power.max():
            if not (notes and abs(median(keys) - notes[-1]) < 0.5):
                notes.append(median(keys))
    return notes


def onsets(wave: Wave) -> NDArray[np.float64]:
    """When notes or hits begin, (K,) seconds: where the mel bands rise together.

    A band rises above what it and its neighbours were three frames before.

    Source: Böck and Widmer 2013, "Maximum filter vibrato suppression for onset detection", section 2.
    """
    mel = spectrogram([levelled(wave)])[0].numpy()
    before = np.pad(maximum_filter1d(mel, 3, axis=0), ((0, 0), (3, 0)), constant_values=-1)[:, : mel.shape[1]]
    rise = (mel - before).clip(0).mean(0)
    least = max(RISE, SHARE * rise.max(initial=0))
    tops = np.flatnonzero((rise == maximum_filter1d(rise, 7)) & (rise > least))
    hop = len(wave) / RATE / max(1, len(rise))
    kept: list[float] = []
    for time in tops * hop:
        if not kept or time - kept[-1] > APART:
            kept.append(float(time))
    return np.array(kept)


def bursts(wave: Wave) -> NDArray[np.float64]:
    """When events begin that silence parts, (K,) seconds."""
    loud = np.flatnonzero(energy(wave) > QUIET) * FRAME / RATE
    return loud[np.diff(loud, prepend=-9.0) > GAP] if wave.any() else loud[:0]


def tempo(times: NDArray[np.float64]) -> float | None:
    """Beats a minute of events that are evenly spaced; None if there is one only."""
    return 60 * (len(times) - 1) / float(times[-1] - times[0]) if len(times) > 1 else None


def halves(wave: Wave) -> tuple[Wave, Wave]:
    """What is before and what is after the quietest moment between the first and the last that sounds."""
    level = energy(wave)
    loud = np.flatnonzero(level > QUIET)
    if len(loud) < 3:
        return wave, wave[:0]
    smooth = np.convolve(10 ** (level / 10), np.ones(16) / 16, "same")[loud[0] : loud[-1]]
    edge = min(40, len(smooth) // 4)
    quiet = smooth[edge : len(smooth) - edge]
    at = (loud[0] + edge + int(np.median(np.flatnonzero(quiet <= 1.5 * quiet.min() + 1e-5)))) * FRAME
    return wave[:at], wave[at:]


@lru_cache(maxsize=1)
def _analysis() -> Vocoder:
    return Vocoder(width=8, blocks=0)  # its analysis has no weights


@torch.no_grad()
def spectrogram(waves: Sequence[Wave]) -> Tensor:
    """(B, M, L) log-mel of waves of one length."""
    hop = _analysis().hop
    wave = torch.from_numpy(np.stack(waves))[:, None]
    return _analysis().mel(F.pad(wave, (0, -wave.shape[-1] % hop)))


def tensor(waves: Sequence[Wave]) -> Tensor:
    """What the judge hears, (B, 1, M, L / 2): waves at one level and in one window, two frames in one."""
    fitted = [np.pad(levelled(wave[:WINDOW]), (0, max(0, WINDOW - len(wave)))) for wave in waves]
    return F.avg_pool1d(spectrogram(fitted), 2)[:, None]


def namer(names: Sequence[str], model: str | Path = "audio-judge") -> tuple[Namer, dict[str, Any]]:
    """The shipped judge for these names, and its config."""
    return load_namer(model, names, tensor)


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Between the normal distributions that have the means and covariances of two sets.

    The trace of the root of the covariances' product is the sum of the singular values of the one set,
    centred, times the other.

    Args:
        x: (N, D), two rows or more.
        y: (M, D), two rows or more.
    Source: Dowson and Landau 1982, doi 10.1016/0047-259X(82)90077-X, equation 4.
    """
    x, y = x.double(), y.double()
    shift = (x.mean(0) - y.mean(0)).square().sum()
    x, y = ((z - z.mean(0)) / (len(z) - 1) ** 0.5 for z in (x, y))
    return float(shift + x.square().sum() + y.square().sum() - 2 * torch.linalg.svdvals(x @ y.T).sum())


def vocoding(waves: Sequence[Wave], vocoder: Vocoder) -> dict[str, dict[str, float]]:
    """How far waves are from themselves after a spectrogram and back, by network and by Griffin-Lim.

    Returns: of each way, the mean multi-resolution STFT distance, and the mean difference of mel bands in dB.
    """
    ways = {"vocoder": vocoder.decode, "Griffin-Lim, 32 turns": vocoder.griffin_lim}
    found = {}
    with torch.no_grad():
        for way, back in ways.items():
            far, bands = [], []
            for wave in waves:
                x = torch.from_numpy(wave[: len(wave) // vocoder.hop * vocoder.hop])[None, None]
                mel = vocoder.mel(x)
                made = back(mel)
                far.append(float(spectral_loss(x, made)))
                bands.append(float((vocoder.mel(made) - mel).abs().mean()) * SPAN * 20 / np.log(10))
            found[way] = {"STFT": float(np.mean(far)), "mel": float(np.mean(bands))}
    return found
