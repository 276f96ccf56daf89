"""Pictures of sounds: spectrograms, time to the right, low tones at the bottom; and sheets of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modalities.image.sheet import tiled

__all__ = ["spectrogram", "tiled"]

WIDTH, HEIGHT = 640, 200
# From silence to full scale, evenly spaced: lightness rises in even steps, so that a step looks like a step.
COLOURS = ((4, 4, 14), (41, 18, 84), (99, 25, 125), (160, 44, 119),
           (216, 75, 88), (247, 131, 69), (252, 197, 110), (252, 253, 208))  # fmt: skip


def spectrogram(mel: NDArray[Any], width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A log-mel spectrogram as a picture.

    Args:
        mel: (M, L) in [-1, 1], -1 is silence; the first band is the lowest.
        width: pixels.
        height: pixels.
    Returns: RGB.
    """
    levels = Image.fromarray(np.flipud(mel).astype(np.float32))
    shares = np.asarray(levels.resize((width, height), Image.Resampling.BILINEAR)) / 2 + 0.5
    anchors = np.linspace(0, 1, len(COLOURS))
    pixels = [np.interp(shares, anchors, channel) for channel in zip(*COLOURS, strict=True)]
    return Image.fromarray(np.stack(pixels, -1).round().astype(np.uint8))
