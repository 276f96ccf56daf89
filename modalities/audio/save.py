"""Sounds on disk with the settings that drew them: WAV, FLAC, Ogg Vorbis, MP3.

The settings are JSON in the file's comment, which any player shows: a RIFF INFO chunk in WAV, a Vorbis
comment in FLAC and Ogg, an ID3 frame in MP3. The same sound gives the same bytes, but for Ogg, whose streams
are numbered at random.
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import soundfile

from modalities.audio.loudness import Wave, limited, loudness, true_peak
from modalities.audio.sheet import HEIGHT, WIDTH, spectrogram
from suite.storage import replacing

if TYPE_CHECKING:
    from PIL.Image import Image

RATES = (4_000, 192_000)  # Hz; below, loudness is not defined; beyond, libvorbis crashes
BITS = ("16", "24", "float")
TRIES, ENOUGH = 8, 0.2  # to code a sound so that it holds when decoded; the LU that do not matter
_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}
_LAME = 0.95  # what LAME multiplies sounds by at a constant bit rate
_LOSSY = {  # nearly the best there is: some 160 kbit/s
    "OGG": {"subtype": "VORBIS", "compression_level": 0.1},
    "MP3": {"subtype": "MPEG_LAYER_III", "compression_level": 0.0, "bitrate_mode": "CONSTANT"},
}


@dataclass(frozen=True, eq=False)
class Sound:
    """A finished sound, which carries its settings to where it is saved.

    Attributes:
        samples: (channels, N) float32 in [-1, 1].
        sample_rate: Hz.
        settings: what drew it, as `Result.settings` holds them.
    """

    samples: Wave
    sample_rate: int
    settings: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuses what no file holds."""
        told, rate = np.shape(self.samples), self.sample_rate
        if len(told) != 2 or told[0] not in (1, 2) or not told[1]:
            raise ValueError(f"samples are {told}; they must be (channels, N), of 1 or 2 channels")
        if not RATES[0] <= rate <= RATES[1]:
            raise ValueError(f"sample_rate is {rate}; it must be {RATES[0]} to {RATES[1]}")

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.samples.shape[1] / self.sample_rate

    def save(self, path: str | Path, bits: str | None = None) -> None:
        """Saves with settings; `bits` of a sample as asked there when None."""
        save(self, Path(path), self.settings or {}, bits)

    def picture(self, width: int = WIDTH, height: int = HEIGHT) -> Image:
        """Its spectrogram, RGB."""
        import torch

        from modalities.audio.read import mono

        analysis = _analysis()
        wave = torch.from_numpy(mono(self.samples, self.sample_rate, analysis.sample_rate))
        wave = torch.nn.functional.pad(wave, (0, -len(wave) % analysis.hop))
        with torch.no_grad():
            return spectrogram(analysis.mel(wave[None, None])[0].numpy(), width, height)


def save(sound: Sound, path: Path, settings: Mapping[str, Any], bits: str | None = None) -> None:
    """Writes a sound with its settings, beside its place, then renamed.

    Peaks beyond full scale are limited, but in WAV files of floats; in Ogg and MP3 so that what is decoded
    again stays under the ceiling that was asked for.

    Args:
        sound: what to write; its own settings do not matter.
        path: its ending says the format: .wav, .flac, .ogg or .mp3.
        settings: as `Result.settings` holds them, or {}.
        bits: of a sample in WAV and FLAC: 16, 24, float (24 in FLAC); as in the settings, or 16, when None.
    Raises: ValueError for another ending, other bits, or a sound that the format cannot hold.
    """
    form = _FORMATS.get(path.suffix.lower())
    if form is None:
        raise ValueError(f"output is {str(path)!r}; its ending must be one of {', '.join(_FORMATS)}")
    asked = settings.get("request", {})
    bits = bits or asked.get("bits", "16")
    if bits not in BITS:
        raise ValueError(f"bits is {bits!r}; it must be one of {', '.join(BITS)}")
    tags = {}
    if asked:
        tags = {"title": " ".join(asked["prompt"].split())[:100], "comment": json.dumps(settings)}
    ceiling = asked.get("ceiling", 0.0) if asked.get("normalize") else 0.0
    samples, rate = sound.samples, sound.sample_rate
    if np.abs(samples).max() > 1 and (form, bits) != ("WAV", "float"):
        samples = limited(samples, rate, 0)
    try:
        if form == "WAV":
            made = _wav(samples, rate, bits, tags)
        elif form == "FLAC":
            whole = _whole(samples, 16 if bits == "16" else 24)
            made = _coded(whole, rate, form, tags, subtype="PCM_16" if bits == "16" else "PCM_24")
        else:
            made = _lossy(samples, rate, form, tags, ceiling)
    except soundfile.LibsndfileError as error:
        told = f"it cannot hold {rate} samples a second ({error.error_string})"
        raise ValueError(f"output is {str(path)!r}; {told}") from None
    with replacing(path) as part:
        part.write_bytes(made)


def restore(path: Path) -> dict[str, Any]:
    """The request a saved sound carries.

    Raises: ValueError if the file is no sound or carries no settings of ours.
    """
    try:
        with open(path, "rb") as file:
            comment = _comment(file)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except (OSError, ValueError, TypeError, soundfile.LibsndfileError) as error:
        why = getattr(error, "error_string", error)
        raise ValueError(f"{path} is no sound whose settings can be read: {why}") from None
    try:
        asked = json.loads(comment)["request"]
    except (ValueError, KeyError, TypeError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise ValueError(f"{path} carries no settings of diffusion-suite")
    return asked


def _lossy(samples: Wave, rate: int, form: str, tags: Mapping[str, str], ceiling: float) -> bytes:
    """An Ogg or MP3 file that decodes to the sound's loudness, with its peaks under the ceiling.

    Coding lifts peaks, and MP3 drops the highest tones: that is made good by limiting and by gain beforehand.
    """
    wanted, gain, limit = loudness(samples, rate), 0.0, ceiling
    least, best = math.inf, b""
    for _ in range(TRIES):
        frames = limited(samples * 10 ** (gain / 20), rate, limit).T / (_LAME if form == "MP3" else 1)
        made = _coded(frames, rate, form, tags, **_LOSSY[form])
        decoded, _ = soundfile.read(io.BytesIO(made), dtype="float32", always_2d=True)
        over = true_peak(decoded.T, rate) - ceiling
        if over > 0:
            limit -= over + ENOUGH / 4
            continue
        lost = wanted - loudness(decoded.T, rate)
        if not lost < least:
            break
        least, best, gain = lost, made, gain + lost
        if lost <= ENOUGH:
            break
    return best or made


def _coded(frames: Wave, rate: int, form: str, tags: Mapping[str, str], **options: Any) -> bytes:
    """A file of frames (N, C) as libsndfile writes it, with tags."""
    made = io.BytesIO()
    with soundfile.SoundFile(made, "w", rate, frames.shape[1], format=form, **options) as file:
        for name, text in tags.items() if form != "MP3" else ():
            setattr(file, name, text)
        for start in range(0, len(frames), 1 << 16):  # at once, a minute overruns libvorbis' stack
            file.write(frames[start : start + (1 << 16)])
    return (_id3(tags) if form == "MP3" and tags else b"") + made.getvalue()


def _whole(samples: Wave, bits: int) -> Wave:
    """(C, N) floats to frames (N, C) int32 or int16 whose upper `bits` are the nearest number."""
    half = 1 << (bits - 1)
    whole = np.rint(samples.T.astype(np.float64) * half).clip(-half, half - 1).astype(np.int32)
    return whole.astype(np.int16) if bits == 16 else whole << 32 - bits


def _wav(samples: Wave, rate: int, bits: str, tags: Mapping[str, str]) -> bytes:
    """A WAV file; libsndfile's would hold the time and drop a long comment."""
    channels, length = samples.shape
    if bits == "float":
        kind, size, data = 3, 4, samples.T.astype("<f4").tobytes()
    else:
        kind, size = 1, int(bits) // 8
        whole = np.ascontiguousarray(_whole(samples, int(bits)).astype(f"<i{2 if size == 2 else 4}"))
        data = whole.view(np.uint8).reshape(length * channels, -1)[:, -size:].tobytes()
    told = struct.pack("<HHIIHH", kind, channels, rate, rate * channels * size, channels * size, 8 * size)
    body = b"WAVE" + _chunk(b"fmt ", told + (b"\0\0" if kind == 3 else b""))
    if kind == 3:
        body += _chunk(b"fact", struct.pack("<I", length))
    body += _chunk(b"data", data)
    if tags:
        names = {"title": b"INAM", "comment": b"ICMT"}
        info = [_chunk(names[name], text.encode() + b"\0") for name, text in tags.items()]
        body += _chunk(b"LIST", b"INFO" + b"".join(info))
    return _chunk(b"RIFF", body)


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _chunks(file: BinaryIO, end: int) -> Any:
    """Names and sizes of a RIFF file's chunks from here to `end`; the file stands at the content of each."""
    while (start := file.tell()) + 8 <= end:
        name, size = struct.unpack("<4sI", file.read(8))
        yield name, min(size, end - start - 8)
        file.seek(start + 8 + size + size % 2)


def _comment(file: BinaryIO) -> str:
    """The comment of a sound file; empty if it has none."""
    head, end = file.read(12), file.seek(0, io.SEEK_END)
    file.seek(0)
    if head[:4] + head[8:] != b"RIFFWAVE":
        with soundfile.SoundFile(file) as sound:
            return str(sound.comment)
    file.seek(12)
    for name, size in _chunks(file, end):
        if name == b"LIST" and file.read(4) == b"INFO":
            for part, length in _chunks(file, file.tell() + size - 4):
                if part == b"ICMT":
                    return file.read(length).rstrip(b"\0").decode("utf-8", "replace")
    return ""


def _id3(tags: Mapping[str, str]) -> bytes:
    """An ID3 tag of version 2.3 in UTF-16; libsndfile's holds Latin letters alone."""
    frames = b""
    for name, text in tags.items():
        coded = b"\x01" + (b"eng" + "\ufeff\0".encode("utf-16-le") if name == "comment" else b"")
        coded += ("\ufeff" + text).encode("utf-16-le")
        frames += (b"COMM" if name == "comment" else b"TIT2") + struct.pack(">IH", len(coded), 0) + coded
    size = bytes(len(frames) >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + frames


@lru_cache
def _analysis() -> Any:
    from suite.nn.vocoder import Vocoder

    return Vocoder(width=8, blocks=0)
