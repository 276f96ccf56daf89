"""What a picture on a plain ground shows, told by its pixels and by the network that names objects.

Shapes: H W picture, N names or crops, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from modalities.image.colour import shares
from suite import storage
from suite.text import TextEncoder
from suite.text import load as load_text

DISTANCE = 30.0  # from the ground, in 8-bit RGB, at which a pixel is an object's
LEAST = 0.25  # share of the largest part's area that makes a part an object, not a stray
SPECK = 0.002  # share of the picture below which there is no object at all


@dataclass(frozen=True)
class Part:
    """One object cut out by its pixels.

    Attributes:
        mask: (H, W) bool.
        centre: (x, y) of its mass, in pixels.
        box: left, top, right, bottom, in pixels.
    """

    mask: np.ndarray
    centre: tuple[float, float]
    box: tuple[int, int, int, int]


def ground(pixels: np.ndarray) -> np.ndarray:
    """The plain or evenly changing ground behind the objects, from the picture's border.

    Args:
        pixels: (H, W, 3) uint8.

    Returns: (H, W, 3) float; a plane for each channel, fitted twice, the second time without what stood out.
    """
    height, width = pixels.shape[:2]
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    edge = np.ones((height, width), bool)
    rim = max(2, min(height, width) // 64)
    edge[rim:-rim, rim:-rim] = False
    place = np.stack([np.ones_like(x), x, y], -1)
    at, seen = place[edge], pixels[edge].astype(float)
    keep = np.linalg.norm(seen - np.median(seen, 0), axis=1) < 4 * DISTANCE
    for _ in range(3):
        plane = np.linalg.lstsq(at[keep], seen[keep], rcond=None)[0] if keep.sum() > 8 else np.zeros((3, 3))
        keep = np.linalg.norm(seen - at @ plane, axis=1) < DISTANCE
    return place @ plane


def parts(picture: Image.Image) -> list[Part]:
    """The objects on the ground, largest first; strays are left out."""
    pixels = np.asarray(picture.convert("RGB"))
    far = np.linalg.norm(pixels - ground(pixels), axis=2) > DISTANCE
    far = ndimage.binary_opening(far, iterations=1)
    reach = max(1, round(min(far.shape) / 128))
    far = ndimage.binary_closing(np.pad(far, reach), iterations=reach)[reach:-reach, reach:-reach]
    labels, found = ndimage.label(ndimage.binary_fill_holes(far), np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=found + 1)[1:]
    if not found or areas.max() < SPECK * far.size:
        return []
    parts = []
    for label in np.argsort(-areas, kind="stable"):
        if areas[label] >= LEAST * areas.max():
            mask = labels == label + 1
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            y, x = ndimage.center_of_mass(mask)
            box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
            parts.append(Part(mask, (float(x), float(y)), box))
    return parts


def crop(picture: Image.Image, part: Part, side: int) -> Image.Image:
    """One object alone on its ground, in a square a little larger than it."""
    pixels = np.asarray(picture.convert("RGB"))
    behind = ground(pixels)
    near = ndimage.binary_dilation(part.mask, iterations=2)
    alone = np.where(near[..., None], pixels, behind).clip(0, 255).astype(np.uint8)
    left, top, right, bottom = part.box
    size = round(max(right - left, bottom - top) * 1.15)
    tone = tuple(int(v) for v in behind[(top + bottom) // 2, (left + right) // 2].clip(0, 255))
    square = Image.new("RGB", (size, size), tone)
    cut = Image.fromarray(alone[top:bottom, left:right])
    square.paste(cut, ((size - cut.width) // 2, (size - cut.height) // 2))
    return square.resize((side, side), Image.Resampling.LANCZOS)


def colours(picture: Image.Image, part: Part) -> dict[str, float]:
    """The shares of an object's pixels that answer to each colour word, largest first.

    Its rim and the holes that show the ground do not count.
    """
    pixels = np.asarray(picture.convert("RGB"))
    mask = part.mask & (np.linalg.norm(pixels - ground(pixels), axis=2) > DISTANCE)
    inner = ndimage.binary_erosion(mask, iterations=2)
    return shares(pixels, (inner if inner.any() else mask).astype(np.uint8) * 255)


def colour(picture: Image.Image, part: Part) -> str | None:
    """The colour word that most of an object answers to."""
    return next(iter(colours(picture, part)), None)


def stands(first: Part, second: Part, relation: str) -> bool:
    """Whether the first object is "left of", "right of", "above" or "below" the second.

    It is where their centres lie farther apart that way than across it.
    """
    right, down = (b - a for a, b in zip(first.centre, second.centre, strict=True))
    along, across = (right, down) if relation.endswith("of") else (down, right)
    return (along if relation in ("left of", "above") else -along) > abs(across)


class Namer:
    """The network that names objects, and the names it chooses from."""

    def __init__(self, network: Any, text: TextEncoder, names: Sequence[str], side: int = 64) -> None:
        """Takes the network, the encoder of the names, the names and the side of a crop in pixels."""
        self.network, self.names, self.side = network, list(names), side
        self.vectors = name_vectors(text, self.names)

    @torch.no_grad()
    def scores(self, crops: Sequence[Image.Image]) -> Tensor:
        """Log-probability (B, N) of each name for each crop."""
        if not crops:
            return torch.zeros(0, len(self.names))
        found: Tensor = self.network.logits(tensor(crops, self.side), self.vectors).log_softmax(-1)
        return found

    @torch.no_grad()
    def features(self, pictures: Sequence[Image.Image]) -> Tensor:
        """(B, D) of whole pictures, for the kernel distance."""
        found: Tensor = self.network.features(tensor(pictures, self.side))
        return found


def namer(names: Sequence[str], model: str | Path = "image-judge") -> tuple[Namer, dict[str, Any]]:
    """The shipped judge for these names, and its config."""
    network, config = storage.load(storage.find(model))
    if config.get("kind") != "judge":
        raise storage.ModelError(f"{model} is of kind {config.get('kind')!r}; it must be 'judge'")
    return Namer(network, load_text(config["text"]), names, config["side"]), config


def name_vectors(text: TextEncoder, names: Sequence[str]) -> Tensor:
    """Vectors (N, D) of names: the mean of their tokens."""
    cond = text.encode(list(names))
    kept = cond.mask[..., None].float()
    return (cond.tokens * kept).sum(1) / kept.sum(1)


def tensor(pictures: Sequence[Image.Image], side: int) -> Tensor:
    """(B, 3, side, side) in [-1, 1]."""
    small = [np.array(p.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)) for p in pictures]
    return torch.from_numpy(np.stack(small)).movedim(-1, 1).float() / 127.5 - 1


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x . y / D + 1)^3.

    Args:
        x: (N, D), two rows or more.
        y: (M, D), two rows or more.

    Source: Binkowski et al. 2018, arXiv 1801.01401, section 4.
    """

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    x, y = x.double(), y.double()
    within = [(k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1)) for k in (kernel(x, x), kernel(y, y))]
    return float(within[0] + within[1] - 2 * kernel(x, y).mean())


def kernel_distances(features: Tensor, real: Mapping[str, Tensor], splits: int = 20) -> dict[str, float]:
    """The kernel distance of pictures to real scenes of held-out objects, and what it is at best.

    Args:
        features: (N, D) of the pictures.
        real: `held out` (M, D), the scenes measured against; `asked` (L, D), real scenes of the prompts.
        splits: random draws of N of `asked` or of half of it, for its mean distance and standard deviation.
    """
    generator = torch.Generator().manual_seed(0)
    far, asked = real["held out"].float(), real["asked"].float()
    count, values = min(len(features), len(asked) // 2), []
    for _ in range(splits):
        order = torch.randperm(len(asked), generator=generator)
        values.append(kernel_distance(asked[order[:count]], far))
    spread = torch.tensor(values)
    return {"of pictures": kernel_distance(features, far), "of real scenes": float(spread.mean()),
            "of real scenes, deviation": float(spread.std())}  # fmt: skip
