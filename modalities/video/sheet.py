"""Pictures of clips: some of their frames beside each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from modalities.image.read import on_ground
from modalities.image.sheet import tiled

__all__ = ["strip", "tiled"]

SHOWN, SIDE = 8, 96  # frames; pixels of one's height


def strip(frames: np.ndarray[Any, Any], shown: int = SHOWN, side: int = SIDE) -> Image.Image:
    """Frames (T, H, W, 3 or 4) uint8, evenly spaced, from the first, side by side."""
    width = max(1, round(side * frames.shape[2] / frames.shape[1]))
    chosen = frames[np.arange(min(shown, len(frames))) * len(frames) // min(shown, len(frames))]
    pictures = [on_ground(Image.fromarray(frame), "white").resize((width, side)) for frame in chosen]
    return tiled(pictures, len(pictures), 2)
