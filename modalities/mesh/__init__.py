"""Meshes: what may be asked of them, how they become tensors and back.

`mesh.load()("a wooden chair", seed=7).meshes[0].save("chair.glb")` draws one and saves it with its settings;
`mesh.finished(mesh.MeshRequest(input="scan.obj", height=0.9))` finishes one from elsewhere without a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from suite.adapter import Adapter
from suite.request import FINE, Media, Request

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from modalities.mesh.save import Model
    from suite.bench import Row
    from suite.pipeline import Pipeline

__all__ = ["MeshRequest", "adapter", "finished", "load", "restore"]

METRES = 1.0  # the largest extent of what has no known size
# Added to a drawn depth, in its units (a mean of legs here and there is below 0 at both): the first by
# which the thing is one part, or else the first.
BOLD = (0.35, 0.5, 0.65)
LOOSE = 0.05  # of what a model draws: parts smaller than that, and as far from the rest, are none of it


class MeshRequest(Request):
    """What may be asked of a mesh; of `prompt`, `image`, `input` and `photos` at least one."""

    prompt: str = Field("", max_length=10_000, description="What to draw. (word:1.3) weighs a word.")
    image: Media = Field(None, description="Picture of one thing on a plain ground, to be made a mesh.")
    input: Media = Field(None, description="Mesh file to finish; nothing is drawn.")
    photos: Media = Field(
        None, description="Folder of photos all around one thing, to be made a mesh without a model."
    )
    elevation: float = Field(
        0.0, ge=-30, le=80, description="How far above the thing such photos are taken.",
        json_schema_extra={"unit": "degrees", "step": 1},
    )  # fmt: skip
    num_meshes: int = Field(1, ge=1, le=256, description="Meshes to draw; each has the next seed.")
    triangles: int = Field(20_000, ge=100, le=500_000, description="Triangles at most.")
    height: float | None = Field(
        None, ge=0.001, le=1000, description="Height that the mesh is brought to.",
        json_schema_extra={"unit": "m", "step": 0.01},
    )  # fmt: skip
    size: float | None = Field(
        None, ge=0.001, le=1000, description="Largest extent, by default what such things measure.",
        json_schema_extra={"unit": "m", "step": 0.01},
    )  # fmt: skip
    texture: Literal["0", "256", "512", "1024", "2048"] = Field(
        "1024", description="Texels of a side of the texture; 0 is colours without one."
    )
    metallic: float = Field(0.0, ge=0, le=1, description="How metallic.", json_schema_extra=FINE)
    roughness: float = Field(0.9, ge=0, le=1, description="How rough; 0 mirrors.", json_schema_extra=FINE)
    watertight: bool = Field(True, description="Close holes; a solid can be printed and sold.")
    draco: bool = Field(False, description="Pack the triangles of a GLB by Draco, for pages that read it.")
    levels: int = Field(1, ge=1, le=5, description="Levels of detail, each of a quarter; -lod1, ... beside.")
    sides: int = Field(1, ge=1, le=64, description="Sides that a PNG shows, evenly spaced all around.")
    side: int = Field(
        512, ge=64, le=2048, multiple_of=2, description="Size of pictures and turntables.",
        json_schema_extra={"unit": "px"},
    )  # fmt: skip
    mask: str = Field("", max_length=1000, description="Heights of the init mesh to redraw: 0-0.3 or 0.5-.")
    model: str = Field("mesh", description="A shipped model's name, a folder, a safetensors file, a hub id.")

    @field_validator("prompt")
    @classmethod
    def _not_empty(cls, prompt: str) -> str:
        return super()._not_empty(prompt) if prompt else prompt

    @model_validator(mode="after")
    def _one(self) -> MeshRequest:
        if not self.prompt and self.image is None and self.input is None and self.photos is None:
            raise ValueError("prompt is missing; say what to draw, or give an image, an input file or photos")
        if self.input is not None and self.photos is not None:
            raise ValueError("input and photos are both given; give one of the two")
        if self.height is not None and self.size is not None:
            raise ValueError(f"height is {self.height} and size is {self.size}; give one of the two")
        if self.loop:
            raise ValueError("loop is for pictures, clips and sounds; a mesh has no edges to join")
        return self

    def filled(self, defaults: Mapping[str, Any]) -> MeshRequest:
        """As of `Request`; heights that are redrawn start from noise, unless told otherwise."""
        return super().filled({**defaults, **({"strength": 1.0} if self.mask else {})})


class MeshAdapter(Adapter):
    """Meshes as `suite.adapter.Adapter` wants a medium."""

    name = "mesh"
    request: type[Request] = MeshRequest
    plural = "meshes"
    count = "num_meshes"
    suffixes = (".glb", ".usdz", ".obj", ".ply", ".stl", ".html", ".png", ".mp4", ".gif", ".webp")

    def check(self, request: Request) -> None:
        """Opens the files and reads the heights; ValueError if one cannot be used."""
        from modalities.mesh.glb import NEEDED, known
        from modalities.mesh.picture import opened as picture
        from modalities.mesh.read import opened

        if request.draco and not known():
            raise ValueError(f"draco is true; {NEEDED}")
        if request.input is not None:
            opened("input", request.input)
        if request.init is not None:
            opened("init", request.init)
            _heights(request)
        if request.image is not None:
            picture(request.image)

    def shape(self, request: Request, factor: int, multiple: int) -> tuple[int, ...]:
        """(r, r, r) latents of the grid."""
        from modalities.mesh.grid import CELLS

        return (CELLS // factor,) * 3

    def read(self, request: Request, size: Sequence[int]) -> tuple[Tensor | None, Tensor | None]:
        """The init mesh as a grid (1, 4, R, R, R), and 1 where it is to be redrawn (1, 1, R, R, R)."""
        if request.init is None:
            return None, None
        import torch

        from modalities.mesh.grid import filled, gridded

        x = torch.from_numpy(filled(gridded(request.init)))[None].float() / 127.5 - 1
        if not request.mask:
            return x, None
        return x, _redrawn(request, x[0, 0]).expand(x[:, :1].shape)

    def beside(self, request: Request) -> Tensor | None:
        """The picture's tokens (1, L, D)."""
        if request.image is None:
            return None
        import torch

        from modalities.mesh.picture import cut, opened, tokens

        return torch.from_numpy(tokens(cut(opened(request.image))))[None]

    def ready(self, request: Request) -> Model | None:
        """The input mesh or that of the photos, finished; None without them."""
        return finished(request) if request.input is not None or request.photos is not None else None

    def finish(
        self, decoded: Tensor, request: Request, settings: Sequence[Mapping[str, Any]] = ()
    ) -> list[Any]:
        """(B, 4, R, R, R), inside and colour, to finished meshes of real size."""
        import torch

        from modalities.mesh.finish import safely, surface_of, without_floaters
        from modalities.mesh.grid import smooth

        size, made = _size(request), []
        for i, field in enumerate(decoded.float()):
            told = dict(settings[i]) if settings else None
            share = request.strength if request.init else 1.0
            where = share * (_redrawn(request, field[0]) if request.mask else torch.ones(1))
            drawn = []
            for bold in BOLD:
                bolder = smooth(torch.cat([field[:1] + bold * where, field[1:]]).numpy())
                drawn.append(without_floaters(surface_of(bolder), LOOSE))
                if whole := drawn[-1].body_count == 1:
                    break
            model = _finished(drawn[-1] if whole else drawn[0], request, size, told)
            for mesh in (model.mesh, *model.levels):
                safely(mesh)
            made.append(model)
        return made

    def preview(self, small: Tensor) -> list[Any]:
        """(B, 4, r, r, r), inside and colour, to pictures of the points of the surface."""
        from modalities.mesh.grid import cloud_of
        from modalities.mesh.sheet import cloud

        return [cloud(cloud_of(grid)) for grid in small.float().numpy()]

    def save(self, item: Model, path: Path, settings: Mapping[str, Any]) -> None:
        """Writes a mesh, a page, a picture or a turntable, with its settings where the format has a place."""
        from dataclasses import replace

        replace(item, settings=dict(settings)).save(path)

    def restore(self, path: Path) -> dict[str, Any]:
        """The settings a mesh of ours carries."""
        return restore(path)

    def examples(
        self, data: Path, seed: int, options: Mapping[str, Any]
    ) -> Callable[[int], tuple[Any, ...]]:
        """Training shapes by number: drawn from the packs in `data`, or the meshes of a captioned folder.

        `pictures = true` in the recipe's `[data]` gives a picture's tokens with each.
        """
        from modalities.mesh.compose import Drawing

        return Drawing(data, seed, options)

    def sheet(self, items: Sequence[Any], path: Path) -> None:
        """Writes pictures of meshes, or such pictures themselves, side by side."""
        from modalities.mesh.save import Model
        from modalities.mesh.sheet import tiled
        from suite.storage import replacing

        with replacing(path) as part:
            tiled([item.picture() if isinstance(item, Model) else item for item in items]).save(part, "PNG")

    def bench(self, quick: bool, model: str) -> Iterator[Row]:
        """Seconds of a finished mesh by step."""
        from modalities.mesh.bench import rows

        return rows(quick, model)

    def judge(self, argv: Sequence[str]) -> int | None:
        """Runs `suite eval mesh`."""
        from importlib import import_module

        code: int | None = import_module("modalities.mesh.judge").main(list(argv))
        return code


adapter = MeshAdapter()


def finished(request: Request) -> Model:
    """The request's input mesh or that of its photos with every step of `modalities.mesh.finish`.

    An input is as large as it is or as asked, what photos show as large as such things are.
    """
    from modalities.mesh.carve import field_of
    from modalities.mesh.finish import surface_of
    from modalities.mesh.read import opened
    from suite.adapter import settings

    told, asked = settings(adapter, request, request.seed), request.model_dump()
    if asked["photos"] is None:
        return _finished(opened("input", request.input), request, asked["size"], told)
    field = field_of(asked["photos"], asked["elevation"])
    return _finished(surface_of(field), request, _size(request), told)


def load(
    model: str | Path = "mesh",
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
) -> Pipeline:
    """A pipeline that draws meshes.

    Args:
        model: a shipped model's name, a model folder or a .safetensors file.
        device: chosen by itself when None.
        dtype: of the networks; chosen by itself when None.
    """
    from suite.pipeline import load

    return load(adapter, model, device, dtype)


def restore(path: str | Path) -> dict[str, Any]:
    """The request that a saved mesh carries, field by field, as `MeshRequest(**fields)` takes it."""
    from modalities.mesh.save import restore

    return restore(Path(path))


def _finished(mesh: Any, request: Any, size: float | None, settings: dict[str, Any] | None) -> Model:
    """A mesh as the request wants it finished."""
    from modalities.mesh.finish import detail_levels, finish
    from modalities.mesh.save import Model

    texture = int(request.texture)
    made = finish(mesh, request.triangles, request.height, size, texture, request.watertight)
    return Model(made, detail_levels(made, request.levels)[1:], settings, request.metallic, request.roughness,
                 request.side)  # fmt: skip


def _size(request: Any) -> float | None:
    """Metres of the largest extent, as asked or as such things have; None if a height is asked for."""
    from modalities.mesh.sizes import size_of

    if request.size is not None or request.height is not None:
        return request.size
    return size_of(request.prompt) or METRES


def _redrawn(request: Request, depth: Tensor) -> Tensor:
    """(1, R, 1) of a grid's depth (R, R, R), 1 at the heights of the thing that are redrawn."""
    import torch

    height = torch.arange(depth.shape[1]) + 0.5
    thing = height[(depth > 0).any(2).any(0)]
    low, high = (thing.min() - 0.5, thing.max() + 0.5) if len(thing) else (0.0, float(depth.shape[1]))
    share = (height - low) / (high - low)
    draw = torch.stack([(share >= start) & (share <= stop) for start, stop in _heights(request)]).any(0)
    return draw.float().view(1, -1, 1)


def _heights(request: Request) -> list[tuple[float, float]]:
    """Shares of the height that are redrawn, from the floor."""
    from modalities.audio.read import spans

    return spans(request.mask, 1.0, "of the height") if request.mask else []
