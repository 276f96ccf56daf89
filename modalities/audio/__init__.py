"""Sounds: what may be asked of them, how they become tensors and back.

`audio.load()("a dog barking", seed=7).audios[0].save("dog.wav")` draws one and saves it with its settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from suite.adapter import Adapter
from suite.request import Request

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from modalities.audio.save import Sound
    from suite.pipeline import Pipeline

__all__ = ["RATE", "AudioRequest", "adapter", "load", "restore"]

RATE = 24_000  # samples a second of every model of ours
WINDOW = 122_880  # samples the models were trained on; a shorter sound is drawn before silence
FADE = 240  # samples over which a region, a cut end and a loop are blended
DEFAULT = 5.0  # seconds of a sound whose length nothing else says


class AudioRequest(Request):
    """What may be asked of a sound."""

    seconds: float | None = Field(
        None, ge=0.5, le=60, description="Length; if not given, that of the init file, or 5.",
        json_schema_extra={"unit": "s", "step": 0.1},
    )  # fmt: skip
    channels: int = Field(1, ge=1, le=2, description="1 is mono; 2 is stereo whose mean is the mono sound.")
    num_audios: int = Field(1, ge=1, le=256, description="Sounds to draw; each has the next seed.")
    mask: str = Field("", max_length=1000, description="Seconds of the init file to redraw: 1-2.5, or 4-.")
    normalize: bool = Field(True, description="Bring the sound to `loudness` below `ceiling`.")
    loudness: float = Field(
        -18.0, ge=-40, le=-8, description="Integrated loudness.",
        json_schema_extra={"unit": "LUFS", "step": 0.5},
    )  # fmt: skip
    ceiling: float = Field(
        -1.0, ge=-9, le=0, description="Highest true peak.", json_schema_extra={"unit": "dBTP", "step": 0.1}
    )
    bits: Literal["16", "24", "float"] = Field("16", description="Of a sample in WAV and FLAC files.")
    model: str = Field("audio", description="A shipped model's name, a folder, a safetensors file, a hub id.")

    def filled(self, defaults: Mapping[str, Any]) -> AudioRequest:
        """As of `Request`; what is redrawn of named regions starts from noise, unless told otherwise."""
        return super().filled({**defaults, **({"strength": 1.0} if self.mask else {})})


class AudioAdapter(Adapter):
    """Sounds as `suite.adapter.Adapter` wants a medium."""

    name = "audio"
    request: type[Request] = AudioRequest
    plural = "audios"
    count = "num_audios"
    suffixes = (".wav", ".flac", ".ogg", ".mp3")

    def check(self, request: Request) -> None:
        """Opens the init file and reads the regions; ValueError if one cannot be used."""
        self.read(request, (length(request),))

    def shape(self, request: Request, factor: int, multiple: int) -> tuple[int, ...]:
        """(length,) of the latents: of the whole window, if the sound is shorter and no loop."""
        wanted, unit = length(request), factor * multiple
        wanted = wanted + FADE if request.loop else max(wanted, WINDOW)
        return (math.ceil(wanted / unit) * multiple,)

    def read(self, request: Request, size: Sequence[int]) -> tuple[Tensor | None, Tensor | None]:
        """The init (1, 1, N), silent after its end, and where to draw (1, 1, N): not after the sound's end.

        Args:
            request: an AudioRequest.
            size: (N,) samples, as many as the latents stand for.
        """
        import torch

        from modalities.audio.read import spans

        wave, known, end = torch.zeros(*size), 0, length(request)
        if request.init is not None:
            init = torch.from_numpy(_levelled(_init(request)))[:end]
            wave[: len(init)], known = init, len(init)
        whole = request.mask == "" or request.init is None
        draw = torch.zeros(*size)
        for start, stop in [(0.0, end / RATE)] if whole else spans(request.mask, end / RATE):
            draw[round(start * RATE) : round(stop * RATE)] = 1
        draw[known:end] = 1
        if request.loop:
            draw[end:] = draw[end - 1]
        if bool(draw.all()):
            return (None if request.init is None else wave[None, None]), None
        soft = torch.nn.functional.avg_pool1d(1 - draw[None, None], 2 * FADE + 1, 1, FADE)
        return wave[None, None], (1 - 2 * soft).clamp(min=0)  # the ramps lie in what is drawn

    def finish(
        self, decoded: Tensor, request: Request, settings: Sequence[Mapping[str, Any]] = ()
    ) -> list[Any]:
        """(B, 1, N) in [-1, 1] to sounds of the length, the channels and the loudness that were asked for."""
        import numpy as np

        from modalities.audio.loudness import normalized, widened
        from modalities.audio.save import Sound

        sounds = []
        for i, wave in enumerate(decoded[:, 0].numpy().astype(np.float32)):
            made = _ended(wave, length(request), request.loop)
            samples = widened(made, RATE, request.loop) if request.channels == 2 else made[None]
            if request.normalize:
                samples = normalized(samples, RATE, request.loudness, request.ceiling, request.loop)
            else:
                samples = samples / max(1.0, float(np.abs(samples).max()))
            sounds.append(Sound(samples, RATE, dict(settings[i]) if settings else None))
        return sounds

    def preview(self, small: Tensor) -> list[Any]:
        """(B, M, L) in [-1, 1] to pictures of spectrograms."""
        from modalities.audio.sheet import spectrogram

        return [spectrogram(mel) for mel in small.float().numpy()]

    def save(self, item: Sound, path: Path, settings: Mapping[str, Any]) -> None:
        """Writes a WAV, FLAC, Ogg or MP3 file with its settings."""
        from modalities.audio.save import save

        save(item, path, settings)

    def restore(self, path: Path) -> dict[str, Any]:
        """The settings a sound of ours carries."""
        return restore(path)

    def examples(self, data: Path, seed: int, options: Mapping[str, Any]) -> Callable[[int], tuple[Any, str]]:
        """Training sounds by number: composed from the packs in `data`, or those of an audiofolder.

        `form = "mel"` in the recipe's `[data]` asks for their spectrograms (M, L), for an autoencoder.
        """
        from modalities.audio.compose import Drawing

        draw = Drawing(data, seed)
        return Spectrograms(draw) if options.get("form") == "mel" else draw

    def sheet(self, items: Sequence[Any], path: Path) -> None:
        """Writes the spectrograms of sounds, or such pictures themselves, side by side."""
        from modalities.audio.save import Sound
        from modalities.audio.sheet import tiled
        from suite.storage import replacing

        pictures = [item.picture() if isinstance(item, Sound) else item for item in items]
        with replacing(path) as part:
            tiled(pictures).save(part, "PNG")

    def judge(self, argv: Sequence[str]) -> int | None:
        """Runs `suite eval audio`."""
        from importlib import import_module

        code: int | None = import_module("modalities.audio.judge").main(list(argv))
        return code


adapter = AudioAdapter()


class Spectrograms:
    """Training sounds by number as log-mel spectrograms."""

    def __init__(self, draw: Callable[[int], tuple[Any, str]]) -> None:
        """Takes what gives int16 waves (1, N) and captions."""
        from suite.nn.vocoder import Vocoder

        self.draw, self.analysis = draw, Vocoder(width=8, blocks=0)

    def __call__(self, number: int) -> tuple[Any, str]:
        """The spectrogram (M, L) float16 in about [-1, 1], and the caption."""
        import torch

        wave, caption = self.draw(number)
        with torch.no_grad():
            mel = self.analysis.mel(torch.from_numpy(wave).float()[None] / 32767)
        return mel[0].half().numpy(), caption


def length(request: Request) -> int:
    """Samples of the sound that is asked for."""
    seconds: float | None = request.seconds  # type: ignore[attr-defined]
    if seconds is None and request.init is None:
        seconds = DEFAULT
    if seconds is not None:
        return round(seconds * RATE)
    known = len(_init(request))
    low, high = 0.5, 60
    if not low <= known / RATE <= high:
        raise ValueError(f"init lasts {known / RATE:.2f} s; give --seconds, {low} to {high}")
    return known


def load(
    model: str | Path = "audio",
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
) -> Pipeline:
    """A pipeline that draws sounds.

    Args:
        model: a shipped model's name, a model folder or a .safetensors file.
        device: chosen by itself when None.
        dtype: of the networks; chosen by itself when None.
    """
    from suite.pipeline import load

    return load(adapter, model, device, dtype)


def restore(path: str | Path) -> dict[str, Any]:
    """The request that a saved sound carries, field by field, as `AudioRequest(**fields)` takes it."""
    from modalities.audio.save import restore

    return restore(Path(path))


def _init(request: Request) -> Any:
    """The init file's samples (N,) at RATE, mono."""
    from modalities.audio.read import mono, opened

    return mono(*opened("init", request.init), RATE)


def _levelled(wave: Any) -> Any:
    """The wave at the loudness of training: an RMS of -20 dB where it sounds, no sample above 0.95."""
    import numpy as np

    heard = np.abs(wave) > 0.01 * np.abs(wave).max()
    gain = 0.1 / float(np.sqrt(np.square(wave[heard]).mean()))
    return wave * min(gain, 0.95 / float(np.abs(wave).max()))


def _ended(wave: Any, samples: int, loop: bool) -> Any:
    """The wave cut to `samples`, faded at its end; of a loop, what is beyond blends into the beginning."""
    import numpy as np

    made = wave[:samples].copy()
    if not loop:
        fade = min(FADE, samples)
        made[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
        return made
    beyond = wave[samples:][:samples]
    rising = np.linspace(0, 1, len(beyond), dtype=np.float32)
    made[: len(beyond)] = beyond * (1 - rising) + made[: len(beyond)] * rising
    return made
