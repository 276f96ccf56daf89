"""Clips: what may be asked of them, how they become tensors and back.

`video.load()("a rocket taking off", seed=7).videos[0].save("rocket.mp4")` draws one and saves it with its
settings.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from modalities.image import PIXELS
from suite.adapter import Adapter
from suite.request import Media, Request

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from modalities.video.save import Clip
    from suite.bench import Row
    from suite.pipeline import Pipeline

__all__ = ["VideoRequest", "adapter", "load", "restore"]


class VideoRequest(Request):
    """What may be asked of a clip."""

    width: int = Field(192, ge=64, le=1024, multiple_of=16, description="Width.", json_schema_extra=PIXELS)
    height: int = Field(192, ge=64, le=1024, multiple_of=16, description="Height.", json_schema_extra=PIXELS)
    num_frames: int | None = Field(
        None, ge=1, le=480, description="Frames to draw; if not given, those of the init clip, or 24."
    )
    fps: float = Field(
        8.0, ge=1, le=60, description="Frames drawn for a second.", json_schema_extra={"step": 0.5}
    )
    interpolate: int = Field(1, ge=1, le=8, description="Times as many frames a second, made between those.")
    image: Media = Field(None, description="Picture that the clip begins with.")
    last_image: Media = Field(None, description="Picture that the clip ends with.")
    transparent: bool = Field(False, description="Take a plain ground away, where the file can carry that.")
    sound: str = Field("", max_length=10_000, description="Prompt of a sound track, for MP4 and WebM.")
    num_videos: int = Field(1, ge=1, le=64, description="Clips to draw; each has the next seed.")
    loop: bool = Field(False, description="Make the end pass into the beginning without a seam.")
    model: str = Field("video", description="A shipped model's name, a folder, a safetensors file, a hub id.")

    def filled(self, defaults: Mapping[str, Any]) -> VideoRequest:
        """As of `Request`; a clip that starts from another is as long as that, not as the model's others."""
        return super().filled({**defaults, **({"num_frames": None} if self.init is not None else {})})


class VideoAdapter(Adapter):
    """Clips as `suite.adapter.Adapter` wants a medium."""

    name = "video"
    request: type[Request] = VideoRequest
    plural = "videos"
    count = "num_videos"
    suffixes = (".mp4", ".webm", ".gif", ".webp", ".png", ".frames", ".json")
    closed = slice(0, 1)

    def check(self, request: Request) -> None:
        """Opens the clips and pictures that are given; ValueError if one cannot be used."""
        from modalities.video.read import opened

        for name in ("init", "mask", "image", "last_image"):
            if getattr(request, name) is not None:
                opened(name, getattr(request, name))
        length(request)

    def shape(self, request: Request, factor: int, multiple: int) -> tuple[int, ...]:
        """(frames, height, width) of the latents; ValueError names the side that does not divide."""
        from modalities.image import adapter as pictures

        return (length(request), *pictures.shape(request, factor, multiple))

    def read(self, request: Request, size: Sequence[int]) -> tuple[Tensor | None, Tensor | None]:
        """What is given (1, 3, T, H, W) in [-1, 1] and where to draw (1, 1, T, H, W): each frame's middle.

        Args:
            request: a VideoRequest.
            size: (T, H, W).
        """
        import torch

        given = {name: _frames(request, name, size) for name in ("init", "image", "last_image", "mask")}
        if all(given[name] is None for name in ("init", "image", "last_image")):
            return None, None
        init, mask = torch.zeros(1, 3, *size), torch.ones(1, 1, *size)
        if given["init"] is not None:
            init = given["init"]
        if given["mask"] is not None:
            mask = given["mask"].add(1).mul(0.5).mean(1, keepdim=True)
        for name, frame in (("image", 0), ("last_image", -1)):
            if given[name] is not None:
                init[:, :, frame], mask[:, :, frame] = given[name][:, :, 0], 0
        return init, None if bool(mask.all()) else mask

    def beside(self, request: Request) -> Tensor | None:
        """Thumbnails of the first and the last frame, (1, L, D), if they are given."""
        import torch

        from modalities.image.read import on_ground, opened
        from modalities.video.picture import tokens

        both = [getattr(request, name) for name in ("image", "last_image")]
        if both == [None, None]:
            return None
        asked = zip(("image", "last_image"), both, strict=True)
        frames = [None if one is None else on_ground(opened(name, one), "white") for name, one in asked]
        return torch.from_numpy(tokens(*frames))[None]

    def finish(
        self, decoded: Tensor, request: Request, settings: Sequence[Mapping[str, Any]] = ()
    ) -> list[Any]:
        """(B, 3, T, H, W) in [-1, 1] to clips: with frames between, without a ground, with sound if asked.

        Where one of these cannot be had, a warning says so and the clip stays as the model made it.
        """
        from modalities.video.save import Clip

        asked: Any = request
        made = []
        for i, pixels in enumerate(decoded.clamp(-1, 1).add(1).mul(127.5).round().byte()):
            frames = pixels.permute(1, 2, 3, 0).contiguous().numpy()
            clip = Clip(frames, asked.fps, dict(settings[i]) if settings else None, loop=asked.loop)
            try:
                made.append(_ended(clip, asked, i))
            except (ValueError, OSError, ImportError) as error:
                self.warn(f"{error}; the clip stays as the model made it")
                made.append(clip)
        return made

    def warn(self, sentence: str) -> None:
        """Tells a user what could not be had."""
        warnings.warn(sentence, stacklevel=3)

    def preview(self, small: Tensor) -> list[Any]:
        """(B, 3, T, h, w) in [-1, 1] to pictures of some frames beside each other."""
        from modalities.video.sheet import strip

        pixels = small.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 4, 1)
        return [strip(frames) for frames in pixels.contiguous().numpy()]

    def save(self, item: Clip, path: Path, settings: Mapping[str, Any]) -> None:
        """Writes a film, a moving picture, its frames or a sprite sheet, with its settings."""
        replace(item, settings=dict(settings)).save(path)

    def restore(self, path: Path) -> dict[str, Any]:
        """The settings a clip of ours carries."""
        return restore(path)

    def examples(
        self, data: Path, seed: int, options: Mapping[str, Any]
    ) -> Callable[[int], tuple[Any, str, Any]]:
        """Training clips by number, of the packs in `data` or of a folder, and tokens of given frames."""
        from modalities.video.compose import Drawing

        told = {name: options[name] for name in ("size", "frames", "objects") if name in options}
        return Drawing(data, seed, **told)

    def sheet(self, items: Sequence[Any], path: Path) -> None:
        """Writes some frames of each clip in a row, or such pictures themselves, one below the other."""
        from modalities.image.sheet import tiled
        from modalities.video.save import Clip
        from suite.storage import replacing

        rows = [item.picture() if isinstance(item, Clip) else item for item in items]
        with replacing(path) as part:
            tiled(rows, 1, 4).save(part, "PNG")

    def bench(self, quick: bool, model: str) -> Iterator[Row]:
        """How long clips take, and what they hold of memory."""
        from modalities.video.bench import rows

        yield from rows(quick, model)

    def judge(self, argv: Sequence[str]) -> int | None:
        """Runs `suite eval video`."""
        from importlib import import_module

        code: int | None = import_module("modalities.video.judge").main(list(argv))
        return code


adapter = VideoAdapter()


def length(request: Request) -> int:
    """Frames of the clip that is asked for."""
    from modalities.video.read import opened

    asked = request.model_dump()
    if asked["num_frames"] is not None or request.init is None:
        return int(asked["num_frames"] or 24)
    frames, rate = opened("init", request.init)
    count = max(1, round(len(frames) / (rate or asked["fps"]) * asked["fps"]))
    if count > 480:
        raise ValueError(f"init has {count} frames at {asked['fps']:g} a second; give --num-frames, 1 to 480")
    return 24 if len(frames) == 1 else count


def load(
    model: str | Path = "video",
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
) -> Pipeline:
    """A pipeline that draws clips.

    Args:
        model: a shipped model's name, a model folder or a .safetensors file.
        device: chosen by itself when None.
        dtype: of the networks; chosen by itself when None.
    """
    from suite.pipeline import load

    return load(adapter, model, device, dtype)


def restore(path: str | Path) -> dict[str, Any]:
    """The request that a saved clip carries, field by field, as `VideoRequest(**fields)` takes it."""
    from modalities.video.save import restore

    return restore(Path(path))


def _frames(request: Request, name: str, size: Sequence[int]) -> Tensor | None:
    """The clip or picture of a field as (1, 3, T, H, W) in [-1, 1]; after its end its last frame stays."""
    import numpy as np
    import torch

    from modalities.video.read import on_ground, opened, resized

    source = getattr(request, name)
    if source is None:
        return None
    frames, rate = opened(name, source)
    at = np.arange(size[0]) * ((rate or 1) / request.fps)  # type: ignore[attr-defined]
    frames = frames[np.minimum(at.astype(int), len(frames) - 1)]
    frames = on_ground(resized(frames, size[2], size[1]), "black" if name == "mask" else "white")
    return torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def _ended(clip: Clip, asked: Any, number: int) -> Clip:
    """A clip with what was asked to be done to it; `number` is that of its sound track, too."""
    from modalities.audio import load as load_audio
    from modalities.video.flow import interpolated
    from modalities.video.save import transparent

    if asked.interpolate > 1 and len(clip.frames) > 1:
        frames = interpolated(clip.frames, asked.interpolate, asked.loop)
        clip = replace(clip, frames=frames, fps=clip.fps * asked.interpolate)
    if asked.transparent:
        clip = replace(clip, frames=transparent(clip.frames))
    if asked.sound:
        seconds, seed = max(0.5, clip.seconds), (asked.seed + number) % 2**32
        heard = load_audio()(asked.sound, seconds=min(60, seconds), loop=asked.loop, seed=seed).audios[0]
        clip = replace(clip, sound=(heard.samples, heard.sample_rate))
    return clip
