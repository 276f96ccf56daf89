"""The one way through: request -> text -> noise an item -> sampler, denoiser, guidance -> latents -> items.

An adapter gives the shape of the latents and turns tensors into items; nothing else differs between media.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from suite import adapter as adapters
from suite import device as devices
from suite import drive, middleware, samplers, storage
from suite.adapter import Adapter
from suite.denoiser import FEW, Denoiser
from suite.guidance import guided
from suite.latent import (
    AutoencoderLatent,
    FrameLatent,
    IdentityLatent,
    Latent,
    factors,
    region,
    sparing,
    tiled,
)
from suite.nn.vocoder import Codec
from suite.noise import Noise
from suite.paths import FLOW
from suite.request import Request
from suite.schedules import Schedule, levels, make, noised
from suite.text import Conditioning, TextEncoder
from suite.text import load as load_text

BATCH = 4096  # latent positions denoised at once; more items than fit are drawn batch after batch
WRAP = 4  # latent positions that a looping result is decoded with on each side, so that its edges meet


@dataclass(frozen=True)
class Progress:
    """One step of a run.

    Attributes:
        step: network calls done, 1 to `steps`.
        steps: network calls in the run.
        sigma: noise level of the step.
        seconds: since the run began.
        denoised: (B, C, *S) float32, the clean estimate of the items at work.
        preview: draws that estimate cheaply; call it only when it will be shown.
    """

    step: int
    steps: int
    sigma: float
    seconds: float
    denoised: Tensor = field(repr=False)
    preview: Callable[[], list[Any]] = field(repr=False)


@dataclass(frozen=True)
class Result:
    """What was drawn; the items also go by the medium's own name: `result.images`.

    Attributes:
        items: one for each item asked for.
        settings: of each item: the request that draws it alone.
        request: as asked, with every default filled in.
        plural: the medium's name for its items.
        seconds: the run took.
    """

    items: list[Any]
    settings: list[dict[str, Any]]
    request: Request
    plural: str
    seconds: float

    def __getattr__(self, name: str) -> list[Any]:
        """Gives the items under the medium's name for them."""
        if name == self.__dict__.get("plural"):
            return self.items
        raise AttributeError(f"a result has no {name!r}; it has {self.__dict__.get('plural')} and settings")


class Pipeline:
    """A model ready to draw: call it, or step through `trace`."""

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        prediction: str,
        text: TextEncoder,
        latent: Latent,
        adapter: Adapter,
        *,
        defaults: Mapping[str, Any] | None = None,
        name: str = "",
        device: torch.device | str = "cpu",
        window: int = 0,
    ) -> None:
        """Joins the parts; `load` does it from a model folder.

        Args:
            network: (x, timestep, context, context_mask) -> (B, C, *S).
            schedule: the noise levels it was trained on.
            prediction: one of PREDICTIONS.
            text: encodes prompts to the width the network reads.
            latent: between signal and latents.
            adapter: the medium.
            defaults: for fields of the request that the caller leaves out.
            name: of the model, for the settings of what it draws.
            device: where the network is.
            window: latents a side that the network sees at once, larger ones in overlapping windows; 0: all.
        """
        self.window = window
        self.network, self.schedule, self.text = network, schedule, text
        self.latent, self.adapter = latent, adapter
        self.denoiser = Denoiser(network, schedule, prediction)
        self.defaults, self.named = dict(defaults or {}), {"model": name} if name else {}
        self.device = torch.device(device)

    def request(self, prompt: str, **fields: Any) -> Request:
        """The validated request for a prompt, the model's defaults filled in."""
        return self.adapter.request(prompt=prompt, **fields).filled(self.defaults)

    def __call__(
        self, prompt: str, *, callback: Callable[[Progress], object] | None = None, **fields: Any
    ) -> Result:
        """Draws a prompt.

        Args:
            prompt: what to draw.
            callback: called after each step.
            **fields: of the medium's request.
        Raises: ValueError for a bad request (as pydantic's ValidationError is), FloatingPointError for NaN.
        """
        return self.run(self.request(prompt, **fields), callback)

    def run(self, request: Request, callback: Callable[[Progress], object] | None = None) -> Result:
        """Draws what was asked, as calling does."""
        steps = drive.Kept(self.trace(request))
        for progress in steps:
            if callback is not None:
                callback(progress)
        return steps.value

    def trace(self, request: Request) -> Generator[Progress, None, Result]:
        """Draws step by step; close the generator to cancel.

        Args:
            request: of the adapter's kind; the model's defaults fill what its maker did not set.
        Yields: one Progress for each call of the network.
        Returns: the Result, as the generator's value.
        Raises: as calling does.
        """
        started = time.monotonic()
        request = request.filled(self.defaults).model_copy(update=self.named)
        multiple = int(getattr(self.network, "factor", 1))
        shape = self.adapter.shape(request, self.latent.factor, multiple)
        grid = levels(self.schedule, request.num_inference_steps, request.spacing, shift=request.shift)
        smaller = factors(self.latent, len(shape))
        init, mask = self.adapter.read(request, [n * times for n, times in zip(shape, smaller, strict=True)])
        original = small = None
        if init is not None:
            original = self._encode(init)
            small = None if mask is None else region(mask, original)
        if request.init is not None:
            grid = middleware.start_at(grid, request.strength)
        cond, uncond = self._conditioning(request)
        top = grid[0]
        if request.guidance == "cfg_zero" and self.schedule.path is FLOW and uncond and request.init is None:
            grid = grid[1:] if len(grid) > 2 else grid  # CFG-Zero*: the state stays in the first step

        count, size = int(getattr(request, self.adapter.count)), max(1, BATCH // math.prod(shape))
        seeds = [(request.seed + i) % 2**32 for i in range(count)]
        batches = [seeds[first : first + size] for first in range(0, count, size)]
        steps_each = len(samplers.calls(request.sampler, grid, self.schedule.path))
        items: list[Any] = []
        settings = [adapters.settings(self.adapter, request, seed) for seed in seeds]
        for number, batch in enumerate(batches):
            sampler = self._sampler(request, top, grid, shape, batch, original, small)
            denoise = guided(
                self.denoiser.striding(grid) if self._strides(request) else self.denoiser,
                cond,
                uncond,
                request.guidance_scale,
                request.guidance,
                rescale=request.guidance_rescale,
                interval=(request.guidance_low, request.guidance_high),
            )
            if self.window:
                denoise = _windowed(denoise, self.window, isinstance(self.latent, FrameLatent))
            denoise = torch.inference_mode()(sparing()(denoise))
            steps = drive.Kept(drive.trace(sampler, denoise, steps=steps_each))
            for step in steps:
                done, total = number * steps_each + step.index + 1, len(batches) * steps_each
                denoised = step.denoised
                if request.loop:
                    denoised = middleware.turned(denoised, self._closed(denoised), step.index, -1)
                seconds, preview = time.monotonic() - started, self._preview(denoised)
                yield Progress(done, total, step.sigma, seconds, denoised, preview)
            decoded = self._decode(steps.value, request.loop)
            if init is not None and mask is not None and init.shape[1:] == decoded.shape[1:]:
                decoded = torch.lerp(init.to(decoded), decoded, mask.to(decoded))
            of = settings[len(items) : len(items) + len(batch)]
            items += self.adapter.finish(decoded.cpu(), request, of)
        return Result(items, settings, request, self.adapter.plural, time.monotonic() - started)

    def _strides(self, request: Request) -> bool:
        """Whether each step is one that the network has learned to take at once."""
        learned: Any = getattr(self.network, "config", {})
        told = request.sampler == "euler" and request.num_inference_steps in FEW
        return told and bool(learned.get("stride"))

    def _sampler(
        self,
        request: Request,
        top: float,
        grid: list[float],
        shape: tuple[int, ...],
        seeds: list[int],
        original: Tensor | None,
        mask: Tensor | None,
    ) -> samplers.Sampler:
        path = self.schedule.path
        noise = Noise(0, seeds, self.schedule.shared)  # item s of seed 0 is item 0 of seed s
        like = torch.zeros(len(seeds), self.latent.channels, *shape, device=self.device)
        clean = like if original is None else original.expand_as(like)
        x = noised(path, clean, top, noise(like))
        sampler = samplers.make(request.sampler, x, grid, path=path, noise=noise, eta=request.eta)
        if original is not None and mask is not None:
            sampler = middleware.keep(sampler, clean, mask.to(x))
        if request.loop:
            sampler = middleware.seamless(sampler, self._closed(x))
        return sampler

    def _closed(self, x: Tensor) -> Sequence[int]:
        """The dimensions of latents that a loop closes."""
        return range(2, x.dim())[self.adapter.closed]

    @torch.no_grad()
    def _conditioning(self, request: Request) -> tuple[Conditioning, Conditioning | None]:
        wanted = request.guidance != "none" and request.guidance_scale != 1
        prompts = [request.prompt, request.negative_prompt] if wanted else [request.prompt]
        cond = [self.text.encode([prompt]).to(self.device) for prompt in prompts]
        told = self.adapter.beside(request)
        if told is not None:
            cond[0] = cond[0].beside(told.to(self.device))
        return cond[0], cond[1] if wanted else None

    @torch.no_grad()
    def _encode(self, signal: Tensor) -> Tensor:
        return self.latent.encode(signal.to(self.device)).float()

    @torch.no_grad()
    def _decode(self, latents: Tensor, loop: bool) -> Tensor:
        smaller = factors(self.latent, latents.dim() - 2)
        wrap = [0] * len(smaller)
        for dim in self._closed(latents) if loop else ():
            wrap[dim - 2] = min(WRAP, latents.shape[dim]) if smaller[dim - 2] > 1 else 0
        sides = [cut for cut in reversed(wrap) for _ in (0, 1)]
        wide = nn.functional.pad(latents, sides, mode="circular") if any(wrap) else latents
        decoded = self.latent.decode(wide).float()
        for dim, (cut, times) in enumerate(zip(wrap, smaller, strict=True), start=2):
            decoded = decoded.narrow(dim, cut * times, latents.shape[dim] * times) if cut else decoded
        if not decoded.isfinite().all():
            raise FloatingPointError("the decoded result holds NaN or infinity; nothing was saved")
        return decoded

    def _preview(self, denoised: Tensor) -> Callable[[], list[Any]]:
        @torch.no_grad()
        def preview() -> list[Any]:
            return self.adapter.preview(self.latent.preview(denoised).float().cpu())

        return preview


def _windowed(denoise: drive.Denoise, window: int, frames: bool) -> drive.Denoise:
    """Denoises what is longer in windows that overlap by half and fade into each other, at every step.

    Of clips, the frames of a window are turned so that each has its place in a clip that comes round: motion
    goes on from window to window.

    Source: Bar-Tal et al. 2023, arXiv 2302.08113 (MultiDiffusion), equation 5.
    """

    def at(x: Tensor, sigma: float | Tensor) -> Tensor:
        if not frames:
            return tiled(lambda part: denoise(part, sigma), x, window, window // 2)
        number = torch.arange(x.shape[2]).to(x).view(-1, 1, 1).expand(x[:, :1].shape)

        def turned(part: Tensor) -> Tensor:
            start = int(part[0, -1, 0, 0, 0]) % window
            return denoise(part[:, :-1].roll(start, 2), sigma).roll(-start, 2)

        return tiled(turned, torch.cat([x, number], 1), window, window // 2)

    return at


@sparing()
def load(
    adapter: Adapter,
    model: str | Path,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
) -> Pipeline:
    """A pipeline from a model folder, ours or a published one of diffusers.

    Args:
        adapter: the medium the model must be of.
        model: a shipped model's name, a folder, a .safetensors file or a hub id.
        device: chosen by itself when None.
        dtype: of the networks; chosen by itself when None.
    Raises: ModelError if it is missing, corrupt or of another medium.
    """
    folder = storage.find(model)
    if (folder / storage.PUBLISHED).is_file():
        from suite.published import load as load_published

        return load_published(folder, adapter, *devices.choose(device, dtype), name=str(model))
    settings = storage.config(folder)
    if (settings.get("modality"), settings.get("kind")) != (adapter.name, "diffusion"):
        what = f"{settings.get('modality')} {settings.get('kind')}"
        raise storage.ModelError(f"{folder} is of kind {what!r}; it must be {adapter.name + ' diffusion'!r}")
    where, precision = devices.choose(device, dtype)
    module, _ = storage.load(folder, precision, where)
    network: Any = module
    try:
        text = load_text(settings["text"]["name"], settings["text"].get("limit")).to(where)
        if text.width != (width := network.config["context_width"]):
            told = f"reads text {width} wide; {settings['text']['name']} gives {text.width}"
            raise storage.ModelError(f"{folder} {told}")
        config, near = network.config, (folder, precision, where)
        latent = latent_of(settings.get("latent"), config["channels"], *near, frames=bool(config.get("time")))
        return Pipeline(
            network, make(**settings["schedule"]), settings["prediction"], text, latent, adapter,
            defaults=settings.get("defaults"), name=str(model), device=where,
            window=int(settings.get("window", 0)),
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise storage.ModelError(f"the config of {folder} lacks or misstates {error}") from None


def latent_of(
    name: str | None,
    channels: int,
    near: Path,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    *,
    frames: bool = False,
) -> Latent:
    """What a network denoises: the latents of an autoencoder, or the signal itself.

    Args:
        name: of the autoencoder; None for the signal.
        channels: of what the network denoises.
        near: as in `storage.find`.
        dtype: as in `storage.load`.
        device: as in `storage.load`.
        frames: whether the signal is a clip, and the autoencoder one of its frames.
    Raises: ModelError if it is missing, corrupt or of other channels.
    """
    if not name:
        return FrameLatent(IdentityLatent(channels)) if frames else IdentityLatent(channels)
    folder = storage.find(name, near=near)
    module, told = storage.load(folder, dtype, device)
    tile: int | None = 64
    if told.get("vocoder"):
        vocoder, _ = storage.load(storage.find(told["vocoder"], near=folder), dtype, device)
        module, tile = Codec(module, vocoder), None  # tiles of a waveform may differ in phase
    try:
        scale, shift = float(told["scaling_factor"]), float(told["shift_factor"])
        latent: Latent = AutoencoderLatent(module, scale, shift, tile=tile)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise storage.ModelError(f"the config of {folder} lacks or misstates {error}") from None
    if latent.channels != channels:
        raise storage.ModelError(f"{folder} has {latent.channels} channels; the network denoises {channels}")
    return FrameLatent(latent) if frames else latent
