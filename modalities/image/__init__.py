"""Pictures: what may be asked of them, how they become tensors and back.

`image.load()("a red apple", seed=7).images[0].save("apple.png")` draws one and saves it with its settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from suite.adapter import Adapter
from suite.request import Request

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from modalities.image.compose import Drawing
    from suite.pipeline import Pipeline

__all__ = ["ImageRequest", "adapter", "load", "restore"]


PIXELS: dict[str, Any] = {"unit": "px"}


class ImageRequest(Request):
    """What may be asked of a picture."""

    width: int = Field(256, ge=64, le=2048, multiple_of=16, description="Width.", json_schema_extra=PIXELS)
    height: int = Field(256, ge=64, le=2048, multiple_of=16, description="Height.", json_schema_extra=PIXELS)
    num_images: int = Field(1, ge=1, le=256, description="Pictures to draw; each has the next seed.")
    model: str = Field("image", description="A shipped model's name, a folder, a safetensors file, a hub id.")


class ImageAdapter(Adapter):
    """Pictures as `suite.adapter.Adapter` wants a medium."""

    name = "image"
    request: type[Request] = ImageRequest
    plural = "images"
    count = "num_images"
    suffixes = (".png", ".jpg", ".jpeg", ".webp")

    def check(self, request: Request) -> None:
        """Opens the init and mask files; ValueError if one is no picture."""
        from modalities.image.read import opened

        for name in ("init", "mask"):
            if getattr(request, name) is not None:
                opened(name, getattr(request, name))

    def shape(self, request: Request, factor: int, multiple: int) -> tuple[int, ...]:
        """(height, width) of the latents; ValueError names the side that does not divide."""
        for name in ("width", "height"):
            size, unit = getattr(request, name), factor * multiple
            if size % unit:
                near = max(1, round(size / unit)) * unit
                raise ValueError(f"{name} is {size}; this model's must be a multiple of {unit} (try {near})")
        return (request.height // factor, request.width // factor)  # type: ignore[attr-defined]

    def read(self, request: Request, size: Sequence[int]) -> tuple[Tensor | None, Tensor | None]:
        """Init (1, 3, H, W) in [-1, 1] and mask (1, 1, H, W) in [0, 1]: their middle, at the size (H, W)."""
        from PIL import Image, ImageOps

        from modalities.image.read import on_ground, opened

        size = (size[1], size[0])
        init = mask = None
        if request.init is not None:
            picture = on_ground(opened("init", request.init), "white")
            init = _tensor(ImageOps.fit(picture, size, Image.Resampling.LANCZOS)) * 2 - 1
        if request.mask is not None:
            grey = on_ground(opened("mask", request.mask), "black").convert("L")
            mask = _tensor(ImageOps.fit(grey, size, Image.Resampling.BILINEAR))
        return init, mask

    def finish(
        self, decoded: Tensor, request: Request, settings: Sequence[Mapping[str, Any]] = ()
    ) -> list[Any]:
        """(B, 3, H, W) in [-1, 1] to pictures; PIL's own, whose `save` also writes their settings."""
        from modalities.image.save import with_settings

        pictures = self.preview(decoded)
        if not settings:
            return pictures
        return [with_settings(picture, told) for picture, told in zip(pictures, settings, strict=True)]

    def preview(self, small: Tensor) -> list[Any]:
        """(B, 3, H, W) in [-1, 1] to pictures."""
        from PIL import Image

        pixels = small.clamp(-1, 1).add(1).mul(127.5).round().byte().movedim(1, -1).contiguous()
        return [Image.fromarray(one.numpy()) for one in pixels]

    def save(self, item: Image, path: Path, settings: Mapping[str, Any]) -> None:
        """Writes a PNG, JPEG or WebP with its settings."""
        from modalities.image.save import save

        save(item, path, settings)

    def restore(self, path: Path) -> dict[str, Any]:
        """The settings a picture of ours carries."""
        return restore(path)

    def examples(self, data: Path, seed: int, options: Mapping[str, Any]) -> Drawing:
        """Training pictures by number: composed from the packs in `data`, or those of an imagefolder."""
        from modalities.image.compose import Drawing

        told = {name: options[name] for name in ("size", "objects") if name in options}
        return Drawing(data, seed, **told)

    def sheet(self, items: Sequence[Image], path: Path) -> None:
        """Writes the pictures side by side, as near a square as they go."""
        from modalities.image.sheet import tiled
        from suite.storage import replacing

        with replacing(path) as part:
            tiled(items).save(part, "PNG")

    def judge(self, argv: Sequence[str]) -> int | None:
        """Runs `suite eval image`."""
        from importlib import import_module

        code: int | None = import_module("modalities.image.judge").main(list(argv))
        return code


adapter = ImageAdapter()


def load(
    model: str | Path = "image",
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
) -> Pipeline:
    """A pipeline that draws pictures.

    Args:
        model: a shipped model's name, a model folder or a .safetensors file.
        device: chosen by itself when None.
        dtype: of the networks; chosen by itself when None.
    """
    from suite.pipeline import load

    return load(adapter, model, device, dtype)


def restore(path: str | Path) -> dict[str, Any]:
    """The request that a saved picture carries, field by field, as `ImageRequest(**fields)` takes it."""
    from modalities.image.save import restore

    return restore(Path(path))


def _tensor(picture: Image) -> Tensor:
    """(1, C, H, W) float32 in [0, 1]."""
    import numpy as np
    import torch

    pixels = torch.from_numpy(np.array(picture, dtype=np.float32)) / 255
    return (pixels[..., None] if pixels.dim() == 2 else pixels).movedim(-1, 0)[None]
