"""Videos from disk as a user hands them over: whole, upright, evenly timed, with what is transparent.

Every clip that is not of the packs comes in through here; so does a picture, which is a clip of one frame.

Shapes: T frames, H rows, W columns; the channels are sRGB and, where there is a fourth, how opaque it is.
"""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from threading import Timer
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageOps

from modalities.image import read as pictures

Array = NDArray[Any]
MOST, ROOM = 3_000, 2_000_000_000  # frames, and their bytes as RGBA
WAIT = 300  # seconds that ffmpeg may take
QUICK, SHOWN = 0.011, 0.1  # seconds: browsers show for SHOWN what asks for less than QUICK
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")  # pages of a TIFF are no frames
BROKEN = (*pictures.BROKEN, IndexError, KeyError, struct.error, subprocess.TimeoutExpired)
STILL = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")  # pictures in a box of MP4's kind


def opened(name: str, source: Any) -> tuple[Array, float]:
    """The clip, loaded whole.

    Args:
        name: what the clip is for, as an error calls it.
        source: a path of a film, an animation, a picture or a folder of pictures; a PIL image; a `Clip`.

    Returns: frames (T, H, W, 4) uint8, upright, with square pixels; and frames a second, 0 where none are
        told, as of pictures. Uneven times become even ones.

    Raises: ValueError, in one sentence, if it cannot be read or is too long.
    """
    from modalities.video.save import Clip

    if isinstance(source, Clip):
        return np.stack([_rgba(Image.fromarray(frame)) for frame in source.frames]), source.fps
    if isinstance(source, Image.Image):
        return _rgba(pictures.opened(name, source))[None], 0.0
    if not isinstance(source, (str, Path)):
        kind = type(source).__name__
        raise ValueError(f"{name} is a {kind}; it must be a path, a Clip or a PIL image")
    path, shown = os.fspath(source), f"{name} is {os.fspath(source)!r}"
    if path.startswith("<") and not os.path.exists(path):  # the request's label
        told = f"was a video in memory, which settings cannot carry; give it with --{name} FILE"
        raise ValueError(f"{name} {told}")
    if not os.path.exists(path):
        raise ValueError(f"{shown}; there is no such file")
    try:
        if os.path.isdir(path):
            return _folder(name, shown, Path(path))
        if not os.path.isfile(path):
            raise OSError("it is no file")
        if form := container(path):
            return _film(shown, path, form)
        with Image.open(path) as picture:
            if getattr(picture, "n_frames", 1) > 1 and picture.format in ANIMATED:
                return _animation(shown, picture)
        return _rgba(pictures.opened(name, path))[None], 0.0
    except BROKEN as error:
        if str(error).startswith(f"{name} is "):
            raise
        raise ValueError(f"{shown}; it must be a video or a picture that can be read ({error})") from None


def resized(frames: Array, width: int, height: int) -> Array:
    """Frames (T, height, width, C) uint8: the middle of these, of that shape, at that size."""
    size, filtered = (width, height), Image.Resampling.LANCZOS
    return np.stack([np.asarray(ImageOps.fit(Image.fromarray(frame), size, filtered)) for frame in frames])


def on_ground(frames: Array, colour: str) -> Array:
    """Frames (T, H, W, 4) uint8 over a ground of this colour: (T, H, W, 3) uint8."""
    ground = np.array(ImageColor.getrgb(colour)[:3], np.uint16)
    made = np.empty((*frames.shape[:3], 3), np.uint8)
    for frame, laid in zip(frames, made, strict=True):
        cover = frame[..., 3:].astype(np.uint16)
        laid[:] = (frame[..., :3] * cover + ground * (255 - cover) + 127) // 255
    return made


def ffmpeg() -> str:
    """Where ffmpeg is.

    Raises: ImportError where there is none for this machine.
    """
    from imageio_ffmpeg import get_ffmpeg_exe

    try:
        return str(get_ffmpeg_exe())
    except RuntimeError:
        needs = "install ffmpeg, or pip install imageio-ffmpeg where it has one for this machine"
        raise ImportError(f"reading and writing MP4 and WebM needs ffmpeg: {needs}") from None


def container(path: str | Path) -> str | None:
    """The container a file begins as, by ffmpeg's name, so that it never guesses nor follows a playlist.

    Raises: OSError if the file cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(12)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip") and head[8:12] not in STILL:
        return "mov"
    return "matroska" if head.startswith(b"\x1a\x45\xdf\xa3") else None


def source(path: str | Path, form: str, *options: str) -> list[str]:
    """The beginning of a command that reads a film, and nothing beside it."""
    quiet = [ffmpeg(), "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe"]
    return [*quiet, *options, "-f", form, "-i", f"file:{path}"]


def even(times: Array, end: float, tick: float) -> tuple[float, Array]:
    """An even rate for frames that begin at these times, and which frame is shown at each of its moments.

    Args:
        times: (T,) seconds, ascending.
        end: seconds, of the last frame.
        tick: seconds, to which the times are rounded.
    Returns: frames a second, exactly what the rounded times are of where they are of one; and (M,) int, where
        M is `MOST` + 1 if there are more.
    """
    since, whole, lasting = times - times[0], end - times[0], np.diff([*times, end])
    several = np.maximum(1, np.rint(lasting / np.median(lasting))).sum()  # where some last for two or more
    means = (len(times) / whole, float(several) / whole)
    for rate in (guess for mean in means for guess in (round(mean), round(mean * 1.001) / 1.001, mean)):
        if rate and np.abs(since - np.rint(since * rate) / rate).max() <= tick:
            break
    count = max(1, min(round(whole * rate), MOST + 1))  # a broken file's may last for years
    moments = times[0] + (np.arange(count) + 0.5) / rate
    return float(rate), np.searchsorted(times, moments, side="right") - 1


def _rgba(picture: Image.Image) -> Array:
    return np.asarray(picture.convert("RGBA"))


def _fits(shown: str, count: int, width: int, height: int) -> None:
    if count > MOST:
        raise ValueError(f"{shown}, which has more than {MOST} frames; cut it, for that is the most")
    if count * width * height * 4 > ROOM:
        told = f"{count} frames of {width}x{height}, which take {count * width * height * 4 / 1e9:.1f} GB"
        raise ValueError(f"{shown} with {told}; cut it or scale it down, for {ROOM / 1e9:g} GB is the most")


def _folder(name: str, shown: str, path: Path) -> tuple[Array, float]:
    """A folder's pictures in the order of the numbers in their names, at settings.json's rate."""
    endings = {ending for ending, form in Image.registered_extensions().items() if form in Image.OPEN}
    found = [place for place in path.iterdir() if place.suffix.lower() in endings]
    found.sort(key=lambda place: [int(part) if part.isdigit() else part for part in _parts(place.name)])
    if not found:
        raise ValueError(f"{shown}; it must be a folder with pictures")
    rate = 0.0
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        rate = float(json.loads((path / "settings.json").read_bytes())["fps"])
    with Image.open(found[0]) as first:
        _fits(shown, len(found), *first.size)
    frames: list[Array] = []
    for place in found:
        frames.append(_rgba(pictures.opened(name, str(place))))
        if frames[0].shape != frames[-1].shape:
            first, other = (f"{frame.shape[1]}x{frame.shape[0]}" for frame in (frames[0], frames[-1]))
            told = f"its pictures must be of one size, but {place.name} is {other}, not {first}"
            raise ValueError(f"{shown}; {told}")
    return np.stack(frames), rate if 0 < rate < 1000 and len(frames) > 1 else 0.0


def _parts(text: str) -> list[str]:
    """A text's digits and what is between them, in turn: it begins with the latter, if only with nothing."""
    return re.split(r"([0-9]+)", text)


def _animation(shown: str, picture: Image.Image) -> tuple[Array, float]:
    """The frames of a GIF, an animated WebP or APNG."""
    begin, count = int(getattr(picture, "default_image", False)), picture.n_frames
    _fits(shown, count, *picture.size)
    frames, lasting = [], []
    for number in range(begin, count):
        picture.seek(number)
        frames.append(_rgba(picture))
        seconds = picture.info.get("duration", 0) / 1000
        lasting.append(seconds if seconds >= QUICK else SHOWN)
    if len(frames) == 1:
        return np.stack(frames), 0.0
    ends = np.cumsum(lasting)
    rate, shown_at = even(ends - lasting, ends[-1], 0.01 if picture.format == "GIF" else 0.001)
    _fits(shown, len(shown_at), *picture.size)
    return np.stack([frames[number] for number in shown_at]), rate


def _film(shown: str, path: str, form: str) -> tuple[Array, float]:
    """The frames of an MP4, MOV, WebM or MKV."""
    listed = ["-map", "0:V:0", "-c", "copy", "-frames:v", str(MOST + 1), "-f", "framecrc", "-"]
    told = subprocess.run([*source(path, form), *listed], capture_output=True, timeout=WAIT)
    about = dict(re.findall(r"^#(\w+) 0: (.*)", told.stdout.decode("utf-8", "replace"), re.MULTILINE))
    rows = re.findall(rb"^0, *-?\d+, *(-?\d+), *(\d+),", told.stdout, re.MULTILINE)
    packets = np.array(rows, np.int64)  # (T, 2): when each is shown, and how long
    if not len(packets):
        why = "it holds no film" if b"matches no streams" in told.stderr else _why(told.stderr)
        raise ValueError(why)
    if re.search(rb"partial file|ended prematurely", told.stderr):
        raise ValueError("it breaks off")
    tick = float(Fraction(about["tb"]))
    width, height = map(int, about["dimensions"].split("x"))
    packets = packets[packets[:, 0].argsort()]
    times = np.unique(packets[:, 0] * tick)
    last = float(packets[-1, 1] * tick) or (np.median(np.diff(times)) if len(times) > 1 else 1.0)
    rate, shown_at = even(times, times[-1] + last, 1.01 * tick)
    _fits(shown, max(len(times), len(shown_at)), width, height)
    shape = ["scale=round(iw*sar):ih:flags=lanczos+accurate_rnd+full_chroma_int", "setsar=1"]
    if len(shown_at) != len(times) or (shown_at != np.arange(len(times))).any():
        shape.insert(0, f"fps={rate!r}")
    decoder = {"vp8": ["-c:v", "libvpx"], "vp9": ["-c:v", "libvpx-vp9"]}  # ffmpeg's own leave out alpha
    command = [*source(path, form, "-xerror", *decoder.get(about["codec_id"], [])), "-map", "0:V:0"]
    command += ["-vf", ",".join(shape), "-fps_mode", "passthrough", "-c:v", "pam", "-pix_fmt", "rgba"]
    frames = _decoded(shown, [*command, "-f", "image2pipe", "-"], len(shown_at))
    return frames, rate if len(times) > 1 else 0.0


def _decoded(shown: str, command: list[str], count: int) -> Array:
    """The frames that a command writes as PAM pictures, `count` of them or a few less."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
        assert run.stdout
        watch = Timer(WAIT, run.kill)
        watch.start()
        try:
            frames, number = np.empty((0,), np.uint8), 0
            while number <= count and (size := _size(run.stdout)):
                if not number:
                    _fits(shown, count, *size)
                    frames = np.empty((count + 1, size[1], size[0], 4), np.uint8)  # all are of one size
                number += run.stdout.readinto(frames[number].reshape(-1).data) == frames[0].size
            broken = number <= count and run.wait()
        finally:
            watch.cancel()
            run.kill()
    if not number or broken:
        raise ValueError("it breaks off" if number else "its frames cannot be decoded")
    return frames[:number]


def _size(stream: IO[bytes]) -> tuple[int, int] | None:
    """Width and height that a PAM picture's head tells; the stream stands at its pixels then."""
    told: dict[bytes, bytes] = {}
    while (line := stream.readline()) and line != b"ENDHDR\n":
        key, _, value = line.strip().partition(b" ")
        told[key] = value
    return (int(told[b"WIDTH"]), int(told[b"HEIGHT"])) if line else None


def _why(told: bytes) -> str:
    """The first thing that ffmpeg says is wrong."""
    line = next(iter(told.decode("utf-8", "replace").splitlines()), "it holds no frames")
    return re.sub(r"^(\[.*?\] )+|file:.*?: |\.$", "", line)
