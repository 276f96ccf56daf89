"""What a medium tells the core, and where the core finds it: the entry-point group `suite.modalities`.

A third party adds a medium by installing a package with such an entry point. Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import suite
from suite.request import Request

if TYPE_CHECKING:
    from torch import Tensor

    from suite.bench import Row

GROUP = "suite.modalities"


class Adapter(Protocol):
    """How a medium becomes tensors and back, and what may be asked of it; a medium's own adapter inherits it.

    Attributes:
        name: the medium.
        request: its request model.
        plural: what its results are called, "images".
        count: the request's field that says how many items to draw.
        suffixes: the file endings it can save.
        closed: the dimensions of space that a loop closes; of a clip, time alone.
    """

    name: str
    request: type[Request]
    plural: str
    count: str
    suffixes: tuple[str, ...]
    closed: slice = slice(None)

    def check(self, request: Request) -> None:
        """Refuses, without torch, what can be seen to fail: init or mask files that cannot be read."""

    def shape(self, request: Request, factor: int, multiple: int) -> tuple[int, ...]:
        """The space of the latents.

        Args:
            request: says the size of the result.
            factor: size of the result over size of the latents.
            multiple: what each latent size must be a multiple of.
        Raises: ValueError, naming the field and a size that works.
        """

    def read(self, request: Request, size: Sequence[int]) -> tuple[Tensor | None, Tensor | None]:
        """The init (1, C, *S) in [-1, 1] and the mask (1, 1, *S) in [0, 1], 1 = draw, at the size S.

        A medium whose latents are larger than what is asked for keeps the rest, without an init file, too.
        """

    def beside(self, request: Request) -> Tensor | None:
        """Tokens (1, L, D) that go beside the prompt's, as of a picture of what is asked for; None: none."""
        return None

    def ready(self, request: Request) -> Any:
        """An item that no model need draw, as a mesh that is only to be finished; None if one must."""
        return None

    def finish(
        self, decoded: Tensor, request: Request, settings: Sequence[Mapping[str, Any]] = ()
    ) -> list[Any]:
        """(B, C, *S) in [-1, 1] to B items a user can show and save; `settings` go with them."""

    def preview(self, small: Tensor) -> list[Any]:
        """What `Latent.preview` gives, to B pictures."""

    def save(self, item: Any, path: Path, settings: Mapping[str, Any]) -> None:
        """Writes an item with its settings, beside `path` first, then renamed."""

    def restore(self, path: Path) -> dict[str, Any]:
        """The settings in a saved file; ValueError if it carries none."""

    def examples(self, data: Path, seed: int, options: Mapping[str, Any]) -> Callable[[int], tuple[Any, str]]:
        """Training examples by number: the signal (C, *S) and its caption.

        The signal is float in [-1, 1], or uint8 for 255 steps of it, or int16 for 65534.

        Args:
            data: the folder of the packs, or with media files and metadata.jsonl.
            seed: of what is composed.
            options: `[data]` of the recipe.
        """

    def sheet(self, items: Sequence[Any], path: Path) -> None:
        """Writes one PNG that shows items, or pictures of them, beside each other."""

    def bench(self, quick: bool, model: str) -> Iterator[Row]:
        """What else of this medium `suite bench` measures."""
        yield from ()

    def judge(self, argv: Sequence[str]) -> int | None:
        """Runs the medium's evaluation command."""


def settings(adapter: Adapter, request: Request, seed: int) -> dict[str, Any]:
    """What an item carries to where it is saved: the request that makes it alone."""
    alone = {**request.model_dump(mode="json"), adapter.count: 1, "seed": seed}
    return {"suite": suite.__version__, "modality": adapter.name, "request": alone}


def names() -> list[str]:
    """The media that are installed."""
    return sorted(point.name for point in entry_points(group=GROUP))


def find(name: str) -> Adapter:
    """The adapter of an installed medium."""
    for point in entry_points(group=GROUP):
        if point.name == name:
            adapter: Adapter = point.load()
            return adapter
    raise ValueError(f"modality is {name!r}; it must be one of {', '.join(names()) or '(none is installed)'}")
