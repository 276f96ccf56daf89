"""The training pool: a medium's captioned examples, drawn once, encoded, and kept on disk in parts.

It holds signals for an autoencoder, or latents and text features for a denoiser. Drawing it can be stopped at
any moment and goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suite import storage
from suite.latent import Latent
from suite.text import Conditioning, TextEncoder

Array = np.ndarray[Any, Any]
Draw = Callable[[int], tuple[Array, str] | tuple[Array, str, Array]]
DEPENDS = ("data", "seed", "latent", "text")  # what of a recipe the pool depends on
CHUNK = 64  # examples drawn between two notes of progress


class Examples(torch.utils.data.Dataset[tuple[Any, ...]]):
    """A medium's examples from `start` to `count`, by number, for worker processes to draw."""

    def __init__(self, draw: Draw, start: int, count: int) -> None:
        """Takes the medium's function from number to (signal, caption), perhaps (signal, caption, tokens)."""
        self.draw, self.start, self.count = draw, start, count

    def __len__(self) -> int:
        """How many there are."""
        return self.count - self.start

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        """The signal (C, *S), float in [-1, 1] or uint8 or int16 steps of it, the caption, perhaps tokens."""
        signal, caption, *tokens = self.draw(self.start + number)
        return torch.from_numpy(signal), caption, *map(torch.from_numpy, tokens)


@dataclass
class Pool:
    """Examples in memory: signals or latents (N, C, *S), and the captions' features one after the other."""

    signals: np.ndarray[Any, Any]
    tokens: np.ndarray[Any, Any] | None = None
    ends: np.ndarray[Any, Any] | None = None

    def signal(self, rows: Any) -> Tensor:
        """The signals of these rows, (B, C, *S) float32."""
        return as_float(torch.from_numpy(self.signals[rows]))

    def text(self, rows: Sequence[int]) -> Conditioning:
        """The text features of these rows."""
        assert self.tokens is not None and self.ends is not None
        spans = [self.tokens[self.ends[row - 1] if row else 0 : self.ends[row]] for row in rows]
        tokens = torch.zeros(len(rows), max(map(len, spans)), self.tokens.shape[1])
        mask = torch.zeros(tokens.shape[:2], dtype=torch.bool)
        for i, span in enumerate(spans):
            tokens[i, : len(span)], mask[i, : len(span)] = torch.from_numpy(span.astype(np.float32)), True
        return Conditioning(tokens, mask)


def as_float(signal: Tensor) -> Tensor:
    """A stored signal as float32: uint8 is [-1, 1] in 255 steps, int16 in 65534."""
    if signal.dtype == torch.int16:
        return signal.float() / 32767
    return signal.float() / 127.5 - 1 if signal.dtype == torch.uint8 else signal.float()


def prepare(
    recipe: dict[str, Any],
    draw: Draw,
    folder: Path,
    latent: Latent | None = None,
    text: TextEncoder | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[int]:
    """Draws the pool, or goes on where it was left.

    Args:
        recipe: `[data]` says `pool`, its size, and `workers`, how many processes draw; what else the pool
            depends on is kept beside it.
        draw: number to (signal, caption), or with tokens (L, D) that go beside the caption's.
        folder: where the pool lies.
        latent: encodes the signals; None stores them as they are.
        text: encodes the captions; None leaves them out.
        device: where `latent` is.

    Yields: how many are drawn.

    Raises: ValueError, in one sentence, if the pool is that of another recipe, or an example cannot be drawn.
    """
    count, note = int(recipe["data"]["pool"]), folder / "pool.json"
    folder.mkdir(parents=True, exist_ok=True)
    of = {key: recipe[key] for key in DEPENDS if key in recipe}
    made: dict[str, Any] = json.loads(note.read_text()) if note.is_file() else {"count": 0, "of": of}
    if made.get("of") != of:
        raise ValueError(
            f"{folder} holds a pool of another recipe: of {', '.join(DEPENDS)} something differs; "
            "remove it or choose another --out"
        )
    start = made["count"]
    for signals, captions, *tokens in chunks(draw, start, count, recipe["data"].get("workers", 1)):
        stored = signals if latent is None else latent.encode(as_float(signals).to(device)).half().cpu()
        part: dict[str, Any] = {"signals": stored.numpy(), "captions": np.array(captions)}
        if text is not None:
            cond = text.encode(captions).to("cpu")
            for more in tokens:
                cond = cond.beside(more)
            rows = [told[mask].half().numpy() for told, mask in zip(cond.tokens, cond.mask, strict=True)]
            part |= {"tokens": np.concatenate(rows), "lengths": np.array([len(row) for row in rows])}
        with storage.replacing(folder / f"part-{start:08d}.npz") as beside, beside.open("wb") as file:
            np.savez(file, **part)
        start += len(captions)
        with storage.replacing(note) as beside:
            beside.write_text(json.dumps({"count": start, "of": of}))
        yield start


def chunks(draw: Draw, start: int, count: int, workers: int) -> Iterator[Any]:
    """The examples from `start` to `count`, some at once; a ValueError of a worker in its own words."""
    if start >= count:
        return
    try:
        yield from torch.utils.data.DataLoader(Examples(draw, start, count), CHUNK, num_workers=workers)
    except ValueError as error:  # a worker's comes with its whole traceback as the message
        raise ValueError(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from None


def read_pool(folder: Path) -> Pool:
    """The pool that `prepare` drew."""
    parts = []
    for path in sorted(folder.glob("part-*.npz")):
        with np.load(path) as part:
            parts.append({name: part[name] for name in part.files if name != "captions"})
    signals = np.concatenate([part["signals"] for part in parts])
    if "tokens" not in parts[0]:
        return Pool(signals)
    ends = np.cumsum(np.concatenate([part["lengths"] for part in parts]))
    return Pool(signals, np.concatenate([part["tokens"] for part in parts]), ends)
