"""Clips on disk with the settings that drew them: films, animations, folders of frames, sprite sheets.

MP4, WebM and GIF carry the settings as JSON in their comment, WebP in XMP, PNG in a text chunk, a folder in
settings.json, a sprite sheet in its JSON. The same clip gives the same bytes.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy import ndimage

from modalities.image.save import KEY, from_xmp, xmp
from modalities.video.read import BROKEN, container, ffmpeg, on_ground, source
from modalities.video.sheet import strip
from suite.storage import beside, replacing

Array = NDArray[Any]
SUFFIXES = (".mp4", ".webm", ".gif", ".webp", ".png", ".frames", ".json")
RATES = (0.1, 1000)  # frames a second
QUICKEST = {"GIF": 50, "WEBP": 90, "PNG": 90}  # frames a second; browsers slow down more
COLOURS, SAMPLE = 255, 500_000  # of a GIF; the pixels that they are chosen by
NEAR, EDGE, PLAIN, OFF = 20, 2, 0.6, 0.15
# of a plain ground: levels by which its colour may vary; pixels that its edge is wide; the least share of the
# border that shows it; how far beside the line from it to an object's colour a mixture of both may lie
_H264 = ["-c:v", "libx264", "-crf", "18", "-preset", "medium", "-movflags", "+faststart", "-c:a", "aac"]
_VP9 = ["-c:v", "libvpx-vp9", "-crf", "18", "-b:v", "0", "-deadline", "good", "-cpu-used", "4"]
_FRAME = re.compile(r"\d{4,}\.png|settings\.json")


@dataclass(frozen=True, eq=False)
class Clip:
    """A finished clip, which carries its settings to where it is saved.

    Attributes:
        frames: (T, H, W, 3) uint8 sRGB, or (T, H, W, 4) where the ground is transparent.
        fps: frames a second.
        settings: what drew it, as `Result.settings` holds them.
        sound: samples (channels, N) float32 in [-1, 1] and their rate in Hz.
        loop: whether the first frame may follow the last.
    """

    frames: Array
    fps: float
    settings: dict[str, Any] | None = None
    sound: tuple[Array, int] | None = None
    loop: bool = False

    def __post_init__(self) -> None:
        """Refuses what no file holds."""
        told, kind = np.shape(self.frames), getattr(self.frames, "dtype", None)
        if len(told) != 4 or told[3] not in (3, 4) or not all(told) or kind != np.uint8:
            raise ValueError(f"frames are {told} of {kind}; they must be (T, H, W, 3 or 4) of uint8")
        if not RATES[0] <= self.fps <= RATES[1]:
            raise ValueError(f"fps is {self.fps}; it must be {RATES[0]} to {RATES[1]}")
        heard = np.shape(self.sound[0]) if self.sound else (1, 1)
        if len(heard) != 2 or heard[0] not in (1, 2) or not heard[1]:
            raise ValueError(f"sound is {heard}; it must be (channels, N), of 1 or 2 channels")

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.frames) / self.fps

    def save(self, path: str | Path) -> None:
        """Saves with settings, in the format that the path's ending says: one of `SUFFIXES`."""
        save(self, Path(path), self.settings or {})

    def picture(self, count: int = 8, height: int = 128) -> Image.Image:
        """Frames evenly spaced from the first to the last, side by side, RGB, `height` pixels high."""
        return strip(self.frames, count, height)


def save(clip: Clip, path: Path, settings: Mapping[str, Any], lossless: bool = True) -> None:
    """Writes a clip with its settings, beside its place, then renamed.

    MP4 and WebM carry its sound, cut to its length; MP4 has no transparency, so a clip with some is laid on
    white. A sprite sheet's PNG lies beside its JSON; a folder takes the place of one that held frames.

    Args:
        clip: what to write; its own settings do not matter.
        path: its ending says the format: one of `SUFFIXES`.
        settings: as `Result.settings` holds them, or {}.
        lossless: whether WebP loses nothing; half as large otherwise.
    Raises: ValueError for another ending, an odd size in MP4, or a folder that holds anything else.
    """
    ending = path.suffix.lower()
    if ending not in SUFFIXES:
        raise ValueError(f"output is {str(path)!r}; its ending must be one of {', '.join(SUFFIXES)}")
    height, width = clip.frames.shape[1:3]
    if ending == ".mp4" and (width % 2 or height % 2):
        least = f"{max(2, width // 2 * 2)}x{max(2, height // 2 * 2)}"
        told = f"MP4 needs an even width and height (try {least}, or .webm)"
        raise ValueError(f"output is {str(path)!r} of {width}x{height} pixels; {told}")
    if ending == ".frames":
        _folder(clip, path, settings)
    elif ending == ".json":
        with replacing(path.with_suffix(".png")) as sheet, replacing(path) as part:
            _sprites(clip, sheet, part, path.stem, settings)
    else:
        with replacing(path) as part:
            if ending in (".mp4", ".webm"):
                _film(clip, part, settings, ending[1:])
            elif ending == ".gif":
                _gif(clip, part, settings)
            else:
                _animation(clip, part, settings, "WEBP" if ending == ".webp" else "PNG", lossless)

def restore(path: Path) -> dict[str, Any]:
    """The request a saved clip carries.

    Raises: ValueError if the file is no clip or carries no settings of ours.
    """
    try:
        settings = carried(path)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except (*BROKEN, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is no clip whose settings can be read: {error}") from None
    asked = settings.get("request") if isinstance(settings, dict) else None
    if not isinstance(asked, dict):
        raise ValueError(f"{path} carries no settings of diffusion-suite")
    return asked


def carried(path: Path) -> Any:
    """What a film, an animation, a picture, a folder of frames or a sprite sheet holds as settings, or None.

    Raises: one of `BROKEN`, TypeError, AttributeError or RecursionError if it cannot be read.
    """
    if path.is_dir() or path.suffix.lower() == ".json":
        found = json.loads((path / "settings.json" if path.is_dir() else path).read_bytes())
        return found.get("meta", {}).get(KEY) or found
    if form := container(path):
        told = subprocess.run([*source(path, form), "-f", "ffmetadata", "-"], capture_output=True)
        if told.returncode:
            raise ValueError(told.stderr.decode("utf-8", "replace").strip().split("\n")[0])
        comment = re.search(r"^comment=((?:\\.|[^\\\n])*)", told.stdout.decode("utf-8"), re.I | re.M | re.S)
        return json.loads(re.sub(r"(?s)\\(.)", r"\1", comment[1])) if comment else None
    with Image.open(path) as picture:
        picture.load()
        packet = from_xmp(picture.info.get("xmp", b""))
        return json.loads(picture.info.get(KEY) or packet or picture.info.get("comment") or "null")


def transparent(frames: Array) -> Array:
    """What is before a plain ground of one colour, cut out with soft edges that have none of its colour.

    A pixel of the edge is a mixture, pixel = ground + alpha (object - ground), where `object` is the colour
    nearby that is farthest from the ground's.

    Args:
        frames: (T, H, W, 3) uint8.
    Returns: (T, H, W, 4) uint8: over the ground's colour the same but for rounding; the ground is transparent
        where it is joined to the border.
    Raises: ValueError if most of the border is not of one colour.
    """
    border = np.concatenate(
        [frames[:, side].reshape(-1, 3) for side in (0, -1)]
        + [frames[:, :, side].reshape(-1, 3) for side in (0, -1)]
    )
    ground = np.median(border, 0).astype(np.float32)
    share = (np.abs(border - ground).max(1) <= NEAR).mean()
    if share < PLAIN:
        told = f"{share:.0%} of the border is of one colour, and {PLAIN:.0%} must be"
        raise ValueError(f"the frames have no plain ground that could be made transparent: {told}")
    return np.stack([_cut_out(frame, ground) for frame in frames])


def _cut_out(frame: Array, ground: Array) -> Array:
    """(H, W, 4) uint8 of a frame (H, W, 3) before a ground of one colour (3,)."""
    away = frame - ground
    alike = np.abs(away).max(2) <= NEAR
    border = alike.copy()
    border[1:-1, 1:-1] = False
    outside = ndimage.binary_propagation(border, mask=alike)
    rows, columns = np.nonzero(ndimage.binary_dilation(outside, iterations=EDGE) & ~outside)
    colours, alpha = away.copy(), (~outside).astype(np.float32)
    if len(rows):
        steps = np.mgrid[-EDGE : EDGE + 1, -EDGE : EDGE + 1].reshape(2, -1, 1)
        padded = np.pad(away, ((EDGE, EDGE), (EDGE, EDGE), (0, 0)))
        around = padded[rows + EDGE + steps[0], columns + EDGE + steps[1]]  # (window, K, 3)
        strongest = around[(around**2).sum(2).argmax(0), np.arange(len(rows))]
        mixed, size = away[rows, columns], (strongest**2).sum(1)
        share = ((mixed * strongest).sum(1) / size).clip(0, 1)
        beside_line = ((mixed - share[:, None] * strongest) ** 2).sum(1) > OFF**2 * size
        share[beside_line] = 1
        alpha[rows, columns] = share
        colours[rows, columns] = mixed / share.clip(1 / 255)[:, None]
    far, near = ndimage.distance_transform_edt(outside, return_indices=True)
    colours[outside] = colours[tuple(near[:, outside])] if not outside.all() else 0
    made = (ground + colours).round().clip(0, 255)
    made[far > EDGE] = 0  # what lies nearer is seen when the frame is scaled
    return np.concatenate([made, (255 * alpha).round()[..., None]], 2).astype(np.uint8)


def _opaque(frames: Array) -> Array:
    return frames if frames.shape[3] == 3 else on_ground(frames, "white")


def _lasting(count: int, fps: float, tick: float) -> list[int]:
    """How many ticks each frame is shown, so that none is off its moment by more than half a tick."""
    found: list[int] = np.diff(np.rint(np.arange(count + 1) / fps / tick)).astype(int).tolist()
    return found


def _shown(clip: Clip, form: str, tick: float) -> tuple[Array, list[int]]:
    """The frames that an animation can show, and for how many ticks (of seconds) each."""
    fps = min(clip.fps, QUICKEST[form])
    middles = np.arange(max(1, round(clip.seconds * fps))) + 0.5
    frames = clip.frames[(middles * (clip.fps / fps)).astype(int)]
    return frames, _lasting(len(frames), fps, tick)


def _film(clip: Clip, part: Path, settings: Mapping[str, Any], form: str) -> None:
    """An MP4 of H.264 and AAC, or a WebM of VP9 and Opus, both of BT.709 in the limited range."""
    clear = form == "webm" and clip.frames.shape[3] == 4
    frames = np.ascontiguousarray(clip.frames if clear else _opaque(clip.frames))
    height, width, depth = frames.shape[1:]
    bt709 = "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int"
    bt709 += f",format=yuv{'a' * clear}420p,setparams=range=tv"
    bt709 += "".join(f":{name}=bt709" for name in ("colorspace", "color_primaries", "color_trc"))
    command = [ffmpeg(), "-nostdin", "-v", "error", "-y", "-f", "rawvideo"]
    command += ["-video_size", f"{width}x{height}", "-pix_fmt", "rgb24" if depth == 3 else "rgba"]
    command += ["-framerate", str(Fraction(clip.fps).limit_denominator(1001)), "-i", "pipe:0"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tags").write_text(_tags(settings), "utf-8", "replace")
        command += ["-f", "ffmetadata", "-i", f"{folder}/tags"]
        if clip.sound:
            samples, rate = clip.sound
            cut = np.clip(samples[:, : round(clip.seconds * rate)].T, -1, 1).astype("<f4")
            cut.tofile(f"{folder}/sound")
            command += ["-f", "f32le", "-ar", str(rate), "-ac", str(cut.shape[1]), "-i", f"{folder}/sound"]
        command += ["-map", "0:v", *(["-map", "2:a", "-b:a", "192k"] if clip.sound else [])]
        command += ["-map_metadata", "1", "-fflags", "+bitexact", "-vf", bt709]
        command += _H264 if form == "mp4" else [*_VP9, "-c:a", "libopus"]
        command += ["-auto-alt-ref", "0"] * clear + ["-f", form, f"file:{part}"]
        done = subprocess.run(command, input=frames.reshape(-1).data, stderr=subprocess.PIPE)
    if done.returncode:
        raise OSError(f"{form} could not be written: {done.stderr.decode('utf-8', 'replace').strip()}")


def _tags(settings: Mapping[str, Any]) -> str:
    """A title and our settings as ffmpeg reads tags from a file."""
    title = " ".join(settings.get("request", {}).get("prompt", "").split())[:100]
    tags = {"title": title, "comment": json.dumps(settings) if settings else ""}
    told = [name + "=" + re.sub(r"([=;#\\])", r"\\\1", text) for name, text in tags.items() if text]
    return "\n".join([";FFMETADATA1", *told, ""])


def _gif(clip: Clip, part: Path, settings: Mapping[str, Any]) -> None:
    """A GIF of one palette, or colours would flicker; without dither, which adds 40% and mends little."""
    frames, lasting = _shown(clip, "GIF", 0.01)
    pixels = frames.reshape(-1, frames.shape[3])
    pixels = pixels[:: len(pixels) // SAMPLE + 1]
    pixels = pixels[pixels[:, 3] >= 128, :3] if frames.shape[3] == 4 else pixels
    chosen = Image.fromarray(pixels[None] if len(pixels) else np.zeros((1, 1, 3), np.uint8))
    palette = chosen.quantize(COLOURS, Image.Quantize.MEDIANCUT, kmeans=1)
    made = []
    for frame in frames:
        indices = Image.fromarray(frame[..., :3]).quantize(palette=palette, dither=Image.Dither.NONE)
        if frames.shape[3] == 4:
            indices.paste(COLOURS, mask=Image.fromarray((frame[..., 3] < 128).astype(np.uint8) * 255))
        made.append(indices)
    clear = {"transparency": COLOURS, "disposal": 2} if frames.shape[3] == 4 else {}
    made[0].save(part, "GIF", save_all=True, append_images=made[1:], loop=0, optimize=False, **clear,
                 duration=[10 * ticks for ticks in lasting],
                 comment=json.dumps(settings) if settings else "")  # fmt: skip


def _animation(clip: Clip, part: Path, settings: Mapping[str, Any], form: str, lossless: bool) -> None:
    frames, lasting = _shown(clip, form, 0.001)
    first, *others = [Image.fromarray(frame) for frame in frames]
    told: dict[str, Any]
    if form == "PNG":
        told = {"pnginfo": _info(settings)}
    else:
        told = {"lossless": lossless, "quality": 50 if lossless else 85, "method": 2 if lossless else 4}
        told["xmp"] = xmp(json.dumps(settings)) if settings else b""
    first.save(part, form, save_all=True, append_images=others, loop=0, duration=lasting, **told)


def _info(settings: Mapping[str, Any]) -> PngInfo:
    info = PngInfo()
    if settings:
        info.add_text(KEY, json.dumps(settings))
    return info


def _folder(clip: Clip, path: Path, settings: Mapping[str, Any]) -> None:
    """0001.png, 0002.png, ... and settings.json, which tells the rate besides."""
    if path.exists() and not (path.is_dir() and all(_FRAME.fullmatch(name) for name in os.listdir(path))):
        found = "which holds other files; it must be new, or hold frames alone"
        raise ValueError(f"output is {str(path)!r}, {found}")
    part, told = beside(path), {**settings, "fps": clip.fps}
    part.mkdir()
    try:
        for number, frame in enumerate(clip.frames, 1):
            Image.fromarray(frame).save(part / f"{number:04d}.png")
        (part / "settings.json").write_text(json.dumps(told, indent=2) + "\n", "utf-8")
        if path.exists():
            shutil.rmtree(path)
        os.replace(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sprites(clip: Clip, sheet: Path, part: Path, name: str, settings: Mapping[str, Any]) -> None:
    """A grid of the frames and, as TexturePacker's JSON hash, where each is and for how many milliseconds."""
    count, height, width, depth = clip.frames.shape
    columns = math.ceil(math.sqrt(count * height / width))
    rows = math.ceil(count / columns)
    grid = np.zeros((rows * columns, height, width, depth), np.uint8)
    grid[:count] = clip.frames
    grid = grid.reshape(rows, columns, height, width, depth).swapaxes(1, 2)
    whole = Image.fromarray(grid.reshape(rows * height, columns * width, depth))
    whole.save(sheet, "PNG", pnginfo=_info(settings))
    size, frames = {"w": width, "h": height}, {}
    for number, milliseconds in enumerate(_lasting(count, clip.fps, 0.001)):
        row, column = divmod(number, columns)
        frames[f"{name}-{number + 1:04d}.png"] = {
            "frame": {"x": column * width, "y": row * height, **size},
            "rotated": False,
            "trimmed": False,
            "spriteSourceSize": {"x": 0, "y": 0, **size},
            "sourceSize": size,
            "duration": milliseconds,
        }
    meta = {
        "app": "diffusion-suite",
        "version": "1.0",
        "image": f"{name}.png",
        "format": "RGBA8888" if depth == 4 else "RGB888",
        "size": {"w": whole.width, "h": whole.height},
        "scale": "1",
        "frameTags": [{"name": name, "from": 0, "to": count - 1, "direction": "forward"}],
        **({KEY: dict(settings)} if settings else {}),
    }
    told = {"frames": frames, "animations": {name: list(frames)}, "meta": meta}
    part.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
