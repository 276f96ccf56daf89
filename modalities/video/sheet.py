"""Pictures of clips: some of their frames beside each other, and sheets of such rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from modalities.image.read import on_ground
from modalities.image.sheet import tiled

__all__ = ["strip", "tiled"]


def strip(frames: np.ndarray[Any, Any], count: int = 8, height: int = 128) -> Image.Image:
    """Frames (T, H, W, 3 or 4) uint8, evenly spaced from the first to the last, side by side, RGB."""
    chosen = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    width = max(1, round(height * frames.shape[2] / frames.shape[1]))
    shown = [on_ground(Image.fromarray(frame), "white").resize((width, height)) for frame in frames[chosen]]
    return Image.fromarray(np.concatenate([np.asarray(frame) for frame in shown], 1))
